"""Whose a channel is: one field's for the whole answer.

Words of another field between two fragments would hide what a client reads who puts one field's fragments together.
The field that speaks first on a channel has it; any other has its own below it (`choice/0/reasoning/reasoning_content`).
"""

from __future__ import annotations


class Owners:
    """The fields that have the channels of one answer."""

    __slots__ = ("_fields",)

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def __contains__(self, channel: str) -> bool:
        """Whether a field has it."""
        return channel in self._fields

    def of(self, path: str, field: str) -> str:
        """The channel of a field's words at a path: the path's if it spoke first there, else its own. Keys that are no
        protocol words have one channel for all (`reader.py`)."""
        channel = path.replace(".", "/")
        if channel.endswith("#key") or self._fields.setdefault(channel, field) == field:
            return channel
        return f"{channel}/{field}"
