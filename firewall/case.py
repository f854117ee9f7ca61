"""What is put before a guard: policies, the conversation, the answer so far, whole or partial.

A case holds every judged word. `messages` are the request's words in order; `where` is the path of the JSON leaf
they stood in. `answer` is the model's words as runs in arrival order; a channel (say `choice/0/text` or
`block/2/thinking`) may come back in later runs. A case never holds a key or a header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, overload

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


class Runs(Sequence[Said]):
    """Many runs as they stood at one question, with each channel's words joined already.

    An answer whose channels take turns gets a run with every word, and a question about it must not cost all runs
    that came before. So the runs are shared with whoever appends to them, and only their number is ours.

    Args:
        runs: complete runs; more may be appended later.
        last: the run that is still growing.
        joined: channel -> its words in `runs`, in order of first appearance; copied.
    """

    __slots__ = ("_last", "_runs", "_size", "channels")

    def __init__(self, runs: Sequence[Said], last: Said, joined: Mapping[str, str]) -> None:
        self._runs, self._last, self._size = runs, last, len(runs) + 1
        self.channels = {**joined, last.channel: joined.get(last.channel, "") + last.text}

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Said]:
        yield from islice(self._runs, self._size - 1)
        yield self._last

    @overload
    def __getitem__(self, at: int) -> Said: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[Said, ...]: ...

    def __getitem__(self, at: int | slice) -> Said | tuple[Said, ...]:
        if isinstance(at, slice):
            return tuple(self)[at]
        place = range(self._size)[at]
        return self._runs[place] if place < self._size - 1 else self._last

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, (tuple, Runs)) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))


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
    answer: Sequence[Said] = ()
    whole: bool = True
    tenant: str = ""
    boundary: str = ""

    def channels(self) -> dict[str, str]:
        """Channel -> all its words joined, in order of first appearance. Not to be changed: it may be shared."""
        if type(self.answer) is Runs:
            return self.answer.channels
        out: dict[str, str] = {}
        for channel, text in self.answer:
            out[channel] = out[channel] + text if channel in out else text
        return out

    def trial(self) -> list[tuple[str, str]]:
        """(channel, text) of the words on trial: messages by `where`, or channels of the answer."""
        if self.direction == "output":
            return list(self.channels().items())
        return [(m.where or m.role, m.text) for m in self.messages]


# From a tuple of all fields, without the call into Python that a NamedTuple's constructor is: for every few tokens.
quick_case: Callable[[tuple[Direction, PolicySet, tuple[Message, ...], Sequence[Said], bool, str, str]], Case] = partial(
    tuple.__new__, Case)
quick_said: Callable[[tuple[str, str]], Said] = partial(tuple.__new__, Said)
