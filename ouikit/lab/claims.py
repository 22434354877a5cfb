"""Predicates and verdicts: does a measured number support what the paper says?

A claim is tested by one predicate at each scale. All of them read the measured interval, never the point
alone, so that a verdict says what the data can carry:

=========== ==================================== ============================================================
predicate   YAML                                 `reproduced` when
=========== ==================================== ============================================================
``exact``   ``exact: 99``                        the value equals the number
``within``  ``within: 0.05`` or ``[0.6, 0.8]``   the whole interval lies within ± of the paper's value, or in
                                                 the range
``greater`` ``greater: 0.1``                     the lower end of the interval is above the margin
``order``   ``order: "a > b > 0.5"``             neighbours are ordered, interval clear of interval
``trend``   ``trend: {falling: 0.5}``            the rank correlation's interval lies beyond the margin
``ratio``   ``ratio: 0.2``                       ours / paper's lies, with its interval, within 1 ± the number
=========== ==================================== ============================================================

`contradicted` means that the interval excludes the claim, `inconclusive` that it allows both. An interval
below the margin of a `greater` or a `trend` is `weaker` if it lies above zero: the direction holds, the size
does not.

A claim says where its metric lies if it is false, its *null*; a test that says `reproduced` there is none.
A verdict is *fragile* if an interval moved by a tenth of its width would change it.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Verdict = Literal["reproduced", "weaker", "inconclusive", "contradicted", "not run"]
VERDICTS: tuple[str, ...] = get_args(Verdict)
_OPERAND = r"[A-Za-z_][\w.]*|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_ORDER = re.compile(rf"\s*({_OPERAND})(\s*[<>]\s*({_OPERAND}))+\s*")


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval and the number of independent repetitions behind it."""

    value: float
    low: float
    high: float
    n: int | None = None

    @classmethod
    def of(cls, thing: Any) -> "Measured":
        """From a number, a record's mapping, or anything with `value`, `low`, `high` and `n`.

        Raises:
            TypeError: if it is none of these.
        """
        if isinstance(thing, Measured):
            return thing
        if isinstance(thing, Mapping):
            lost = {k: math.nan if thing.get(k) is None else thing[k] for k in ("value", "low", "high")}
            return cls(**lost, n=thing.get("n"))
        if hasattr(thing, "value") and hasattr(thing, "low") and hasattr(thing, "high"):
            return cls(float(thing.value), float(thing.low), float(thing.high), getattr(thing, "n", None))
        try:
            return cls(float(thing), float(thing), float(thing))
        except (TypeError, ValueError):
            raise TypeError(f"a metric is a number or has value, low and high; got {thing!r}") from None

    def known(self) -> bool:
        """Whether value and interval are numbers (an unbounded interval is; NaN is not)."""
        return not any(math.isnan(x) for x in (self.value, self.low, self.high))

    def moved(self, by: float) -> "Measured":
        """The same, with value and interval moved."""
        return replace(self, value=self.value + by, low=self.low + by, high=self.high + by)


@dataclass(frozen=True)
class Test:
    """One predicate with what it is compared against, and why this tolerance."""

    predicate: str
    against: Any
    why: str

    def operands(self, metric: str) -> list[str]:
        """Names of the metrics that this test reads."""
        if self.predicate != "order":
            return [metric]
        return [x for x in re.findall(_OPERAND, self.against) if not is_literal(x)]

    def printed(self) -> set[str]:
        """Metrics that this test cannot be read without: those of an `order` of several."""
        several = set(self.operands("")) if self.predicate == "order" else set()
        return several if len(several) > 1 else set()


def parse_test(raw: Any, paper: Mapping[str, Any] | None) -> Test:
    """Read `{predicate: against, why: …}`.

    Raises:
        ValueError: saying what is wrong and how to write it.
    """
    if not isinstance(raw, Mapping):
        raise ValueError('write {predicate: …, why: "…"}')
    names = [k for k in raw if k != "why"]
    if len(names) != 1 or names[0] not in PREDICATES:
        raise ValueError(f"needs exactly one predicate of {', '.join(PREDICATES)}; got {names}")
    name, against = names[0], raw[names[0]]
    if not isinstance(raw.get("why"), str) or not raw["why"].strip():
        raise ValueError("needs `why`: the reason for this tolerance")
    problem = _SHAPES[name](against, paper)
    if problem:
        hint = " (YAML reads 1e-3 as text; write 1.0e-3)" if isinstance(against, str) else ""
        raise ValueError(f"{name}: {problem}; got {against!r}{hint}")
    return Test(name, against, raw["why"])


