"""Fair waiting: a bounded number of questions run, a bounded number wait, and no tenant crowds out another.

A free slot goes to the waiting tenant that holds the fewest slots, first come first served among equals. So while two
tenants wait, neither is given more than half of the slots: a slot was just freed, hence held <= n-1, and the chosen
tenant holds no more than the other, hence at most (n-1)/2 before and (n+1)/2, rounded down, after. A tenant alone may
use everything. A full queue turns away the newest waiter of the tenant with the most waiting, at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque

from firewall.errors import GuardDown


class Queue:
    """Args: `slots` that run at the same time, `room` for waiting ones (default: four times the slots)."""

    def __init__(self, slots: int = 16, room: int | None = None) -> None:
        self.slots, self.room = slots, 4 * slots if room is None else room
        self.running: Counter[str] = Counter()
        self.active = self.waiting = 0
        self.pace = 0.1                      # seconds an answer takes, smoothed
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def enter(self, tenant: str) -> None:
        """Returns with a slot. Raises `GuardDown("guard_overloaded")` when there is no room to wait."""
        if self.active < self.slots and not self.waiting:
            self._take(tenant)
            return
        if self.waiting >= self.room:
            self._turn_away(tenant)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(tenant, deque()).append(turn)
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(tenant)           # the slot came in the same instant: pass it on
            else:
                self._forget(tenant, turn)
            raise

    def leave(self, tenant: str, took: float | None = None) -> None:
        """Gives the slot back. `took`: seconds until the answer, if there was one; it goes into `pace`."""
        if took is not None:
            self.pace += 0.1 * (took - self.pace)
        self.active -= 1
        self.running[tenant] -= 1
        if not self.running[tenant]:
            del self.running[tenant]
        while self.waiting and self.active < self.slots:
            chosen = min(self._lines, key=lambda t: self.running[t])
            turn = self._pop(chosen, newest=False)
            if not turn.done():
                self._take(chosen)
                turn.set_result(None)

    @property
    def wait(self) -> float:
        """Seconds after which trying again makes sense."""
        return min(30.0, max(1.0, self.pace * (self.waiting + 1) / max(1, self.slots)))

    def _take(self, tenant: str) -> None:
        self.active += 1
        self.running[tenant] += 1

    def _turn_away(self, tenant: str) -> None:
        longest = max(self._lines, key=lambda t: len(self._lines[t]), default=tenant)
        full = GuardDown("guard_overloaded", f"{self.room} questions wait already", retry_after=round(self.wait, 1))
        if len(self._lines.get(longest, ())) <= len(self._lines.get(tenant, ())) + 1:
            raise full
        turn = self._pop(longest, newest=True)
        if not turn.done():
            turn.set_exception(full)

    def _pop(self, tenant: str, newest: bool) -> asyncio.Future[None]:
        line = self._lines[tenant]
        turn = line.pop() if newest else line.popleft()
        self.waiting -= 1
        if line:
            if not newest:
                self._lines.move_to_end(tenant)      # equals take turns
        else:
            del self._lines[tenant]
        return turn

    def _forget(self, tenant: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(tenant)
        if line and turn in line:
            line.remove(turn)
            self.waiting -= 1
            if not line:
                del self._lines[tenant]
