"""The one type in the middle: a slice of upstream bytes with the words found in it.

A codec turns bytes into frames and never changes them: the joined `raw` of all frames is the input, for every cut.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple


class Piece(NamedTuple):
    """Words, and the channel they belong to, e.g. `choice/0/text`, `choice/0/tool/1/arguments`, `block/2/thinking`."""

    channel: str
    text: str


class Frame(NamedTuple):
    """A slice of the upstream body.

    Args:
        raw: the bytes exactly as they came.
        pieces: the words in them, in order.
        after: what a client that read up to here has seen open (the codec's own value; the gate only carries it).
        pending: True while something is unfinished after this frame that must not leave in part (a tool call).
        last: True for the frame that ends the answer (finish reason, terminal event): it counts as one more
            character, so that it cannot leave before a verdict on the whole.
        source: the bytes as they came, where `raw` was rewritten since (redaction).
        opaque: the frame could not be understood strictly; its bytes were judged as text.
    """

    raw: bytes
    pieces: tuple[Piece, ...] = ()
    after: Any = None
    pending: bool = False
    last: bool = False
    opaque: bool = False
    source: bytes = b""


# The same from a tuple of all fields, without the call into Python that a NamedTuple's constructor is: for what is made
# with every token.
quick_piece: Callable[[tuple[str, str]], Piece] = partial(tuple.__new__, Piece)
quick_frame: Callable[[tuple[bytes, tuple[Piece, ...], Any, bool, bool, bool, bytes]], Frame] = partial(tuple.__new__, Frame)
