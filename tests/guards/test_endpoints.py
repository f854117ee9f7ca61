"""OpenAI-compatible servers as engines, against a scripted one on a real socket."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from firewall.errors import GuardDown, Mistakes
from firewall.guards import endpoints
from firewall.guards.endpoints import SLACK, Endpoints, reply
from firewall.guards.engine import Ask
from firewall.guards.remote import RemoteGuard

from . import tiny
from .cases import asked
from .server import serving


class Server:
    """A completions server: safe unless the evidence says `bomb`."""

    def __init__(self, model: str = "m", **say: Any) -> None:
        self.model, self.say = model, say
        self.bodies: list[dict[str, Any]] = []
        self.gone = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": self.model, "max_model_len": 4096}]})
        body = await request.json()
        self.bodies.append(body)
        if "status" in self.say:
            return web.json_response({"message": self.say.get("words", "K")}, status=self.say["status"])
        if "raw" in self.say:
            return web.Response(body=self.say["raw"])
        try:
            await asyncio.sleep(self.say.get("delay", 0))
        except asyncio.CancelledError:
            self.gone += 1
            raise
        bad = isinstance(body["prompt"], str) and "bomb" in body["prompt"].partition("Evidence of")[2]
        tops = {" safe": math.log(0.1 if bad else 0.9), "uns": math.log(0.9 if bad else 0.1)}
        text = "weapons/1" if body["max_tokens"] > 1 else "safe"
        return web.json_response({
            "choices": [{"text": text, "finish_reason": "stop", "logprobs": {"top_logprobs": [tops]}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 90}}})


async def test_text_prompts_end_to_end() -> None:
    server = Server()
    async with serving(server) as url:
        guard = RemoteGuard([url + "/v1"])
        await guard.start()
        assert guard.ready() == ""
        bad, good = await guard.judge(asked("build a bomb")), await guard.judge(asked("cake"))
        await guard.close()
    assert [f.rule for f in bad.findings] == ["weapons/1"] and bad.score == pytest.approx(0.9)
    assert good.findings == () and (good.tokens, good.guard) == (11, "remote")
    snap, cite = server.bodies[:2]
    assert (snap["max_tokens"], snap["temperature"], snap["logprobs"], snap["model"]) == (1, 0, 20, "m")
    assert len(snap["cache_salt"]) == 43 and cite["stop"] == ["}"] and cite["structured_outputs"]["regex"]
    assert "priority" not in snap


async def test_a_plain_server_gets_plain_fields() -> None:
    server = Server()
    async with serving(server) as url:
        guard = RemoteGuard([url], extended=False)
        await guard.judge(asked("bomb"))
        await guard.close()
    known = {"model", "prompt", "max_tokens", "temperature", "n", "stream", "stop", "logprobs"}
    assert all(set(b) <= known for b in server.bodies) and server.bodies[0]["logprobs"] == 5


async def test_a_checkpoint_folder_means_token_ids(tmp_path: Path) -> None:
    folder = tiny.tokenizer(tmp_path / "m")
    (folder / "config.json").write_text("{}")
    with pytest.raises(Mistakes, match="firewall.json"):
        RemoteGuard(["http://127.0.0.1:1"], str(folder))
    (folder / "firewall.json").write_text(json.dumps({"fingerprint": "0" * 16}))
    with pytest.raises(Mistakes, match="train it again"):
        RemoteGuard(["http://127.0.0.1:1"], str(folder))
    server = Server()
    async with serving(server) as url:
        guard = RemoteGuard([url], str(folder), accept_other_fingerprint=True)
        await guard.judge(asked("hello"))
        await guard.close()
    [body] = server.bodies
    assert all(isinstance(t, int) for t in body["prompt"]) and len(body["logprob_token_ids"]) == 2


async def test_a_model_nobody_serves() -> None:
    async with serving(Server()) as url:
        guard = RemoteGuard([url], "other")
        with pytest.raises(Mistakes, match="serves m, not 'other'"):
            await guard.start()
        await guard.close()


@pytest.mark.parametrize(("say", "code"), [
    ({"status": 500}, "guard_error"), ({"status": 429}, "guard_error"), ({"status": 503}, "guard_overloaded"),
    ({"status": 400, "words": "maximum context length is 10"}, "guard_too_long"),
    ({"status": 400, "words": "max_tokens must be at least 1, got 0."}, "guard_too_long"),
    *((say, "guard_bad_answer") for say in (
        {"status": 400}, {"status": 302}, {"raw": b"hm"}, {"raw": b"{}"}, {"raw": b'{"choices":[]}'},
        {"raw": b'{"choices":[{"text":3}]}'}, {"raw": b"x" * 5_000_000})),
    ({"raw": b'{"choices":[{"text":"safe"}]}'}, "guard_unreadable"),
])
async def test_failures_are_named_and_say_nothing_of_the_text(say: dict[str, Any], code: str) -> None:
    server = Server(**say)
    async with serving(server) as url:
        guard = RemoteGuard([url])
        with pytest.raises(GuardDown) as e:
            await guard.judge(asked("K"))
        assert e.value.code == code and "K" not in e.value.detail
        await guard.close()


async def test_nobody_there() -> None:
    guard = RemoteGuard(["http://127.0.0.1:9"])
    await guard.start()
    assert "ClientConnectorError" in guard.ready()
    with pytest.raises(GuardDown) as e:
        await guard.judge(asked("x"))
    assert e.value.code == "guard_unreachable"
    await guard.close()


async def test_leaving_hangs_up() -> None:
    server = Server(delay=30)
    async with serving(server) as url:
        guard = RemoteGuard([url])
        task = asyncio.create_task(guard.judge(asked("x")))
        while not server.bodies:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(100):
            await asyncio.sleep(0.01)
            if server.gone:
                break
        assert server.gone == 1
        await guard.close()


async def test_least_loaded_with_affinity_and_failover() -> None:
    one, two = Server(), Server()
    async with serving(one) as a, serving(two) as b:
        engine = Endpoints([a, b, "http://127.0.0.1:9"])
        await engine.start()
        assert engine.ready() == ""                                 # one that answers is enough
        chosen = {engine.choose(f"exchange {i}").url for i in range(50)}
        assert chosen == {a, b}                                     # the dead one rests
        same = {engine.choose("exchange 7").url for _ in range(20)}
        assert len(same) == 1
        favourite = engine.choose("exchange 7")
        favourite.active = SLACK
        assert engine.choose("exchange 7") is not favourite
        favourite.active = 0
        await asyncio.gather(*(engine.complete(Ask("x", 1, affinity=str(i))) for i in range(20)))
        assert one.bodies and two.bodies
        await engine.close()


async def test_a_server_that_comes_up_later_is_found_without_a_question(monkeypatch: pytest.MonkeyPatch,
                                                                        tmp_path: Path) -> None:
    """A firewall that is not ready gets no traffic from its load balancer, so it has to look for itself."""
    monkeypatch.setattr(endpoints, "REST", 0.02)
    engine = Endpoints([f"unix:{tmp_path}/s"], "m")
    await engine.start()
    assert "Client" in engine.ready()

    async def until(word: str) -> None:
        async with asyncio.timeout(5):
            while word not in engine.ready() if word else engine.ready():
                await asyncio.sleep(0.01)
    for model, word in (("another", "serves another, not 'm'"), ("m", "")):
        runner = web.ServerRunner(web.Server(Server(model)))
        await runner.setup()
        await web.UnixSite(runner, str(tmp_path / "s")).start()
        await until(word)
        if word:
            with pytest.raises(GuardDown, match="serves another"):
                await engine.complete(Ask("x", 1))
        await runner.cleanup()
    await asyncio.sleep(0.05)
    assert engine._again is None
    await engine.close()
    await engine.start()            # down again, and closed: nobody goes on looking
    assert (task := engine._again) is not None
    await engine.close()
    await asyncio.sleep(0)
    assert task.cancelled()


async def test_a_unix_socket(tmp_path: Path) -> None:
    runner = web.ServerRunner(web.Server(Server()))
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    engine = Endpoints([f"unix:{tmp_path}/s"], priority=True)
    await engine.start()
    assert (await engine.complete(Ask("x", 1))).cached == 90 and engine.context == 4096
    await engine.close()
    await runner.cleanup()


def test_reply_reads_token_ids() -> None:
    said = {"choices": [{"text": "", "finish_reason": "length",
                         "logprobs": {"top_logprobs": [{"token_id:7": -0.5, "token_id:9": -1.0}]}}]}
    assert reply(said).first == {7: -0.5, 9: -1.0} and reply(said).cut


def test_a_blank_line_before_the_verdict_is_passed_over() -> None:
    raw = {"choices": [{"text": "\n\nunsafe", "logprobs": {
        "tokens": ["\n\n", "unsafe"], "top_logprobs": [{"\n\n": -0.01}, {"unsafe": -0.2, "safe": -1.7}]}}]}
    assert reply(raw).first == {"unsafe": -0.2, "safe": -1.7}
    chat = {"choices": [{"message": {"content": "\n\nsafe"}, "logprobs": {"content": [
        {"token": "\n\n", "top_logprobs": [{"token": "\n\n", "logprob": -0.01}]},
        {"token": "safe", "top_logprobs": [{"token": "safe", "logprob": -0.1}]}]}}]}
    assert reply(chat).first == {"safe": -0.1}
    assert reply({"choices": [{"text": "safe"}]}).first == {}


def test_addresses() -> None:
    for bad in ([], ["127.0.0.1:8000"], ["ftp://x"], ["http://a b"]):
        with pytest.raises(Mistakes):
            Endpoints(bad)


@pytest.mark.parametrize("url", ["http://svc:hunter2@127.0.0.1:9", "http://127.0.0.1:9/base?key=hunter2",
                                 "http://svc:hunter2@127.0.0.1:9/?key=hunter2", "http://127.0.0.1:9/?key=hunter2@hush"])
async def test_credentials_in_an_address_are_not_told(url: str) -> None:
    engine = Endpoints([url], deadline=1)
    await engine.start()
    assert "127.0.0.1:9" in engine.ready() and "hunter2" not in engine.ready()
    with pytest.raises(GuardDown) as failure:
        await engine.complete(Ask("x", 1))
    await engine.close()
    assert "hunter2" not in failure.value.detail and "svc" not in failure.value.detail


def test_an_address_that_is_none_is_told_without_its_credentials() -> None:
    with pytest.raises(Mistakes) as mistake:
        Endpoints(["htp://svc:hunter2@host"])
    assert "hunter2" not in str(mistake.value.lines)
