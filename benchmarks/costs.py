"""What grows with what: cost of an exchange against number of policies, length of policies, length of conversation.

Two costs of each: CPU of the whole firewall an exchange with a guard that costs nothing (the plumbing), and, with the
configured guard, milliseconds a request waits (the guard). Policies are switched by folder and SIGHUP, conversations
are dealt out fresh so that nothing is remembered.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.flood import Flood, flood
from benchmarks.load import Client
from benchmarks.rows import HERE, objects
from benchmarks.score import percentiles
from benchmarks.system import Firewall
from benchmarks.upstream import Upstream
from firewall.policy import load

COUNTS = (1, 4, 16, 64)
WORDS = (20, 80, 320, 1280)
TURNS = (1, 4, 16, 64)
TURN = "Could you tell me more about how the ferry timetable changes between the summer and the winter season here? "


def rules() -> list[str]:
    """Rule texts to make policies of: those of our crossed set."""
    return [o["policy"] for _, o in objects(HERE / "sets" / "crossed.rules.jsonl")]


def write(folder: Path, count: int, words: int = 0) -> str:
    """`count` policies of one rule (or one policy of about `words` words). Returns the set's digest.

    They flag instead of blocking: every exchange is then judged both ways, whatever the guard thinks of it.
    """
    for path in folder.glob("*.md"):
        path.unlink()
    texts = rules()
    for n in range(count):
        text = texts[n % len(texts)] if n < len(texts) else f"Rule {n}. {texts[n % len(texts)]}"
        if words:
            bullets, k = [], 0
            while sum(len(b.split()) for b in bullets) < words:
                bullets.append(f"- {texts[k % len(texts)]}")
                k += 1
            text = "\n".join(bullets)
        (folder / f"p{n:03d}.md").write_text(f"---\nid: p{n:03d}\naction: flag\n---\n{text}\n", "utf-8")
    return load(folder).digest


def conversation(turns: int, number: int) -> dict[str, Any]:
    """A conversation of so many turns; `number` makes it new."""
    messages = [{"role": "assistant" if k % 2 else "user", "content": f"{TURN}({number}-{k})"} for k in range(turns)]
    return {"model": "lab-whole-200", "messages": messages}


async def costs(guard: str, *, each: int = 24, plumbing: int = 600, core: int | None = None,
                progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """All three curves for `scripted` and for `guard`."""
    curves = {}
    for kind in dict.fromkeys(("scripted", guard)):
        curves[kind] = await _curves(kind, each if kind != "scripted" else plumbing, core, progress)
    return {"guard": guard, "curves": curves}


async def _curves(kind: str, each: int, core: int | None, progress: Callable[[str], None]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    curves: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-costs-") as name:
        folder = Path(name)
        write(folder, 1)
        async with Upstream() as upstream:
            start = loop.run_in_executor(None, lambda: Firewall(upstream.url, kind, folder, core=core))
            with await start as firewall:
                for n in COUNTS:
                    progress(f"{kind}: {n} policies")
                    await _taken(firewall, write(folder, n))
                    curves.setdefault("policies", []).append([n, *await _cost(firewall, kind, each, 1)])
                for n in WORDS:
                    progress(f"{kind}: policy of {n} words")
                    await _taken(firewall, write(folder, 1, n))
                    curves.setdefault("policy_words", []).append([n, *await _cost(firewall, kind, each, 1)])
                await _taken(firewall, write(folder, 12))
                for n in TURNS:
                    progress(f"{kind}: {n} turns")
                    curves.setdefault("turns", []).append([n, *await _cost(firewall, kind, each, n)])
    return curves


async def _taken(firewall: Firewall, digest: str) -> None:
    """Waits until the firewall serves that policy set."""
    os.kill(firewall.pid, signal.SIGHUP)
    client = Client(firewall.port)
    try:
        for n in range(400):
            answer = await client.post("/v1/chat/completions", conversation(1, -n))
            if answer.headers.get("x-firewall-policy-digest") == digest:
                return
            await asyncio.sleep(0.005)
    finally:
        client.close()
    raise RuntimeError("the firewall did not take up the policies")


async def _cost(firewall: Firewall, kind: str, each: int, turns: int) -> Sequence[float | None]:
    """[CPU us an exchange, p50 ms]. Raises `Broken` unless every exchange was answered."""
    if kind == "scripted":
        got = (await flood(firewall.port, "/v1/chat/completions", conversation(turns, 0), each, 4, firewall)).answered()
        return [round(got.each, 1), percentiles(got.ms)["p50"]]
    client, got, before = Client(firewall.port), Flood([], Counter(), 0.0, 0.0), firewall.cpu()
    for k in range(each):
        answer = await client.post("/v1/chat/completions", conversation(turns, k))
        got.ms.append(answer.ms)
        got.statuses[answer.status] += 1
    client.close()
    return [round((firewall.cpu() - before) / each * 1e6, 1), percentiles(got.answered().ms)["p50"]]
