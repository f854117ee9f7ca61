"""What a reasoning guard costs over its engine: snap latency, throughput, streams against the naive loop.

    python -m benchmarks.guard_latency                     vLLM on CPU with a tiny model made here (a minute to start)
    python -m benchmarks.guard_latency --engine transformers
    python -m benchmarks.guard_latency --gpu               a 7B shape with dummy weights on a GPU machine

Every line says what it compares. `engine` is vLLM's own inference time (its /metrics), `raw` the same prompt posted
ready-made over the same socket and the same short way (guards/fastlane.py), `front` the same through vLLM's OpenAI
front, `guard` the whole `judge`: template, tokeniser, HTTP, reading, verdict. On a machine
that is busy with other things only `our CPU` says anything: the processor time that this process spends. The naive loop
is that of RSafe's public script: one generation a case, one after the other, nothing cached. Needs a checkout (the
tiny model's maker lives with the tests).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from firewall.case import Case, Message, Said
from firewall.guards.engine import Ask
from firewall.guards.fastlane import PATH
from firewall.guards.reasoner import Reasoner, Settings
from firewall.guards.transformers_guard import TransformersGuard
from firewall.guards.vllm import VllmGuard
from firewall.policy import PolicySet, parse
from firewall.template import render

WORDS = "the guard reads policies and the evidence then answers whether any rule is violated by the words on trial "
FRONT = "/v1/completions"
NEVER = {"snap": (1.0, -100.0), "reason": (1.0, -100.0)}      # scores near 0: one question, no citing
GPU = """A GPU run needs: one CUDA device with 24 GiB, `pip install '.[gpu]'` (vLLM 0.26 or newer), and a checkout.
It then is one command:  python -m benchmarks.guard_latency --gpu --json gpu.json
It measures a Qwen2.5-7B shape with dummy weights and 1,500-token policies: p50/p99 of snap, reason (128 think tokens)
and stream questions at 1, 16, 64 and 256 concurrent cases, with and without prefix caching, and the naive loop."""


def policies(tokens: int, count: Callable[[str], int]) -> PolicySet:
    """Policies whose text is about `tokens` long."""
    rules: list[str] = []
    while sum(count(r) for r in rules) + 12 * len(rules) < tokens:
        rules.append(f"Rule number {len(rules)} forbids what {WORDS * 2}.")
    return PolicySet.of([parse("## Violates\n" + "\n".join(f"- {r}" for r in rules), "bench", "bench.md")])


def question(active: PolicySet, text: str, boundary: str, whole: bool = False) -> Case:
    return Case("output", active, (Message("user", "tell me"),), (Said("a", text),), whole, "", boundary)


class Rig:
    """A guard and, for vLLM, the same server spoken to directly."""

    def __init__(self, guard: Any, inner: Reasoner, socket: Path | None) -> None:
        self.guard, self.inner, self.socket = guard, inner, socket
        self.http: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        await self.guard.start()
        if self.socket:
            connector = aiohttp.UnixConnector(str(self.socket), limit=0)
            self.http = aiohttp.ClientSession("http://engine", connector=connector)

    async def close(self) -> None:
        if self.http:
            await self.http.close()
        await self.guard.close()

    def body(self, case: Case, salt: str, way: str = PATH) -> bytes:
        tokens = self.inner.tokens
        assert tokens is not None
        prompt = self.inner.prompt(render(case, "snap"))
        ask = Ask(prompt, 1, watch=(tokens.first("safe"), tokens.first("unsafe")), salt=salt)
        made = self.inner.engine.short(ask) if way == PATH else self.inner.engine.body(ask)    # type: ignore[attr-defined]
        return orjson.dumps(made)

    async def raw(self, body: bytes, way: str = PATH) -> None:
        assert self.http is not None
        async with self.http.post(way, data=body, headers={"Content-Type": "application/json"}) as response:
            said = await response.read()
            assert response.status == 200, said[:200]

    async def engine_seconds(self) -> tuple[float, float]:
        """(seconds, requests) that vLLM has spent inferring so far, by its own account."""
        if self.http is None:
            return 0.0, 0.0
        async with self.http.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        found = {k: float(x.rpartition(" ")[2]) for x in lines for k in ("sum", "count")
                 if x.startswith(f"vllm:request_inference_time_seconds_{k}")}
        return found.get("sum", 0.0), found.get("count", 0.0)


async def timed(n: int, one: Callable[[int], Awaitable[Any]]) -> list[float]:
    out = []
    for i in range(n):
        began = time.perf_counter()
        await one(i)
        out.append((time.perf_counter() - began) * 1e3)
    return out


async def rate(n: int, width: int, one: Callable[[int], Awaitable[Any]]) -> tuple[float, list[float]]:
    """(calls a second, milliseconds of each) with `width` calls in flight."""
    left = iter(range(n))
    took: list[float] = []

    async def worker() -> None:
        for i in left:
            began = time.perf_counter()
            await one(i)
            took.append((time.perf_counter() - began) * 1e3)
    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(width)))
    return n / (time.perf_counter() - began), took


def summary(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"p50": round(statistics.median(ordered), 2), "p99": round(ordered[int(len(ordered) * 0.99)], 2),
            "mean": round(statistics.fmean(ordered), 2)}


async def snap(rig: Rig, active: PolicySet, calls: int, fresh: int) -> dict[str, Any]:
    """One question at a time: everything cached but `fresh` characters and the tail."""
    texts = [WORDS * 3 + f" {i:06d} " + (WORDS * 9)[:fresh] for i in range(3 * calls + 30)]
    await timed(5, lambda i: rig.guard.judge(question(active, texts[-1 - i], "b")))
    before = await rig.engine_seconds()
    verdicts: list[Any] = []

    async def ask(i: int) -> None:
        verdicts.append(await rig.guard.judge(question(active, texts[i], "b")))
    spent = time.process_time()
    guard = await timed(calls, ask)
    spent = time.process_time() - spent
    after = await rig.engine_seconds()
    out: dict[str, Any] = {"computed tokens": round(statistics.fmean(v.tokens for v in verdicts), 1),
                           "guard ms": summary(guard), "our CPU ms a call": round(spent / calls * 1e3, 2)}
    if rig.http:
        bodies = [rig.body(question(active, texts[calls + i], "b"), rig.inner.salt("")) for i in range(calls)]
        spent = time.process_time()
        raw = await timed(calls, lambda i: rig.raw(bodies[i]))
        out["raw client's CPU ms a call"] = round((time.process_time() - spent) / calls * 1e3, 2)
        engine = (after[0] - before[0]) / max(1.0, after[1] - before[1]) * 1e3
        bodies = [rig.body(question(active, texts[-20 - i], "b"), rig.inner.salt(""), FRONT) for i in range(calls // 2)]
        front = await timed(len(bodies), lambda i: rig.raw(bodies[i], FRONT))
        out |= {"raw ms": summary(raw), "front ms": summary(front), "engine ms (mean)": round(engine, 2),
                "guard over engine ms": round(statistics.fmean(guard) - engine, 2),
                "guard over raw ms (p50)": round(statistics.median(guard) - statistics.median(raw), 2)}
    return out


async def throughput(rig: Rig, active: PolicySet, calls: int, width: int) -> dict[str, Any]:
    def text(i: int, kind: str) -> str:
        return f"{kind} {i:06d} " + WORDS * 3
    def judged(kind: str) -> Callable[[int], Awaitable[Any]]:
        return lambda i: rig.guard.judge(question(active, text(i, kind), f"{kind}{i % width}"))
    await rate(width, width, judged("warm"))
    guard, took = await rate(calls, width, judged("guard"))
    out: dict[str, Any] = {"concurrent": width, "guard cases/s": round(guard, 1), "guard ms": summary(took)}
    if rig.http:
        bodies = [rig.body(question(active, text(i, "raw"), f"r{i % width}"), rig.inner.salt("")) for i in range(calls)]
        await rate(width, width, lambda i: rig.raw(bodies[i]))
        raw, _ = await rate(calls, width, lambda i: rig.raw(bodies[i]))
        out |= {"raw cases/s": round(raw, 1), "share of raw": round(guard / raw, 3)}
    return out


async def streams(rig: Rig, active: PolicySet, count: int, steps: int = 20, step: int = 200) -> dict[str, Any]:
    """`count` answers that grow by `step` characters: asked as a stream (cached, together), and by the naive loop."""
    def grown(i: int, k: int) -> Case:
        return question(active, (f"stream {i} " + WORDS * 40)[:k * step], f"s{i}")

    async def stream(i: int) -> None:
        for k in range(1, steps + 1):
            await rig.guard.judge(grown(i, k))
    began = time.perf_counter()
    await asyncio.gather(*(stream(i) for i in range(count)))
    cached = count * steps / (time.perf_counter() - began)
    some = max(1, steps // 4)                       # the naive loop is slow: every fourth question of one stream
    began = time.perf_counter()
    for k in range(4, steps + 1, 4):                # a tenant of its own for each: nothing is cached
        await rig.guard.judge(grown(0, k)._replace(tenant=secrets.token_hex(8)))
    naive = some / (time.perf_counter() - began)
    return {"streams": count, "questions": count * steps, "questions/s": round(cached, 2),
            "naive loop questions/s": round(naive, 2), "ratio": round(cached / naive, 1)}


def checkpoint(folder: Path, shape: str, context: int) -> Path:
    from tests.guards import tiny
    if shape != "7b":
        return tiny.checkpoint(folder, shape, context)
    tiny.tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064,
        "max_position_embeddings": context, "rope_theta": 1e6, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "eos_token_id": 2, "pad_token_id": 0}))
    return folder


def rig_of(model: Path, kind: str, arguments: Sequence[str], settings: Settings) -> Rig:
    guard: Any
    if kind == "transformers":
        guard = inner = TransformersGuard(model, accept_other_fingerprint=True)
        socket = None
    else:
        guard = VllmGuard(model, engine=arguments, accept_other_fingerprint=True)
        inner, socket = guard.inner, guard.child.socket
    inner.settings = settings
    return Rig(guard, inner, socket)


async def cpu(shape: str, kind: str, calls: int, width: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fw") as name:
        model = checkpoint(Path(name) / "m", shape, 4096)
        rig = rig_of(model, kind, ["--enforce-eager", "--max-model-len", "4096", "--block-size", "32",
                                   "--distributed-executor-backend", "uni"], Settings(scale=NEVER))
        assert rig.inner.tokens is not None
        active = policies(620, lambda t: len(rig.inner.tokens.evidence(t)))         # type: ignore[union-attr]
        began = time.perf_counter()
        await rig.open()
        try:
            out: dict[str, Any] = {"engine": kind, "shape": shape, "start s": round(time.perf_counter() - began, 1)}
            prefix = rig.inner.prompt(render(question(active, "", "b"), "snap"))
            out["prefix tokens"] = len(prefix)
            out["snap"] = await snap(rig, active, calls, 120)
            out["throughput"] = await throughput(rig, active, 4 * calls, width)
            out["streams"] = await streams(rig, active, 4)
        finally:
            await rig.close()
        return out


async def gpu(calls: int, file: Path | None = None) -> dict[str, Any]:
    """Writes `file` after every part: a lent machine may go before the last one."""
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fw") as name:
        model = checkpoint(Path(name) / "m", "7b", 8192)
        for caching in (True, False):
            arguments = ["--load-format", "dummy", "--max-model-len", "8192", "--gpu-memory-utilization", "0.6",
                         "--max-num-seqs", "256", *([] if caching else ["--no-enable-prefix-caching"])]
            rig = rig_of(model, "vllm", arguments, Settings(scale=NEVER, think=128))
            assert rig.inner.tokens is not None
            active = policies(1500, lambda t, known=rig.inner.tokens: len(known.evidence(t)))   # type: ignore[misc]
            await rig.open()
            try:
                result: dict[str, Any] = out.setdefault("prefix caching" if caching else "no prefix caching", {})
                result["snap alone"] = await snap(rig, active, calls, 120)
                for depth in ("snap", "reason"):
                    rig.inner.settings = Settings(depth, 128, scale=NEVER)          # type: ignore[arg-type]
                    for width in (1, 16, 64, 256):
                        n = max(16, (4 if depth == "snap" else 2) * width)
                        result[f"{depth} x{width}"] = await throughput(rig, active, n, width)
                        keep(out, file)
                rig.inner.settings = Settings(scale=NEVER)
                for width in (1, 16, 64, 256):
                    result[f"streams x{width}"] = await streams(rig, active, width)
                    keep(out, file)
            finally:
                await rig.close()
    return out


def keep(figures: dict[str, Any], file: Path | None) -> None:
    if file:
        file.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard_latency", description=__doc__.split("\n")[0])
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="vllm")
    parser.add_argument("--shape", choices=("nano", "tiny", "q30m"), default="tiny", help="of the tiny model")
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--concurrent", type=int, default=16)
    parser.add_argument("--gpu", action="store_true", help="a 7B shape with dummy weights; says what it needs")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args(arguments)
    if given.gpu:
        try:
            import torch
            there = torch.cuda.is_available()
        except ImportError:
            there = False
        if not there:
            print("No CUDA device here.\n" + GPU, file=sys.stderr)
            return 3
        figures = asyncio.run(gpu(given.calls, given.json))
    else:
        figures = asyncio.run(cpu(given.shape, given.engine, given.calls, given.concurrent))
    print(json.dumps(figures, indent=2))
    keep(figures, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
