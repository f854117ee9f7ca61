"""A head that came before on its connection, known again when at most the digits of its Content-Length differ.

Kept connections mostly bring the same head over and over. What our reading makes of a head follows from its bytes, so for
the same bytes it need not be done again. Content-Length may say another number, 1 to 18 digits, not zero: the one field
that differs from body to body and whose meaning needs no reading. llhttp is not spared a byte, on either side.

One head a connection, at most `LONGEST` bytes of it. A request's holds a credential: it is compared, never shown, and goes
with its connection.
"""

from __future__ import annotations

LONGEST = 2048
LENGTH = b"content-length"
DIGITS = 18


def around(head: bytes, value: bytes) -> tuple[bytes, bytes]:
    """The bytes before and behind the value of the one Content-Length in a head."""
    at = head.index(value, head.lower().index(b"\r\ncontent-length:") + 17)
    return head[:at], head[at + len(value):]
