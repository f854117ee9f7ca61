"""Worker threads for model calls: one window a call, tenants in turn, cases in turn, bounded lines.

onnxruntime releases the GIL, so plain threads use the cores. A worker takes one window of the first case of the first
tenant. When it starts and again when it ends, that case goes behind the others of its tenant, and the tenant behind the
others: whoever came meanwhile is next. So a document of a thousand windows delays a short question by one window a
worker, and a thousand documents of another tenant delay it no more. What is bounded is how many cases of a tenant wait,
not how long they are: a long one turns nobody away.

Windows are never put into one batch. With dynamic int8 the scale of the activations is taken over the whole batch, so
a window's score would depend on its neighbours: on other people's text, and on whether the answer streamed.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from firewall.errors import GuardDown

Job = Callable[[], Any]


class _Work:
    """The windows of one case: which are still to start, and what the finished ones gave."""

    def __init__(self, jobs: Sequence[Job], tenant: str, loop: asyncio.AbstractEventLoop) -> None:
        self.jobs, self.tenant, self.loop = jobs, tenant, loop
        self.done: asyncio.Future[list[Any]] = loop.create_future()
        self.results: list[Any] = [None] * len(jobs)
        self.next, self.left = 0, len(jobs)
        self.dropped = False


class Pool:
    """`threads` workers; at most `room` cases of a tenant wait. `waiting` counts the windows of all."""

    def __init__(self, threads: int, room: int, name: str = "guard") -> None:
        self.threads, self.room, self.name = threads, room, name
        self.waiting = 0
        self._lines: OrderedDict[str, OrderedDict[_Work, None]] = OrderedDict()     # by tenant, none empty
        self._wake = threading.Condition()
        self._closed = False
        self._workers: list[threading.Thread] = []

    def start(self) -> None:
        self._closed = False
        self._workers = [threading.Thread(target=self._work, name=f"{self.name}-{i}", daemon=True)
                         for i in range(self.threads)]
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        """Ends the workers after their current window; waiting cases fail with `GuardDown`."""
        with self._wake:
            self._closed = True
            works, self.waiting = [work for line in self._lines.values() for work in line], 0
            self._lines.clear()
            self._wake.notify_all()
        for work in works:
            work.dropped = True
            self._tell(work, GuardDown("guard_closed", "the embedded guard was closed"))
        for worker in self._workers:
            worker.join()
        self._workers = []

    async def run(self, jobs: Sequence[Job], tenant: str = "") -> list[Any]:
        """Results of all jobs of one case, in order. Cancelling it drops the jobs that did not start.

        Raises:
            GuardDown: `guard_overloaded` when too many cases of the tenant wait already; `guard_closed`.
        """
        if not jobs:
            return []
        work = _Work(jobs, tenant, asyncio.get_running_loop())
        with self._wake:
            if self._closed or not self._workers:
                raise GuardDown("guard_closed", "the embedded guard is not running")
            if len(self._lines.get(tenant, ())) >= self.room:
                raise GuardDown("guard_overloaded", f"queue full: {self.room} cases wait already")
            self.waiting += len(jobs)
            self._lines.setdefault(tenant, OrderedDict())[work] = None
            self._wake.notify(min(len(jobs), self.threads))
        try:
            return await work.done
        finally:
            if work.left and not work.dropped:
                self._drop(work)

    def _drop(self, work: _Work) -> None:
        with self._wake:
            if not work.dropped:
                work.dropped = True
                if work in self._lines.get(work.tenant, ()):
                    self._leave(work)
                    self.waiting -= len(work.jobs) - work.next

    def _leave(self, work: _Work) -> None:
        """Nothing of this case waits any more."""
        line = self._lines[work.tenant]
        del line[work]
        if not line:
            del self._lines[work.tenant]

    def _turn(self, work: _Work) -> None:
        """The case goes behind the others of its tenant, and the tenant behind the others."""
        if (line := self._lines.get(work.tenant)) is not None:
            self._lines.move_to_end(work.tenant)
            if work in line:
                line.move_to_end(work)

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._lines and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                work = next(iter(next(iter(self._lines.values()))))
                at = work.next
                work.next += 1
                self.waiting -= 1
                if work.next < len(work.jobs):
                    self._turn(work)
                else:
                    self._leave(work)
            try:
                work.results[at] = work.jobs[at]()
            except BaseException as e:      # any failure of a model call is the guard's, never a pass
                self._drop(work)
                self._tell(work, GuardDown("guard_crashed", f"the embedded guard raised {type(e).__name__}"))
                continue
            with self._wake:
                self._turn(work)
                work.left -= 1
                last = work.left == 0
            if last:
                self._tell(work, None)

    @staticmethod
    def _tell(work: _Work, error: GuardDown | None) -> None:
        def settle() -> None:
            if not work.done.done():
                if error is None:
                    work.done.set_result(work.results)
                else:
                    work.done.set_exception(error)
        try:
            work.loop.call_soon_threadsafe(settle)
        except RuntimeError:                # the loop is closed: nobody is waiting
            pass
