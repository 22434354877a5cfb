"""How the gates of a network are frozen, for strategies that freeze them (`ouikit.fl.FedSQ`)."""

from dataclasses import dataclass

from ouikit.nn.gated import DECIDES, NORMS


@dataclass(frozen=True)
class FrozenGates:
    """What comes from the structural copy, as the arguments of `ouikit.nn.gated.DualCopy` name it.

    Attributes:
        norm: batch normalisation, one of `ouikit.nn.gated.NORMS`.
        pool, gate: who decides in max-pooling and at gates, one of `ouikit.nn.gated.DECIDES`.
    """

    norm: str = "frozen"
    pool: str = "structure"
    gate: str = "structure"

    def __post_init__(self) -> None:
        for name, known in (("norm", NORMS), ("pool", DECIDES), ("gate", DECIDES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}: got {getattr(self, name)!r}")
