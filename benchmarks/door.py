"""The front door: what a user gets. Each row becomes an exchange with the real firewall.

A row's turns are POSTed as a chat completion; for a response row the scripted upstream replays the assistant's turn
behind it. Rows are grouped by policy text; a group's policy is written into the firewall's folder and taken up by
SIGHUP; rows are asked once it is in force, and every answer's `x-firewall-policy-digest` must be that of the folder, else
the row is an error: no row is ever judged under another row's policy.

The score of a row is that of the exchange's record, on the judged side, and so is the decision where the answer was
streamed: its headers are sent before it is judged. `lanes` firewalls, one a core, share the work;
each has its own folder, so that one can take up a policy while another judges.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from benchmarks.judged import SIDE, Judged, groups, policies_of, shipped
from benchmarks.load import Broken, Client, told
from benchmarks.rows import BadRows, Row
from benchmarks.system import Firewall
from benchmarks.upstream import Upstream, chat, chat_stream, pieces
from firewall.policy import Mistakes, load

TRIES = 1000            # looks at the digest, 2 ms apart
CHUNK = 64              # rows a lane takes at once
PATIENCE = 2.0          # seconds for a record to follow its answer
DECISIONS = ("allow", "redact", "block", "flag")


class Lane:
    """One firewall with a policy folder of its own. Blocking to build; use in a thread."""

    def __init__(self, upstream: str, guard: str, texts: dict[str, str], **options: Any) -> None:
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-policies-")))
        try:
            self.digest = self.write(texts)
            self.firewall = self._stack.enter_context(Firewall(upstream, guard, self.folder, **options))
        except BaseException:
            self._stack.close()
            raise
        self.client = Client(self.firewall.port)
        self._stack.callback(self.client.close)

    def close(self) -> None:
        self._stack.close()

    def write(self, texts: dict[str, str]) -> str:
        """Replaces the folder's policies. Returns the digest that answers under them will carry. Raises `BadRows`."""
        for path in self.folder.glob("*.md"):
            if path.stem not in texts:
                path.unlink()
        for id, text in texts.items():
            (self.folder / f"{id}.md").write_text(text, "utf-8")
        try:
            return load(self.folder).digest
        except Mistakes as e:
            raise BadRows("a policy text of the set is no policy:\n" + "\n".join(e.lines[:5])) from None

    async def take(self, texts: dict[str, str]) -> None:
        """Puts other policies into force, and waits until they are. Raises `BadRows`.

        Asks with a request that is refused before any guard sees it: its answer names the policies in force, too.
        """
        digest = self.write(texts)
        if digest == self.digest:
            return
        os.kill(self.firewall.pid, signal.SIGHUP)
        for _ in range(TRIES):
            answer = await self.client.post("/v1/nowhere", b"{}")
            if answer.headers.get("x-firewall-policy-digest") == digest:
                self.digest = digest
                return
            await asyncio.sleep(0.002)
        raise BadRows("the firewall did not take up policies within two seconds")

    async def records(self, ids: set[str]) -> dict[str, dict[str, Any]]:
        """The records of these exchanges; each is written just after its answer."""
        found: dict[str, dict[str, Any]] = {}
        end = asyncio.get_running_loop().time() + PATIENCE
        while True:
            found |= {r["id"]: r for r in self.firewall.records() if r.get("event") == "exchange"}
            if found.keys() >= ids or asyncio.get_running_loop().time() > end:
                return found
            await asyncio.sleep(0.005)


