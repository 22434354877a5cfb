"""Why a node gave no usable reply, in words that are the same on every engine, in every process and run."""

import re
from collections.abc import Callable

from ouikit.fl.flower import ClientApp, Context, Error, Message

_RAISED = 2  # Flower's code of a ClientApp that raised
_FLOWERS = re.compile(r"<class '([^']*\.)?([^'.]+)'>:<'(.*)'>", re.DOTALL)
_PASSING = (
    (re.compile(r"\x1b\[[0-9;]*[A-Za-z]"), ""),  # colours
    (re.compile(r" at 0x[0-9A-Fa-f]+"), ""),  # addresses
    (re.compile(r"\b(pid|process)[ =:]+\d+", re.IGNORECASE), r"\1"),
    (re.compile(r"(?<![\w/])(?:/var|/private/var)?/tmp/(?:[^\s'\"]*/)?"), ""),  # folders that come and go
)  # fmt: skip


def answering(client_app: ClientApp) -> Callable[[Message, Context], Message]:
    """A ClientApp whose errors are replies, `ZeroDivisionError: by nothing`, before an engine words them."""

    def call(message: Message, context: Context) -> Message:
        try:
            reply = client_app(message, context)
            if not isinstance(reply, Message):
                raise TypeError(f"a ClientApp answers with a Message, not {type(reply).__name__}")
            return reply
        except (Exception, SystemExit) as error:  # whatever a client's code may raise
            return Message(Error(_RAISED, f"{type(error).__name__}: {error}"), reply_to=message)

    return call


def plain(reason: str | None) -> str:
    """An error's reason without what differs from run to run.

    >>> plain("<class 'builtins.ZeroDivisionError'>:<'by nothing'>")  # as a Flower deployment words it
    'ZeroDivisionError: by nothing'
    >>> plain("OSError: cannot read '/tmp/tmpx1y2/weights.pt' in process 4711")
    "OSError: cannot read 'weights.pt' in process"
    """
    text = reason or "no reason given"
    for passing, stands in _PASSING:
        text = passing.sub(stands, text)
    if worded := _FLOWERS.fullmatch(text):
        module, kind, message = worded.groups()
        if module and module.startswith("ray."):  # a traceback, or the particulars of an actor
            message = message.strip().splitlines()[-1 if kind.startswith("RayTaskError") else 0]
        text = f"{kind}: {message}"
    return text
