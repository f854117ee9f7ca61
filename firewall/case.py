"""What is put before a guard: policies, the conversation, the answer so far, whole or partial.

A case holds every judged word. `messages` are the request's words in order; `where` is the path of the JSON leaf
they stood in. `answer` is the model's words as runs in arrival order; a channel (say `choice/0/text` or
`block/2/thinking`) may come back in later runs. A case never holds a key or a header.
"""

from __future__ import annotations

from typing import NamedTuple

from firewall.policy import Direction, PolicySet


class Message(NamedTuple):
    """Words of the request. `role` is system, user, assistant, tool, or the name of what they are (`tools`)."""

    role: str
    text: str
    where: str = ""


class Said(NamedTuple):
    """A run of the model's words on one channel."""

    channel: str
    text: str


class Case(NamedTuple):
    """One question to a guard (a tuple, because one is made for every few tokens of a stream).

    Args:
        direction: whose words are on trial: the request's ("input") or the answer's ("output").
        policies: the active policies of that direction.
        messages: the request. On "output" they are context only.
        answer: runs of the answer so far, in arrival order; empty on "input".
        whole: True when nothing more can come; a partial answer may still become innocent or guilty.
        tenant: separates memories and prefix caches; never shown to a model.
        boundary: random word, the same for all questions of one exchange, that fences the evidence in a prompt.
    """

    direction: Direction
    policies: PolicySet
    messages: tuple[Message, ...] = ()
    answer: tuple[Said, ...] = ()
    whole: bool = True
    tenant: str = ""
    boundary: str = ""

    def channels(self) -> dict[str, str]:
        """Channel -> all its words joined, in order of first appearance."""
        out: dict[str, str] = {}
        for channel, text in self.answer:
            out[channel] = out[channel] + text if channel in out else text
        return out

    def trial(self) -> list[tuple[str, str]]:
        """(channel, text) of the words on trial: messages by `where`, or channels of the answer."""
        if self.direction == "output":
            return list(self.channels().items())
        return [(m.where or m.role, m.text) for m in self.messages]
