"""A dialect's understanding of one answer, whatever its framing: where its words are, and what a client has open."""

from __future__ import annotations

from typing import Any, Protocol

from firewall.errors import FirewallError
from firewall.wire.leaves import Leaf


class Array(dict[str, Any]):
    """A body that is a JSON array (Gemini), as `{"[]": [...]}`: no object can say that it is one."""


class Speech(Protocol):
    """A dialect's understanding of one answer. `Leaf.path` is the channel of the words.

    Attributes:
        after: what a client has seen open; replaced, never changed, so that frames can carry it.
        pending: something is open that must leave whole.
        last: the answer has ended (finish reason).
        complete: a terminal event, or the end of every choice, was seen.
        opaque: paths that passed uninspected.
        done: data that ends the stream without being JSON (`[DONE]`), or None: then that is nothing.
        names: event names that are nobody's words (besides the document's own `type`).
        plain: whether a mould may be made of what was just read: its channel depends on nothing but its bytes
            and the state above.
    """

    after: Any
    last: bool
    complete: bool
    done: bytes | None
    names: frozenset[bytes]

    @property
    def plain(self) -> bool: ...

    @property
    def pending(self) -> bool: ...

    @property
    def opaque(self) -> list[str]: ...

    def read(self, document: dict[str, Any], whole: bool) -> list[Leaf]:
        """The words of an event (or of a whole answer), and the state after it."""

    def glance(self, document: dict[str, Any]) -> list[Leaf] | None:
        """What `read` gives of a whole answer, and `finish` after it, where the answer is such as most are: all its keys are
        names of the protocols and nothing is deep (`strict`). Else None, and nothing has changed."""

    def finish(self) -> list[Leaf]:
        """The stream ended: words that only now are known."""

    @property
    def state(self) -> Any:
        """An object that is replaced whenever what is open changes: moulds live as long as it does."""

    def heard(self, channel: str, text: str, number: int) -> None:
        """Words that were read by a mould: of an open call, or with a sequence number (else -1)."""

    def again(self) -> Speech:
        """A new one for the same request, that has heard nothing."""

    def drop(self, document: dict[str, Any]) -> None:
        """Removes what spells changed words a second time (logprobs), and what points at them by offsets."""

    def ending(self, after: Any, message: str) -> bytes:
        """See `Reader.ending`."""

    def fault(self, after: Any, error: FirewallError) -> bytes:
        """See `Reader.fault`."""

    def withheld(self, message: str) -> bytes:
        """A whole answer in place of a blocked one."""

    def error(self, error: FirewallError) -> bytes:
        """A whole error body."""
