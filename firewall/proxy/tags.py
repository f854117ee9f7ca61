"""Text in Unicode tag characters (U+E0000 to U+E007F): nobody sees it, and a model may follow it.

The guard reads it decoded (`guards/views.py`, `guards/encoder/reading.py`). What it lets pass is forwarded without it all
the same, and judged once more as it then reads: an invisible instruction has no honest use, and a guard may miss what a
large model understands. The flags of England, Scotland and Wales are spelled with these characters and stay (Unicode UTS 51,
RGI emoji tag sequences).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from firewall.case import Message
from firewall.errors import FirewallError
from firewall.guards.cleaned import wide
from firewall.verdict import Span
from firewall.wire.wire import Asked

_FLAGS = "|".join("".join(chr(0xE0000 + ord(c)) for c in code) for code in ("gbeng", "gbsct", "gbwls"))
_PLANE = b"\xf3\xa0"      # how U+E0000 to U+E0FFF begin in UTF-8: a search in bytes costs a tenth of the expression's
_TAGS = re.compile(f"\U0001f3f4(?:{_FLAGS})\U000e007f|([\U000e0000-\U000e007f]+)")


def hidden(messages: Iterable[Message]) -> list[Span]:
    """Where the words of a request are written in tag characters."""
    odd = [message for message in messages
           if wide(message.text, 4) and not message.text.isascii()
           and _PLANE in message.text.encode("utf-8", "surrogatepass")]
    return [Span(message.where, *found.span(1)) for message in odd for found in _TAGS.finditer(message.text) if found[1]]


def visible(asked: Asked, spans: list[Span]) -> bytes:
    """The request without these spans.

    What was held apart joins: the caller looks once more (`hidden`), since the joined words may spell hidden ones.

    Raises:
        FirewallError: `hidden_text` where one stands in a key or in numbers and cannot be removed.
    """
    try:
        return asked.rewrite(spans, lambda _: "")
    except FirewallError:
        raise unremovable() from None


def unremovable() -> FirewallError:
    return FirewallError("hidden_text", "The request hides text in invisible tag characters (U+E0000 to U+E007F) where it "
                         "cannot be removed.")
