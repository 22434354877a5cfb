"""Which replies count: one rule for training and for evaluation. What breaks it is a fault, never the end."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ouikit.fl.flower import ArrayRecord, Message, MetricRecord
from ouikit.fl.strategies.arrays import Arrays, arrays_of, records_of
from ouikit.fl.strategies.mean import Form, flat, form_of
from ouikit.fl.strategies.reasons import plain
from ouikit.fl.strategies.weights import Vector

NO_ANSWER = "no answer"
_MOST_EXAMPLES = 2.0**53  # so that sums of sizes are exact


class RoundFailedError(RuntimeError):
    """A round had fewer nodes or usable replies than it needs. The global model stays as it was."""


class UnusableReplyError(ValueError):
    """A reply that must not count; the message says what is wrong with it."""


@dataclass(frozen=True)
class Reply:
    """One usable reply, decoded.

    client, node: who sent it. arrays: its model, as numpy arrays by name. update: θ_k − θ_t over all
    floating-point arrays, float64 [P]. metrics: its numbers. scores: what the server measured of it.
    Of an evaluation, arrays and update are empty.
    """

    client: int
    node: int
    arrays: Arrays
    update: Vector
    metrics: dict[str, float]
    scores: dict[str, float] = field(default_factory=dict)


def sift(
    asked: Mapping[int, int],
    answers: Mapping[int, Message],
    read: Callable[[int, int, Message | None], Reply],
) -> tuple[list[Reply], list[tuple[int, str]]]:
    """The usable replies, and each client that gave none with the reason, both in the order of the clients.

    Besides what `read` refuses, a reply is not usable if its metrics have other names or lengths than those
    of most others (of as many, the first client's): there would be no mean of them.

    Args:
        asked: node → client.
        answers: by node; others than those asked for are ignored.
        read: makes a reply of client, node and answer, or raises UnusableReplyError.
    """
    replies, flaws = list[Reply](), list[tuple[int, str]]()
    for node, client in sorted(asked.items(), key=lambda item: item[1]):
        try:
            replies.append(read(client, node, answers.get(node)))
        except UnusableReplyError as flaw:
            flaws.append((client, str(flaw)))
    forms = {reply.client: _form(answers[reply.node]) for reply in replies}
    usual = Counter(forms.values()).most_common(1)[0][0] if forms else ""
    odd = [(who, f"sent {form}; most others {usual}") for who, form in forms.items() if form != usual]
    return [reply for reply in replies if forms[reply.client] == usual], sorted([*flaws, *odd])


def _form(answer: Message) -> str:
    """The name of the MetricRecord, and those of its metrics, a list with its length."""
    ((record, metrics),) = records_of(answer.content, MetricRecord).items()
    lengths = {name: f"[{len(value)}]" for name, value in metrics.items() if isinstance(value, list)}
    return f"{record}: {', '.join(sorted(name + lengths.get(name, '') for name in metrics))}"


def metrics_of(answer: Message | None) -> MetricRecord:
    """The one MetricRecord of an answer. Raises UnusableReplyError."""
    if answer is None:
        raise UnusableReplyError(NO_ANSWER)
    if answer.has_error():
        raise UnusableReplyError(f"error: {plain(answer.error.reason)}")
    records = records_of(answer.content, MetricRecord)
    if len(records) != 1:
        raise UnusableReplyError(f"not exactly one MetricRecord: {len(records)}")
    return next(iter(records.values()))


def numbers_of(metrics: MetricRecord, needs: Sequence[str] = ()) -> dict[str, float]:
    """The metrics that are single numbers. All must be finite, num-examples a size, and `needs` in [0, 1].

    Raises UnusableReplyError.
    """
    for name in ("num-examples", *needs):
        value, most = metrics.get(name), 1.0 if name in needs else _MOST_EXAMPLES
        if not isinstance(value, int | float) or not 0 <= value <= most:
            raise UnusableReplyError(f"metric {name!r} is not in [0, {most:.3g}]: {value!s:.40}")
    for name, value in metrics.items():
        for number in value if isinstance(value, list) else [value]:
            if not abs(number) <= sys.float_info.max:
                raise UnusableReplyError(f"metric {name!r} is not finite: {number!s:.40}")
    return {str(n): float(value) for n, value in metrics.items() if isinstance(value, int | float)}


def model_and_update(answer: Message, before: Vector, form: Form) -> tuple[Arrays, Vector]:
    """The model of an answer, and its update over the global model `before` (`flat`), which has this form.

    Where the global model is infinite, as a mask may be, the same value is no update.

    Raises UnusableReplyError.
    """
    records = records_of(answer.content, ArrayRecord)
    if len(records) != 1:
        raise UnusableReplyError(f"not exactly one ArrayRecord: {len(records)}")
    try:
        arrays = arrays_of(next(iter(records.values())))
        own = form_of(arrays)
    except Exception as error:  # whatever a client may have put in place of a file
        raise UnusableReplyError(f"arrays that cannot be read: {type(error).__name__}: {error}") from error
    if own != form:
        odd = [name for name in {**form, **own} if own.get(name) != form.get(name)]
        raise UnusableReplyError(f"names, shapes or types other than those of the global model: {odd[:5]}")
    update = flat(arrays)
    with np.errstate(invalid="ignore", over="ignore"):
        np.subtract(update, before, out=update)
        if not np.isfinite(update @ update):
            update[flat(arrays) == before] = 0.0
            if not np.isfinite(update @ update):
                raise UnusableReplyError("a weight that is not finite, or an update without a finite length")
    return arrays, update
