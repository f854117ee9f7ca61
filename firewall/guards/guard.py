"""The one interface of leaves and combinations: guards nest."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from firewall.case import Case
from firewall.policy import PolicySet
from firewall.verdict import Verdict


@runtime_checkable
class Guard(Protocol):
    """Believes things about cases.

    Attributes:
        name: for records and metrics; a constant word such as `embedded` or `cascade`.
        fingerprint: names weights, prompt text and reader, so that memories of one guard never answer for another.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    async def start(self) -> None:
        """Loads, connects or spawns. Raises `Mistakes` or `GuardDown` with one clear sentence and the fix."""

    async def close(self) -> None:
        """Frees everything; later calls of `judge` raise `GuardDown`."""

    def ready(self) -> str:
        """Empty when it can answer now, else one sentence of why not (shown in /readyz)."""

    def known(self, case: Case) -> Verdict | None:
        """A verdict that costs nothing and needs no waiting (a memory, a scripted answer), or None."""

    async def judge(self, case: Case) -> Verdict:
        """Raises `GuardDown` when there is no verdict. Cancelling it stops the work behind it."""


def warm(guard: object, policies: PolicySet) -> None:
    """Lets a guard that can (`warm`) prepare for a policy set. Slow and off the loop, so that no exchange waits for it."""
    if prepare := getattr(guard, "warm", None):
        prepare(policies)


def forget(guard: object, boundary: str) -> None:
    """Lets a guard that keeps something of an exchange (`forget`) drop it: the exchange with that boundary has ended."""
    if drop := getattr(guard, "forget", None):
        drop(boundary)
