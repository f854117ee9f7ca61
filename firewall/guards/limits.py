"""`Limits`: what stands between the firewall and any guard. Deadline, retry, breaker, fair queue, memory, honesty.

Order of a question: memory (free) -> breaker (fails at once while the guard is down) -> fair queue -> the guard, all
within one deadline that covers the waiting too. A connection-type failure is tried once more while time is left.
Whatever goes wrong becomes `GuardDown` here: a late answer, a foreign exception, and a verdict that no honest guard
could give (a rule that was not asked about, a score outside [0, 1], a span outside the text). Cancelling `judge`
cancels the work behind it.

Failures that a text can provoke (an unreadable answer, a text too long) and our own overload do not count towards the
breaker: else one client could shut the guard for all. Nor does a question whose time the line ate, whether it was never
asked or asked with less time left than an answer usually takes: it ends as `guard_overloaded`. Nor does a timeout of a
text of more than `SHORT` characters, or one while the guard answered others: five long documents are no broken guard.
One that hangs is told by short questions, and by broken connections whatever the length.
"""

from __future__ import annotations

import asyncio
import time

from firewall.case import Case
from firewall.errors import GuardDown
from firewall.guards.breaker import Breaker
from firewall.guards.compose import steady
from firewall.guards.guard import Guard, forget, warm
from firewall.guards.memory import Memory
from firewall.guards.queue import Queue
from firewall.policy import PolicySet
from firewall.verdict import Verdict

RETRIED = frozenset({"guard_unreachable", "guard_error"})          # connection refused or cut; 429 or 5xx
PROVOKED = frozenset({"guard_unreadable", "guard_too_long", "guard_overloaded"})
PAUSE = 0.05
SHORT = 2_048           # characters that any guard reads in time, even if every slot holds as many


class Limits:
    """A guard with bounds. Numbers from cases.md R10 and R11.

    Args:
        deadline: seconds for one question, waiting and retry included.
        patience: more seconds for every thousand characters on trial: a long text takes long to read.
        failures, cooldown: the breaker opens after so many failures in a row, and probes after so many seconds.
        slots, queue: questions at the same time, and waiting ones (default 4 x slots).
        memory: verdicts remembered (0: none); `memory_bytes` bounds their size. Questions about an answer still
            being written are not remembered: they hardly ever come twice. Nor is what a guard says that is not
            `steady`: its rules may change under the same fingerprint.
    """

    def __init__(self, guard: Guard, *, deadline: float = 3.0, patience: float = 0.0, failures: int = 5,
                 cooldown: float = 5.0, slots: int = 16, queue: int | None = None, memory: int = 4096,
                 memory_bytes: int = 8 << 20) -> None:
        self.guard, self.deadline, self.patience = guard, deadline, patience
        self.breaker, self.queue = Breaker(failures, cooldown), Queue(slots, queue)
        self.steady = steady(guard)
        self.memory = Memory(memory if self.steady else 0, memory_bytes)
        self._closed = False
        self._heard = 0.0                    # when the guard last answered

    @property
    def name(self) -> str:
        return self.guard.name

    @property
    def fingerprint(self) -> str:
        return self.guard.fingerprint

    async def start(self) -> None:
        await self.guard.start()
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        await self.guard.close()

    def ready(self) -> str:
        if self._closed:
            return f"guard {self.name} is closed"
        if self.breaker.state(time.monotonic()) == "open":
            return f"guard {self.name}: {self.breaker.row} failures in a row, waiting before the next try"
        return self.guard.ready()

    def warm(self, policies: PolicySet) -> None:
        warm(self.guard, policies)

    def forget(self, boundary: str) -> None:
        forget(self.guard, boundary)

    def known(self, case: Case) -> Verdict | None:
        if self._closed:
            return None
        if (verdict := self.guard.known(case)) is not None:
            return verdict
        if self.memory.entries and case.whole:
            return self.memory.get(self.memory.key(case, self.fingerprint))
        return None

    async def judge(self, case: Case) -> Verdict:
        if self._closed:
            raise GuardDown("guard_closed", f"guard {self.name} was closed")
        came, began = time.monotonic(), 0.0
        size = sum(len(text) for _, text in case.trial())
        slow = size > SHORT
        if wait := self.breaker.admit(came, slow):
            raise GuardDown("guard_breaker_open", f"guard {self.name} failed {self.breaker.row} times in a row",
                            retry_after=round(wait, 1))
        deadline = self.deadline + self.patience * size / 1000
        limit = asyncio.timeout(deadline)
        try:
            async with limit:
                await self.queue.enter(case.tenant)
                began, took = time.monotonic(), None
                try:
                    verdict = checked(await self._ask(case, came + deadline), case)
                    took = time.monotonic() - began
                finally:
                    self.queue.leave(case.tenant, took)
        except TimeoutError:
            now = time.monotonic()
            asked = now - began if began else 0.0
            if limit.expired() and asked < min(self.queue.pace, deadline / 2):
                self.breaker.dropped(slow)
                raise GuardDown("guard_overloaded", f"a question for guard {self.name} spent its {deadline:.1f} s in"
                                " line", retry_after=round(self.queue.wait, 1)) from None
            if slow or began and self._heard > began:
                self.breaker.dropped(slow)
            else:
                self.breaker.failed(now, slow)
            raise GuardDown("guard_timeout", f"guard {self.name} took longer than {deadline:.1f} s") from None
        except GuardDown as e:
            if e.code in PROVOKED:
                self.breaker.dropped(slow)
            else:
                self.breaker.failed(time.monotonic(), slow)
            raise
        except asyncio.CancelledError:
            self.breaker.dropped(slow)
            raise
        except Exception as e:               # its words may repeat the text: only its kind is told
            self.breaker.failed(time.monotonic(), slow)
            raise GuardDown("guard_crashed", f"guard {self.name} raised {type(e).__name__}") from None
        self.breaker.succeeded()
        self._heard = time.monotonic()
        if self.memory.entries and case.whole:
            self.memory.put(self.memory.key(case, self.fingerprint), verdict)
        return verdict

    async def _ask(self, case: Case, end: float) -> Verdict:
        try:
            return await self.guard.judge(case)
        except GuardDown as e:
            if e.code not in RETRIED or time.monotonic() + PAUSE >= end:
                raise
        await asyncio.sleep(PAUSE)
        return await self.guard.judge(case)


def checked(verdict: Verdict, case: Case) -> Verdict:
    """The verdict, if an honest guard could have given it. Raises `GuardDown("guard_bad_answer")`."""
    wrong = "" if 0.0 <= verdict.score <= 1.0 else "a score outside [0, 1]"
    places: dict[str, int] = {}
    if verdict.unsure or any(f.spans for f in verdict.findings):
        for channel, text in case.trial():   # messages without a place of their own share their role's
            places[channel] = max(len(text), places.get(channel, 0))
    for rule, score, spans in verdict.findings:
        if rule not in case.policies.owner:
            wrong = "a rule that was not asked about"
        elif not 0.0 <= score <= 1.0:        # also false for NaN
            wrong = "a score outside [0, 1]"
        elif any(not 0 <= s.start <= s.end <= places.get(s.channel, -1) for s in spans):
            wrong = "a span outside the text"
    if any(not 0 <= at <= places.get(channel, -1) for channel, at in verdict.unsure):
        wrong = "an unsure offset outside the text"
    if wrong:
        raise GuardDown("guard_bad_answer", f"guard {verdict.guard} answered with {wrong}")
    return verdict
