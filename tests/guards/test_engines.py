"""The same conformance tests against every engine: transformers in this process (marker ml), vLLM (marker vllm).

Random weights: nothing is said about quality, everything about prompts, caches, limits and cancelling.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from firewall.errors import GuardDown, Mistakes
from firewall.guards.engine import Ask, Engine
from firewall.guards.limits import checked
from firewall.guards.reasoner import Reasoner, Settings
from firewall.template import Segment

from . import tiny
from .cases import SET, asked, said

CONTEXT = 4096


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return tiny.checkpoint(tmp_path_factory.mktemp("models") / "nano", context=CONTEXT)


@pytest.fixture(scope="module", params=[pytest.param("transformers", marks=pytest.mark.ml),
                                        pytest.param("vllm", marks=pytest.mark.vllm)])
async def reasoner(request: pytest.FixtureRequest, model: Path) -> AsyncIterator[Reasoner]:
    guard: Any
    if request.param == "transformers":
        from firewall.guards.transformers_guard import TransformersGuard
        guard = TransformersGuard(model)
        inner = guard
    else:
        if importlib.util.find_spec("vllm") is None:
            pytest.skip("no vLLM here")
        from firewall.guards.vllm import VllmGuard
        guard = VllmGuard(model, engine=["--enforce-eager", "--max-model-len", str(CONTEXT), "--max-num-seqs", "32",
                                         "--max-logprobs", "20", "--block-size", "32",
                                         "--distributed-executor-backend", "uni"])
        inner = guard.inner
    await guard.start()
    assert guard.ready() == ""
    yield inner
    await guard.close()
    with pytest.raises(GuardDown):
        await guard.judge(asked("x"))


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


def again(reasoner: Reasoner, **settings: Any) -> Reasoner:
    return Reasoner(reasoner.name, reasoner.engine, reasoner.tokens, Settings(**settings))


async def test_snap(reasoner: Reasoner) -> None:
    case = asked("hello there")
    one, two = await reasoner.judge(case), await reasoner.judge(case)
    assert 0 < one.score < 1 and one.score == pytest.approx(two.score, abs=0.02) and one.depth == "snap"
    assert two.tokens <= one.tokens
    checked(one, case)


@pytest.mark.parametrize("depth", ["reason", "deliberate"])
async def test_thinking_ends_in_a_verdict_or_a_failure(reasoner: Reasoner, depth: Any) -> None:
    guard = again(reasoner, depth=depth, think=12)
    try:
        verdict = await guard.judge(asked("hello there"))
    except GuardDown as e:
        assert e.code == "guard_unreadable"         # random weights may think nothing at all
    else:
        assert verdict.depth == depth and verdict.reason
        assert {f.rule for f in verdict.findings} <= set(SET.rule_ids)


async def test_cited_rules_are_known_ones(reasoner: Reasoner) -> None:
    verdict = await again(reasoner, scale={"snap": (1.0, 100.0)}).judge(asked("hello"))     # always unsafe
    assert verdict.findings and {f.rule for f in verdict.findings} <= set(SET.rule_ids)


async def test_a_growing_answer_computes_only_what_is_new(reasoner: Reasoner) -> None:
    guard = again(reasoner, scale={"snap": (1.0, -100.0)})                                  # one token a question
    text = "The quick brown fox jumps over the lazy dog. " * 90
    await guard.judge(said(text[:3600]))
    more = await guard.judge(said(text[:4000]))
    assert guard.tokens is not None
    new = len(guard.tokens.evidence(text[3600:4000]))
    tail = 60
    block = 160                                     # a server caches whole blocks
    assert 0 < more.tokens <= new + tail + block


async def test_tenants_do_not_share_a_cache(reasoner: Reasoner) -> None:
    guard = again(reasoner, scale={"snap": (1.0, -100.0)})
    text = "A text that only this test asks about. " * 40
    first = await guard.judge(said(text, tenant="a"))
    other = await guard.judge(said(text, tenant="b"))
    own = await guard.judge(said(text, tenant="a"))
    assert other.tokens == first.tokens and own.tokens < first.tokens / 2


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_the_context_limit(reasoner: Reasoner, over: int) -> None:
    """-1 and 0 tokens from the limit: one question. One more: windows. The engine itself never truncates."""
    engine: Engine = reasoner.engine
    assert engine.context == CONTEXT
    prompt = [5 + i % 200 for i in range(CONTEXT - 1 + over)]
    ask = Ask(prompt, 1, watch=(reasoner.tokens.first("safe"), reasoner.tokens.first("unsafe")))  # type: ignore[union-attr]
    if over <= 0:
        assert (await engine.complete(ask)).prompt == len(prompt)
    else:
        with pytest.raises(GuardDown) as e:
            await engine.complete(ask)
        assert e.value.code == "guard_too_long"
    verdict = await reasoner.judge(asked("word " * (CONTEXT + over)))
    assert verdict.score > 0


async def test_the_score_is_that_of_a_plain_forward_pass(reasoner: Reasoner, model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from firewall.template import render
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokens = reasoner.tokens
    assert tokens is not None
    case = asked("some words to judge")
    with torch.inference_mode():
        logits = plain(torch.tensor([tokens.encode(render(case, "snap"))])).logits[0, -1]
    expected = torch.sigmoid(logits[tokens.first("unsafe")] - logits[tokens.first("safe")]).item()
    assert (await again(reasoner).judge(case)).score == pytest.approx(expected, abs=0.03)


async def test_leaving_frees_the_engine(reasoner: Reasoner) -> None:
    tokens = reasoner.tokens
    assert tokens is not None
    long = Ask(tokens.encode([Segment("tell me a story", False)]), 3000)
    began = time.perf_counter()
    task = asyncio.create_task(reasoner.engine.complete(long))
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await reasoner.judge(asked("next, please"))
    assert time.perf_counter() - began < 6


async def test_many_at_once(reasoner: Reasoner) -> None:
    got = await asyncio.gather(*(reasoner.judge(asked(f"case {i}", tenant=str(i % 3))) for i in range(16)))
    assert len(got) == 16 and all(0 < v.score < 1 for v in got)


@pytest.mark.ml
async def test_mistakes(tmp_path: Path, model: Path) -> None:
    from firewall.guards.transformers_guard import TransformersGuard
    with pytest.raises(Mistakes, match="no folder"):
        TransformersGuard(tmp_path / "none")
    other = tiny.checkpoint(tmp_path / "other", fingerprint="0" * 16)
    with pytest.raises(Mistakes, match="train it again"):
        TransformersGuard(other)
    (other / "model.safetensors").unlink()
    guard = TransformersGuard(other, accept_other_fingerprint=True)
    with pytest.raises(Mistakes, match="cannot be loaded"):
        await guard.start()
