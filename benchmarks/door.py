"""Two ways from a row to a verdict, both as labelled results.

`Door` is what a user gets: the row's turns are POSTed to the real firewall as a chat completion; for a response row the
scripted upstream replays the assistant's turn behind it. Rows are grouped by policy text; a group's policy is written
into the firewall's folder and taken up by SIGHUP, and every answer's `x-firewall-policy-digest` must be that of the
folder, else the row is asked again: no row is ever judged under another row's policy.

`Direct` asks the guard alone, in a worker process (`python -m firewall.judge`): no HTTP. It gives scores, which no
public answer carries, and it is the quick way through sets with hundreds of policies. Tables say which way was taken.

Policies are put on the judged side only (`applies-to: input` for prompt rows, `output` for response rows), so that a
harmful question does not decide the label of its answer. They are otherwise left as written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.load import Broken, Client, told
from benchmarks.rows import BadRows, Row
from benchmarks.system import Firewall, NotStarted
from benchmarks.upstream import Upstream, chat, chat_stream, pieces
from firewall.config import Config
from firewall.policy import Mistakes, PolicySet, load
from firewall.policy import parse as parse_policy

SIDE = {"prompt": "input", "response": "output"}
Progress = Callable[[int], None]
TRIES = 400             # looks at the digest, 5 ms apart


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one row.

    Args:
        decision: allow, redact, block, flag, or error (no readable verdict).
        score: suspicion in [0, 1], where the way gives one.
        ms: of the whole exchange through the door, of the guard alone when direct.
        rules: rule ids that determined it.
    """

    row: Row
    decision: str
    score: float | None = None
    ms: float = 0.0
    rules: tuple[str, ...] = ()
    error: str = ""
    guard_ms: float = 0.0
    tokens: int = 0
    asks: int = 0

    @property
    def detected(self) -> bool:
        return self.decision in ("block", "redact", "flag")


def one_sided(text: str, id: str, side: str) -> str:
    """A policy's text with `applies-to` set to one side; prose without front matter gets one."""
    if not text.startswith("---\n"):
        return f"---\nid: {id}\napplies-to: {side}\n---\n{text}"
    head, _, body = text[4:].partition("\n---")
    lines = [line for line in head.split("\n") if not re.match(r"(applies-to|id):", line)]
    return "---\n" + "\n".join([f"id: {id}", f"applies-to: {side}", *lines]) + f"\n---{body}"


def shipped(folder: Path | None) -> dict[str, str]:
    """id -> text of every policy that is switched on in a folder (None: the shipped one)."""
    folder = folder or Config().policy_folder
    on = load(folder).owner
    return {p.stem: p.read_text("utf-8") for p in sorted(folder.glob("*.md")) if p.stem in on}


def policies_of(row: Row, configured: dict[str, str]) -> dict[str, str]:
    """id -> one-sided text of the policies a row is judged under."""
    side = SIDE[row.task]
    if row.policy is not None:
        return {"row": one_sided(row.policy, "row", side)}
    out = {}
    for id, text in configured.items():
        policy = parse_policy(text, id, id)
        if policy.applies_to in (side, "both"):
            out[id] = one_sided(text, id, side)
    return out


