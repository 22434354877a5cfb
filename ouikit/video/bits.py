"""Numbers in the headers of a video stream, bit after bit (ITU-T H.265, clauses 7.2 and 9.2)."""


class Bits:
    """Reads a header from its first bit on.

    >>> bits = Bits(bytes([0b1_010_0010, 0b0_0000000]))
    >>> bits.flag(), bits.unsigned(), bits.signed(), bits.position
    (True, 1, 2, 9)
    """

    def __init__(self, payload: bytes) -> None:
        self._bits = f"{int.from_bytes(payload, 'big'):0{8 * len(payload)}b}" if payload else ""
        self.position = 0

    def number(self, bits: int) -> int:
        """A number of so many bits. Raises EOFError where the header ends before."""
        end = self.position + bits
        if end > len(self._bits):
            raise EOFError
        found = int(self._bits[self.position : end], 2) if bits else 0
        self.position = end
        return found

    def flag(self) -> bool:
        """One bit."""
        return self.number(1) == 1

    def unsigned(self) -> int:
        """An Exp-Golomb number, ue(v): zeros, then one digit more than there were zeros."""
        one = self._bits.find("1", self.position)
        if one < 0:
            raise EOFError
        zeros, self.position = one - self.position, one
        return self.number(zeros + 1) - 1

    def signed(self) -> int:
        """The same with a sign, se(v): 0, 1, −1, 2, −2 …"""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)

    def skip(self, bits: int) -> None:
        """Leave bits out. Raises EOFError where the header ends before."""
        self.position += bits
        if self.position > len(self._bits):
            raise EOFError
