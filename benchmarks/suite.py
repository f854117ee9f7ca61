"""The runs behind the command line: each returns result objects (store.py) and shows its progress."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import control, costs, detect, overhead, streams, transparency
from benchmarks.door import Direct, Door
from benchmarks.flood import flood, whole
from benchmarks.meta import meta
from benchmarks.rows import HERE, Row, read
from benchmarks.score import percentiles
from benchmarks.system import Firewall
from benchmarks.upstream import Upstream

QUICK = HERE / "sets" / "quick.jsonl"


@dataclass(frozen=True, slots=True)
class Choice:
    """What is measured and how; the command line's options.

    Args:
        direct: ask the guard alone instead of going through the front door.
        scores: get scores by a second, guard-only pass where the front door gives none.
        core: pin the process under test to one core (None: free).
    """

    guard: str = "embedded"
    policies: Path | None = None
    config: Path | None = None
    direct: bool = False
    stream: bool = False
    scores: bool = True
    limit: int = 0
    seeds: int = 1
    concurrency: int = 8
    core: int | None = None

    def door(self) -> Door:
        return Door(self.guard, self.policies, config=self.config, concurrency=self.concurrency, stream=self.stream,
                    core=self.core)

    def alone(self) -> Direct:
        return Direct(self.guard, self.policies, config=self.config, concurrency=self.concurrency, core=self.core)


class Shown:
    """Progress bars on standard error; silent where that is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextlib.contextmanager
    def bar(self, what: str, total: int | None) -> Iterator[Callable[[Any], None]]:
        """A bar; the callback takes a count of steps, or words that say what is going on."""
        columns = (TextColumn("{task.description:<38}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   TimeRemainingColumn())
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(what, total=total)

            def step(value: Any) -> None:
                if isinstance(value, int):
                    progress.advance(task, value)
                else:
                    progress.update(task, description=f"{what}: {value}"[:38], advance=1)
            yield step


def stamped(kind: str, result: dict[str, Any], choice: Choice) -> dict[str, Any]:
    policies = choice.policies.name if choice.policies else "shipped"
    return {"kind": kind, **result, "meta": meta(choice.guard, policies=policies)}


async def sets(named: Sequence[tuple[str, list[Row]]], choice: Choice, shown: Shown) -> list[dict[str, Any]]:
    """Detection over sets. With several seeds (sampling, or a guard that draws), `by_seed` holds each run's figures."""
    out = []
    async with contextlib.AsyncExitStack() as stack:
        way: Door | Direct = await stack.enter_async_context(choice.alone() if choice.direct else choice.door())
        scorer: Direct | None = None
        for name, rows in named:
            runs = []
            for seed in range(max(1, choice.seeds)):
                total = min(choice.limit or len(rows), len(rows))
                if not choice.direct and choice.scores and scorer is None:
                    scorer = await stack.enter_async_context(choice.alone())
                with shown.bar(name if not seed else f"{name}, seed {seed}", total * (2 if scorer else 1)) as step:
                    result, judged = await detect.detect(way, name, rows, limit=choice.limit, seed=seed, scorer=scorer,
                                                         progress=step)
                runs.append(result)
            result = runs[0]
            if len(runs) > 1:
                result["by_seed"] = [{k: r[k] for k in ("seed", "F1", "recall", "FPR", "AUROC")} for r in runs]
            out.append(stamped("detect", result, choice))
    return out


async def crossed(named: Sequence[tuple[str, list[Row]]], choice: Choice, shown: Shown, limit: int = 600,
                  whole_cross: bool = True) -> list[dict[str, Any]]:
    """Crossed controls of each set, and the whole of our crossed rules x scenarios under the right policies."""
    out = []
    async with choice.alone() as way:
        for name, rows in named:
            count = len(control.pick([r for r in rows if r.policy is not None], limit))
            with shown.bar(f"{name}: controls", count * len(control.CONTROLS)) as step:
                found = await control.controls(way, name, rows, limit=limit, progress=step)
            if name == "crossed" and whole_cross:
                with shown.bar("crossed: all pairs", len(rows)) as step:
                    result, judged = await detect.detect(way, "crossed", rows, progress=step)
                found |= {"per_rule": control.per_rule(rows, judged),
                          "per_scenario": control.per_scenario(rows, judged)}
                out.append(stamped("detect", result, choice))
            out.append(stamped("controls", found, choice))
    return out


async def stream(choice: Choice, shown: Shown, *, path: Path | None = None, cadence: float = 0.05, concurrency: int = 4,
                 limit: int = 0) -> dict[str, Any]:
    """The streams set through the front door."""
    cases = streams.load(path) if path else streams.load()
    if limit and limit < len(cases):
        cases = [c for k in range(limit) for c in cases[k * len(cases) // limit:k * len(cases) // limit + 1]]
    async with choice.door() as door:
        with shown.bar("streams", len(cases)) as step:
            through, direct, plain = await streams.replay(door, cases, cadence=cadence, concurrency=concurrency,
                                                          progress=step)
    return stamped("streams", {"file": path.name.split(".")[0] if path else "streams", "concurrency": concurrency,
                               **streams.figures(through, direct, plain, cadence)}, choice)


async def transparent(folder: Path | None, choice: Choice, shown: Shown) -> dict[str, Any]:
    found = transparency.recordings(folder)
    with shown.bar("transparency", len(found)) as step:
        return stamped("transparency", await transparency.transparency(folder, progress=step), choice)


async def fast(choice: Choice, shown: Shown, names: Sequence[str], **options: Any) -> dict[str, Any]:
    with shown.bar("speed", None) as step:
        result = await overhead.speed(names, progress=step, **options)
    result["lag"] = await saturated(choice)
    return stamped("speed", result, choice)


async def saturated(choice: Choice, count: int = 150) -> dict[str, Any]:
    """Milliseconds to refuse an unknown path (no guard in it) while the configured guard is kept busy: loop lag."""
    import asyncio

    from benchmarks.load import Client
    loop = asyncio.get_running_loop()
    async with Upstream() as upstream:
        start = loop.run_in_executor(None, lambda: Firewall(upstream.url, choice.guard, config=choice.config))
        with await start as firewall:
            busy = asyncio.create_task(flood(firewall.port, "/v1/chat/completions", whole(), 10 ** 6, 12))
            client, waits = Client(firewall.port), []
            await asyncio.sleep(1.0)
            for _ in range(count):
                answer = await client.post("/v1/nowhere", b"{}")
                waits.append(answer.ms)
                await asyncio.sleep(0.01)
            busy.cancel()
            await asyncio.wait([busy])
            client.close()
    return percentiles(waits)


async def cost(choice: Choice, shown: Shown) -> dict[str, Any]:
    with shown.bar("costs", None) as step:
        return stamped("costs", await costs.costs(choice.guard, progress=step), choice)


async def capacity(choice: Choice, count: int = 3000) -> dict[str, Any]:
    return stamped("capacity", await overhead.capacity(count), choice)


async def quick(choice: Choice, shown: Shown) -> list[dict[str, Any]]:
    """Our shipped sets, offline, under three minutes on two cores."""
    out = await sets([("quick", read(QUICK))], choice, shown)
    out += await crossed([("crossed", control.crossed())], choice, shown, limit=160, whole_cross=False)
    out.append(await stream(choice, shown, cadence=0.025))
    out.append(await transparent(None, choice, shown))
    out.append(await capacity(choice, 2000))
    return out


async def everything(choice: Choice, shown: Shown, *, data: Path | None, fixtures: Path | None,
                     only: Sequence[str], names: Sequence[str]) -> AsyncIterator[list[dict[str, Any]]]:
    """The full run, part by part, so that each part is saved when it is done. `only` names parts."""
    parts: dict[str, Callable[[], Any]] = {
        "speed": lambda: fast(choice, shown, names),
        "capacity": lambda: capacity(choice),
        "costs": lambda: cost(choice, shown),
        "transparency": lambda: transparent(fixtures, choice, shown),
        "streams": lambda: stream(choice, shown),
        "policy": lambda: crossed([("crossed", control.crossed()), *_policy_sets(data)], choice, shown, limit=400),
        "detect": lambda: sets([("quick", read(QUICK)), *_sets(data)], choice, shown),
    }
    for name, part in parts.items():
        if not only or name in only:
            result = await part()
            yield result if isinstance(result, list) else [result]


def _sets(data: Path | None) -> list[tuple[str, list[Row]]]:
    return [detect.named(str(p)) for p in sorted(data.glob("*.jsonl*"))] if data else []


def _policy_sets(data: Path | None) -> list[tuple[str, list[Row]]]:
    """The sets of a folder whose rows carry more than one policy."""
    found = _sets(data)
    return [(name, rows) for name, rows in found if len({r.policy for r in rows if r.policy}) > 3]