class Door:
    """`async with Door(guard) as door: async for judged in door.judge(rows): ...`

    Args:
        stream: replay answers as streams instead of whole.
        concurrency: requests in flight in each lane.
        lanes: firewalls that share the rows.
    """

    way = "front door"

    def __init__(self, guard: str = "embedded", policies: Path | None = None, *, config: Path | None = None,
                 concurrency: int = 8, stream: bool = False, core: int | None = None, lanes: int = 1) -> None:
        self.guard, self.source, self.concurrency, self.stream = guard, policies, concurrency, stream
        self.config, self.core, self.count = config, core, max(1, lanes)
        self.lanes: list[Lane] = []
        self._stack = contextlib.AsyncExitStack()
        self._number = 0

    async def __aenter__(self) -> Door:
        self.configured = shipped(self.source)
        loop = asyncio.get_running_loop()
        try:
            self.upstream = await self._stack.enter_async_context(Upstream())
            for _ in range(self.count):
                lane = await loop.run_in_executor(None, lambda: Lane(
                    self.upstream.url, self.guard, self.configured, config=self.config, core=self.core))
                self._stack.callback(lane.close)
                self.lanes.append(lane)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def cpu(self) -> float:
        """CPU seconds of all firewalls so far."""
        return sum(lane.firewall.cpu() for lane in self.lanes)

    async def judge(self, rows: Sequence[Row]) -> AsyncIterator[Judged]:
        """Judged rows, in no particular order."""
        work = deque(groups(rows, CHUNK))
        ready: asyncio.Queue[list[Judged] | None] = asyncio.Queue()

        async def drive(lane: Lane) -> None:
            try:
                while work:
                    ready.put_nowait(await self._part(lane, work.popleft()))
            except BaseException:
                work.clear()
                raise
            finally:
                ready.put_nowait(None)
        drivers = [asyncio.create_task(drive(lane)) for lane in self.lanes]
        try:
            for _ in drivers:
                while (part := await ready.get()) is not None:
                    for judged in part:
                        yield judged
            await asyncio.gather(*drivers)
        finally:
            for driver in drivers:
                driver.cancel()

    async def _part(self, lane: Lane, rows: Sequence[Row]) -> list[Judged]:
        """Rows of one task and policy, in one lane."""
        try:
            await lane.take(policies_of(rows[0], self.configured))
        except BadRows as e:
            return [Judged(row, "error", error=str(e).splitlines()[-1]) for row in rows]
        got: dict[str, Judged] = {}
        slots = asyncio.Semaphore(self.concurrency)

        async def one(row: Row) -> None:
            async with slots:
                id, judged = await self.ask(lane, row)
                got[id] = judged
        await asyncio.gather(*(one(row) for row in rows))
        records = await lane.records({id for id in got if id.startswith("req_")})
        return [recorded(judged, records.get(id), self._streamed(judged.row)) for id, judged in got.items()]

    def _streamed(self, row: Row) -> bool:
        return self.stream and row.task == "response"

    async def ask(self, lane: Lane, row: Row) -> tuple[str, Judged]:
        """(exchange id, judged) of one row under the lane's policies."""
        self._number += 1
        model = f"row-{self._number}"
        if row.task == "response":
            self.upstream.scripts[model] = chat_stream(pieces(row.answer)) if self._streamed(row) else chat(row.answer)
        body = orjson.dumps({"model": model, "messages": list(map(turn, row.asked)),
                             **({"stream": True} if self._streamed(row) else {})})
        try:
            answer = await lane.client.post("/v1/chat/completions", body)
        except (Broken, OSError) as e:
            return f"{model}-lost", Judged(row, "error", error=type(e).__name__)
        finally:
            self.upstream.scripts.pop(model, None)
        _, ending, decision = told(answer)
        if ending == "content_filter":
            decision = "block"
        id = answer.headers.get("x-request-id", model)
        if answer.headers.get("x-firewall-policy-digest", lane.digest) != lane.digest:
            return id, Judged(row, "error", ms=answer.ms, error="other_policies")
        if decision not in DECISIONS:
            return id, Judged(row, "error", ms=answer.ms, error=ending)
        rules = tuple(filter(None, answer.headers.get("x-firewall-policy", "").replace(" ", "").split(",")))
        return id, Judged(row, decision, ms=answer.ms, rules=rules)


def recorded(judged: Judged, record: dict[str, Any] | None, streamed: bool = False) -> Judged:
    """Adds what the record says: the judged side's score, the guard's milliseconds, tokens and questions.

    A stream's headers left before its answer was judged to the end, so its decision and rules are the record's: a late
    flag, a late cut. Without a record nobody knows.
    """
    if record is None:
        return replace(judged, decision="error", error=judged.error or "no_record") if streamed else judged
    if streamed and not judged.error:
        known = record["decision"] in DECISIONS
        judged = replace(judged, decision=record["decision"] if known else "error", rules=tuple(record.get("rules") or ()),
                         error="" if known else str(record.get("code") or record["decision"]))
    return replace(judged, score=record.get(f"{SIDE[judged.row.task]}_score"),
                   rules=judged.rules or tuple(record.get("rules") or ()), guard_ms=record.get("guard_ms") or 0.0,
                   tokens=record.get("guard_tokens") or 0, asks=record.get("asks") or 0)


def turn(message: tuple[str, str]) -> dict[str, Any]:
    """A turn as OpenAI chat takes it."""
    role, content = message
    return {"role": role, "content": content} | ({"tool_call_id": "call_lab"} if role == "tool" else {})
