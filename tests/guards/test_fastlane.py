"""The short way into vLLM: as ASGI by itself (fast), and inside a real vLLM beside its own front (marker vllm)."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from firewall.errors import GuardDown
from firewall.guards.endpoints import Endpoints
from firewall.guards.engine import Ask
from firewall.guards.fastlane import LARGEST, PATH, FastLane

from . import tiny
from .cases import asked
from .server import serving

ONE = Ask([1, 2, 3], 1, watch=(7, 8), salt="s" * 43)


async def call(parts: list[bytes], path: str = PATH, method: str = "POST", leave: bool = False) -> list[dict[str, Any]]:
    """What a caller that sends `parts` gets; `leave`: it hangs up instead of finishing."""
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": p, "more_body": leave or i < len(parts) - 1}
                for i, p in enumerate(parts)] + ([{"type": "http.disconnect"}] if leave else [])

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        return await asyncio.Event().wait()             # type: ignore[return-value]

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "vllm's own"})
    state = SimpleNamespace(engine_client=SimpleNamespace(model_config=SimpleNamespace(max_model_len=4)))
    await FastLane(app)({"type": "http", "path": path, "method": method, "app": SimpleNamespace(state=state)},
                        receive, send)
    return sent


@pytest.mark.parametrize(("path", "method"), [("/v1/completions", "POST"), (PATH, "GET"), (PATH + "/", "POST")])
async def test_everything_else_is_vllms_own(path: str, method: str) -> None:
    assert await call([b"{}"], path, method) == [{"type": "vllm's own"}]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"prompt": "text", "watch": [1]}',
                                  b'{"prompt": [], "watch": [1], "salt": "", "priority": 0}',
                                  b'{"prompt": [1], "watch": [1], "salt": "", "priority": "high"}'])
async def test_what_is_no_question_is_refused_and_not_repeated(body: bytes) -> None:
    start, end = await call([body])
    assert start["status"] == 400 and json.loads(end["body"]) == {"error": {"message": "not a question"}}


async def test_a_question_in_pieces_and_one_without_end() -> None:
    start, _ = await call([b'{"prompt": "te', b'xt", "watch": [1]}'])
    assert start["status"] == 400
    start, _ = await call([b"x" * (LARGEST // 2 + 1)] * 2)
    assert start["status"] == 400


async def test_a_caller_that_leaves_before_the_end_gets_no_answer() -> None:
    assert await call([b'{"prompt"'], leave=True) == []


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is here")
async def test_another_vllm_is_asked_the_usual_way() -> None:
    start, _ = await call([b'{"prompt": [1], "watch": [1], "salt": "", "priority": 0}'])
    assert start["status"] == 501


async def test_a_server_without_it_is_asked_once() -> None:
    paths: list[str] = []

    async def server(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "m", "max_model_len": 64}]})
        paths.append(request.path)
        if request.path == PATH:
            return web.json_response({"detail": "Not Found"}, status=404)
        return web.json_response({"choices": [{"text": "a", "logprobs": {"top_logprobs": [{"token_id:7": -0.5}]}}]})
    async with serving(server) as url:
        engine = Endpoints([url], lane=True)
        await engine.start()
        for _ in range(2):
            assert (await engine.complete(ONE)).first == {7: -0.5}
        await engine.close()
    assert paths == [PATH, "/v1/completions", "/v1/completions"]


@pytest.mark.parametrize(("status", "said", "code"), [
    (200, {"first": {"7": -1}, "prompt": 3, "cached": "x"}, "guard_bad_answer"),
    (200, {"first": [], "prompt": 3, "cached": 0}, "guard_bad_answer"), (200, None, "guard_bad_answer"),
    (400, {"error": {"message": "the prompt fills the context length"}}, "guard_too_long"),
    (503, {"error": {"message": "QueueOverflowError"}}, "guard_overloaded"), (500, {}, "guard_error")])
async def test_bad_answers_fail(status: int, said: Any, code: str) -> None:
    async def server(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "m", "max_model_len": 64}]})
        return web.json_response(said, status=status)
    async with serving(server) as url:
        engine = Endpoints([url], lane=True)
        await engine.start()
        with pytest.raises(GuardDown) as failure:
            await engine.complete(ONE)
        await engine.close()
    assert failure.value.code == code


@pytest.fixture(scope="module")
async def guard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    pytest.importorskip("vllm")
    from firewall.guards.vllm import VllmGuard

    model: Path = tiny.checkpoint(tmp_path_factory.mktemp("models") / "nano", context=1024)
    guard = VllmGuard(model, engine=["--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "1",
                                     "--block-size", "32", "--distributed-executor-backend", "uni"])
    await guard.start()
    yield guard
    await guard.close()


@pytest.mark.vllm
@pytest.mark.timeout(900)
@pytest.mark.asyncio(loop_scope="module")
class TestReal:
    async def test_it_says_what_vllms_front_says(self, guard: Any) -> None:
        verdict = await guard.judge(asked("hello there"))
        engine = guard.inner.engine
        assert engine.lane and verdict.score is not None
        ask = Ask(list(range(5, 105)), 1, watch=(7, 8), salt="a" * 43)
        short, again = await engine.complete(ask), await engine.complete(ask)
        engine.lane = False
        usual = await engine.complete(ask)
        engine.lane = True
        assert short.first == pytest.approx(usual.first, abs=1e-3) and set(short.first) == {7, 8}
        assert short.prompt == usual.prompt == 100 and again.cached == usual.cached == 96

    async def test_tenants_share_no_cache(self, guard: Any) -> None:
        engine, prompt = guard.inner.engine, list(range(205, 305))
        first = await engine.complete(Ask(prompt, 1, watch=(7, 8), salt="b" * 43))
        other = await engine.complete(Ask(prompt, 1, watch=(7, 8), salt="c" * 43))
        assert first.cached == other.cached == 0

    async def test_the_context_to_the_token(self, guard: Any) -> None:
        engine = guard.inner.engine
        assert (await engine.complete(Ask([9] * 1023, 1, watch=(7, 8)))).prompt == 1023
        for more in (1024, 1025):
            with pytest.raises(GuardDown) as failure:
                await engine.complete(Ask([9] * more, 1, watch=(7, 8)))
            assert failure.value.code == "guard_too_long"

    async def test_hanging_up_frees_the_engine(self, guard: Any) -> None:
        engine = guard.inner.engine
        many = [asyncio.ensure_future(engine.complete(Ask([11 + i] * 900, 1, watch=(7, 8)))) for i in range(40)]
        await asyncio.sleep(0.3)
        for one in many:
            one.cancel()
        await asyncio.gather(*many, return_exceptions=True)
        assert await asyncio.wait_for(running(guard), 20)
        assert (await engine.complete(ONE)).prompt == 3


async def running(guard: Any) -> bool:
    """Waits until vLLM runs nothing and nothing waits in its queue."""
    session = guard.inner.engine.endpoints[0].session
    while True:
        async with session.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        left = [x for x in lines if x.startswith(("vllm:num_requests_running", "vllm:num_requests_waiting"))]
        if left and all(float(x.rpartition(" ")[2]) == 0 for x in left):
            return True
        await asyncio.sleep(0.1)