def judge(test: Test, metric: str, metrics: Mapping[str, Any], paper: Mapping[str, Any] | None) -> str:
    """The verdict of one test on measured metrics; a missing metric is `not run`, NaN `inconclusive`."""
    if any(name not in metrics for name in test.operands(metric)):
        return "not run"
    found = {name: Measured.of(metrics[name]) for name in test.operands(metric)}
    if not all(m.known() for m in found.values()):
        return "inconclusive"
    return PREDICATES[test.predicate](test.against, found, paper or {})


def holds_at(test: Test, metric: str, null: float, paper: Mapping[str, Any] | None) -> bool:
    """Whether a test says *reproduced* where every number lies at `null`, and so cannot tell a false claim.

    Each comparison in an `order` of several metrics counts alone: a claim is false if one of its parts is.

    >>> holds_at(Test("order", "auroc > 0.01", ""), "auroc", 0.5, None)
    True
    """
    for part in parts(test):
        names = part.operands(metric)
        if names and judge(part, names[0], dict.fromkeys(names, null), paper) == "reproduced":
            return True
    return False


def fragile(test: Test, metric: str, metrics: Mapping[str, Any], paper: Mapping[str, Any] | None) -> bool:
    """Whether a verdict would be another if an interval lay a tenth of its width to either side.

    An inconclusive verdict is never fragile: that the interval allows both is what it says.

    >>> fragile(Test("greater", 0.0, ""), "gain", {"gain": {"value": 5, "low": 0.5, "high": 9}}, None)
    True
    """
    verdict = judge(test, metric, metrics, paper)
    if verdict in ("inconclusive", "not run"):
        return False
    for name in test.operands(metric):
        found = Measured.of(metrics[name])
        for share in (-0.1, 0.1):
            apart = {**metrics, name: found.moved(share * (found.high - found.low))}
            if judge(test, metric, apart, paper) != verdict:
                return True
    return False


def parts(test: Test) -> Iterator[Test]:
    """The comparisons in an `order` of several metrics; any other test is one part."""
    if not test.printed():
        yield test
        return
    words = re.split(r"\s*([<>])\s*", test.against.strip())
    for i in range(0, len(words) - 2, 2):
        yield replace(test, against=" ".join(words[i : i + 3]))


def supported(predicate: str | None, against: Any, paper: float | None) -> tuple[float, float] | None:
    """The numbers that a test would call *reproduced*, as a range; None where they are none of one number.

    >>> supported("order", "0.25 < a.b < 0.5", None)
    (0.25, 0.5)
    """
    if predicate == "greater":
        return against, math.inf
    if predicate == "trend":
        ((direction, margin),) = against.items()
        return (margin, math.inf) if direction == "rising" else (-math.inf, -margin)
    if predicate == "within":
        if isinstance(against, list):
            return against[0], against[1]
        return None if paper is None else (paper - against, paper + against)
    if predicate == "ratio" and paper is not None:
        low, high = sorted((paper * (1 - against), paper * (1 + against)))
        return low, high
    return _range_of(against) if predicate == "order" else None


def _range_of(order: str) -> tuple[float, float] | None:
    """The bounds in an order of a single metric."""
    parts = re.split(r"\s*([<>])\s*", order.strip())
    operands, signs = parts[::2], parts[1::2]
    names = [i for i, operand in enumerate(operands) if not is_literal(operand)]
    if len(names) != 1:
        return None
    at, low, high = names[0], -math.inf, math.inf
    for other, sign in (
        (at - 1, signs[at - 1] if at else ""),
        (at + 1, signs[at] if at < len(signs) else ""),
    ):
        if sign and (sign == "<") == (other < at):
            low = float(operands[other])
        elif sign:
            high = float(operands[other])
    return low, high


def _exact(against: Any, found: Mapping[str, Measured], paper: Mapping[str, Any]) -> str:
    (m,) = found.values()
    return "reproduced" if m.value == m.low == m.high == against else "contradicted"


def _within(against: Any, found: Mapping[str, Measured], paper: Mapping[str, Any]) -> str:
    (m,) = found.values()
    if isinstance(against, list):
        return _in_range(m, *against)
    return _in_range(m, paper["value"] - against, paper["value"] + against)