def groups(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of equal task and policy together, in order of first appearance."""
    found: dict[tuple[str, str | None], list[Row]] = {}
    for row in rows:
        found.setdefault((row.task, row.policy), []).append(row)
    return list(found.values())


class Door:
    """`async with Door(guard) as door: async for judged in door.judge(rows): ...`

    Args:
        stream: replay answers as streams instead of whole.
        concurrency: requests in flight.
    """

    way = "front door"

    def __init__(self, guard: str = "embedded", policies: Path | None = None, *, config: Path | None = None,
                 concurrency: int = 8, stream: bool = False, core: int | None = None) -> None:
        self.guard, self.source, self.concurrency, self.stream = guard, policies, concurrency, stream
        self.config, self.core = config, core
        self._stack = contextlib.AsyncExitStack()
        self._number = 0

    async def __aenter__(self) -> Door:
        self.configured = shipped(self.source)
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-policies-")))
        self.digest = self.write({id: text for id, text in self.configured.items()})
        self.upstream = await self._stack.enter_async_context(Upstream())
        start = asyncio.get_running_loop().run_in_executor(None, lambda: Firewall(
            self.upstream.url, self.guard, self.folder, config=self.config, core=self.core))
        try:
            self.firewall = self._stack.enter_context(await start)
        except NotStarted:
            await self._stack.aclose()
            raise
        self.client = Client(self.firewall.port)
        self._stack.callback(self.client.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

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

    async def judge(self, rows: Sequence[Row]) -> AsyncIterator[Judged]:
        """Judged rows, in no particular order."""
        for group in groups(rows):
            try:
                self.digest = self.write(policies_of(group[0], self.configured))
            except BadRows as e:
                for row in group:
                    yield Judged(row, "error", error=str(e).splitlines()[-1])
                continue
            os.kill(self.firewall.pid, signal.SIGHUP)
            got: dict[str, Judged] = {}
            slots = asyncio.Semaphore(self.concurrency)

            async def one(row: Row, got: dict[str, Judged] = got, slots: asyncio.Semaphore = slots) -> None:
                async with slots:
                    id, judged = await self.ask(row)
                    got[id] = judged

            await asyncio.gather(*(one(row) for row in group))
            for judged in await self._with_records(got):
                yield judged

    async def ask(self, row: Row) -> tuple[str, Judged]:
        """(exchange id, judged) of one row under the folder's policies."""
        self._number += 1
        model = f"row-{self._number}"
        if row.task == "response":
            self.upstream.scripts[model] = chat_stream(pieces(row.answer)) if self.stream else chat(row.answer)
        body = orjson.dumps({"model": model, "messages": list(map(turn, row.asked)),
                             **({"stream": True} if self.stream and row.task == "response" else {})})
        try:
            for _ in range(TRIES):
                answer = await self.client.post("/v1/chat/completions", body)
                if answer.headers.get("x-firewall-policy-digest", self.digest) == self.digest:
                    break
                await asyncio.sleep(0.005)
            else:
                raise BadRows("the firewall did not take up the policies of a row within two seconds")
        except (Broken, OSError) as e:
            return f"{model}-lost", Judged(row, "error", error=type(e).__name__)
        finally:
            self.upstream.scripts.pop(model, None)
        _, ending, decision = told(answer)
        if ending == "content_filter":
            decision = "block"
        if decision not in ("allow", "redact", "block", "flag"):
            return answer.headers.get("x-request-id", model), Judged(row, "error", ms=answer.ms, error=ending)
        rules = tuple(filter(None, answer.headers.get("x-firewall-policy", "").replace(" ", "").split(",")))
        return answer.headers.get("x-request-id", model), Judged(row, decision, ms=answer.ms, rules=rules)

    async def _with_records(self, got: dict[str, Judged]) -> list[Judged]:
        """Adds what the records say: the guard's milliseconds, tokens, questions, and its score where it is kept."""
        out = dict(got)
        records = self.firewall.records()
        for _ in range(20):         # a record is written just after its answer
            if {r["id"] for r in records} >= {id for id in got if id.startswith("req_")}:
                break
            await asyncio.sleep(0.005)
            records += self.firewall.records()
        for record in records:
            judged = out.get(record["id"])
            if judged is not None:
                out[record["id"]] = Judged(
                    judged.row, judged.decision, record.get("score"), judged.ms,
                    judged.rules or tuple(record.get("rules") or ()), judged.error, record.get("guard_ms") or 0.0,
                    record.get("guard_tokens") or 0, record.get("asks") or 0)
        return list(out.values())


def turn(message: tuple[str, str]) -> dict[str, Any]:
    """A turn as OpenAI chat takes it."""
    role, content = message
    return {"role": role, "content": content} | ({"tool_call_id": "call_lab"} if role == "tool" else {})


class Direct:
    """The guard alone, in a worker process. The same interface as `Door`."""

    way = "guard only"

    def __init__(self, guard: str = "embedded", policies: Path | None = None, *, config: Path | None = None,
                 concurrency: int = 8, core: int | None = None) -> None:
        self.concurrency, self.source = concurrency, policies
        pin = ["taskset", "-c", str(core)] if core is not None else []
        self.command = [*pin, sys.executable, "-m", "firewall.judge", "--guard", guard, "--concurrency",
                        str(concurrency), *(["--config", str(config)] if config else [])]

    async def __aenter__(self) -> Direct:
        self.configured = shipped(self.source)
        self.child = await asyncio.create_subprocess_exec(
            *self.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24)
        assert self.child.stdout is not None
        first = await self.child.stdout.readline()
        if not first:
            await self.child.wait()
            raise NotStarted("python -m firewall.judge did not start; its error stands above")
        self.ready: dict[str, Any] = orjson.loads(first)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.child.terminate()
        await self.child.wait()

    async def judge(self, rows: Sequence[Row]) -> AsyncIterator[Judged]:
        async for judged in self.ask([(row, policies_of(row, self.configured)) for row in rows]):
            yield judged

    async def ask(self, asked: Sequence[tuple[Row, dict[str, str]]]) -> AsyncIterator[Judged]:
        """(row, id -> policy text) pairs -> judged rows, in order of completion."""
        stdin, stdout = self.child.stdin, self.child.stdout
        assert stdin is not None and stdout is not None

        async def feed() -> None:
            for number, (row, policies) in enumerate(asked):
                stdin.write(orjson.dumps({
                    "id": number, "direction": SIDE[row.task], "answer": row.answer,
                    "messages": [{"role": r, "content": c} for r, c in row.asked],
                    "policies": [{"id": id, "text": text} for id, text in policies.items()]}) + b"\n")
                await stdin.drain()
        feeding = asyncio.create_task(feed())
        try:
            for _ in asked:
                line = await stdout.readline()
                if not line:
                    raise NotStarted("python -m firewall.judge ended early; its error stands above")
                got = orjson.loads(line)
                row = asked[got["id"]][0]
                if "error" in got:
                    yield Judged(row, "error", ms=got.get("ms", 0.0), error=got["error"])
                else:
                    yield Judged(row, got["decision"], got["score"], got["ms"], tuple(got["rules"]), "", got["ms"],
                                 got["tokens"], 1)
            await feeding
        finally:
            feeding.cancel()


async def collect(way: Door | Direct, rows: Sequence[Row], progress: Progress = lambda _: None) -> list[Judged]:
    """All rows judged, in file order."""
    place = {id(row): k for k, row in enumerate(rows)}
    out: list[Judged | None] = [None] * len(rows)
    async for judged in way.judge(rows):
        out[place[id(judged.row)]] = judged
        progress(1)
    return [judged if judged is not None else Judged(row, "error", error="no answer")
            for row, judged in zip(rows, out, strict=True)]


def digest(texts: dict[str, str]) -> str:
    """The digest of policies given as texts, as the firewall would compute it."""
    return PolicySet.of(parse_policy(text, id, id) for id, text in texts.items()).digest