def _ratio(against: Any, found: Mapping[str, Measured], paper: Mapping[str, Any]) -> str:
    (m,) = found.values()
    low, high = sorted((m.low / paper["value"], m.high / paper["value"]))
    return _in_range(Measured(m.value / paper["value"], low, high), 1 - against, 1 + against)


def _greater(against: Any, found: Mapping[str, Measured], paper: Mapping[str, Any]) -> str:
    (m,) = found.values()
    return _beyond(m, against)


def _trend(against: Any, found: Mapping[str, Measured], paper: Mapping[str, Any]) -> str:
    (m,) = found.values()
    ((direction, margin),) = against.items()
    return _beyond(m if direction == "rising" else Measured(-m.value, -m.high, -m.low, m.n), margin)


def _order(against: Any, found: Mapping[str, Measured], paper: Mapping[str, Any]) -> str:
    parts = re.findall(rf"{_OPERAND}|[<>]", against)
    values = [found[p] if p in found else Measured.of(float(p)) for p in parts[::2]]
    verdicts = []
    for left, sign, right in zip(values, parts[1::2], values[1:], strict=False):
        big, small = (left, right) if sign == ">" else (right, left)
        verdicts.append("true" if big.low > small.high else "false" if big.high < small.low else "open")
    if "false" in verdicts:
        return "contradicted"
    return "inconclusive" if "open" in verdicts else "reproduced"


def _in_range(m: Measured, low: float, high: float) -> str:
    if low <= m.low and m.high <= high:
        return "reproduced"
    return "contradicted" if m.high < low or m.low > high else "inconclusive"


def _beyond(m: Measured, margin: float) -> str:
    if m.low > margin:
        return "reproduced"
    if m.high < margin and m.low > 0:
        return "weaker"
    return "contradicted" if m.high < margin or m.high < 0 else "inconclusive"


PREDICATES: dict[str, Callable[[Any, Mapping[str, Measured], Mapping[str, Any]], str]] = {
    "exact": _exact,
    "within": _within,
    "greater": _greater,
    "order": _order,
    "trend": _trend,
    "ratio": _ratio,
}


def is_literal(operand: str) -> bool:
    """Whether an operand of an `order` is a number, not a metric."""
    return operand[0] in "+-0123456789"


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < math.inf


def _has_value(paper: Mapping[str, Any] | None) -> bool:
    return paper is not None and _is_number(paper.get("value"))


def _within_shape(against: Any, paper: Mapping[str, Any] | None) -> str | None:
    if isinstance(against, list):
        ok = len(against) == 2 and all(map(_is_number, against)) and against[0] < against[1]
        return None if ok else "write a range [low, high] of finite numbers with low < high"
    if not (_is_number(against) and against > 0):
        return "write a positive, finite tolerance or a range [low, high]"
    return None if _has_value(paper) else "a tolerance needs `paper: {value: …}`"


def _order_shape(against: Any, paper: Mapping[str, Any] | None) -> str | None:
    if not (isinstance(against, str) and _ORDER.fullmatch(against)):
        return 'write "a > b" or "a > 0.5"'
    numbers = [float(x) for x in re.findall(_OPERAND, against) if is_literal(x)]
    return None if all(map(_is_number, numbers)) else "write finite numbers"


def _trend_shape(against: Any, paper: Mapping[str, Any] | None) -> str | None:
    ok = isinstance(against, Mapping) and len(against) == 1 and next(iter(against)) in ("rising", "falling")
    ok = ok and _is_number(next(iter(against.values()))) and 0 <= next(iter(against.values())) < 1
    return None if ok else "write {rising: margin} or {falling: margin}, 0 <= margin < 1"


def _ratio_shape(against: Any, paper: Mapping[str, Any] | None) -> str | None:
    if not (_is_number(against) and 0 < against < 1):
        return "write a tolerance between 0 and 1"
    return None if _has_value(paper) and paper and paper["value"] != 0 else "needs `paper: {value: …}`, not 0"


_SHAPES: dict[str, Callable[[Any, Mapping[str, Any] | None], str | None]] = {
    "exact": lambda a, p: None if _is_number(a) else "write a finite number",
    "within": _within_shape,
    "greater": lambda a, p: None if _is_number(a) and a >= 0 else "write a finite margin, 0 or more",
    "order": _order_shape,
    "trend": _trend_shape,
    "ratio": _ratio_shape,
}
