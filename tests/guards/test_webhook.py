from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from firewall.errors import GuardDown, Mistakes
from firewall.guards.compose import AllOf
from firewall.guards.limits import Limits
from firewall.guards.patterns import Patterns
from firewall.guards.webhook import WebhookGuard, question

from .cases import SET, asked, said
from .server import serving


class Service:
    """Answers with `reply` (an object, bytes or a status) and keeps what it was sent."""

    def __init__(self, reply: Any) -> None:
        self.reply, self.got, self.peers, self.gone = reply, [], set(), 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.got.append(await request.json())
        self.peers.add(request.transport.get_extra_info("peername"))
        if self.reply == "hang":
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.gone += 1
                raise
        if isinstance(self.reply, int):
            return web.Response(status=self.reply, headers={"Location": "http://127.0.0.1:1/", "Set-Cookie": "a=b"})
        body = self.reply if isinstance(self.reply, bytes) else json.dumps(self.reply).encode()
        return web.Response(body=body, headers={"Set-Cookie": "a=b"})


OK = {"score": 0.1, "violated": [], "reason": ""}


async def test_the_contract() -> None:
    service = Service({"score": 0.9, "violated": ["weapons/1"], "reason": "a bomb"})
    async with serving(service) as url:
        guard = WebhookGuard(url)
        await guard.start()
        verdict = await guard.judge(said("a bo", "mb", whole=False))
        assert (verdict.score, verdict.reason, verdict.guard) == (0.9, "a bomb", "webhook")
        assert [(f.rule, f.score) for f in verdict.findings] == [("weapons/1", 0.9)]
        service.reply = OK
        assert (await guard.judge(asked("hello"))).findings == ()
        assert len(service.peers) == 1                              # one connection, reused
        await guard.close()
    assert service.got[0] == {
        "direction": "output", "whole": False,
        "policies": [{"id": "fraud", "rules": ["fraud/1"]}, {"id": "weapons", "rules": ["weapons/1", "weapons/2"]}],
        "messages": [{"role": "user", "content": "hi"}],
        "answer": [{"channel": "a", "text": "a bo"}, {"channel": "a", "text": "mb"}]}


BAD = [
    b"", b"safe", b"[]", b"{}", {"verdict": "allow"}, {"score": 1.5, "violated": []}, {"score": "0", "violated": []},
    {"score": True, "violated": []}, {"score": 0, "violated": "none"}, {"score": 0, "violated": [1]},
    {"score": 0.9, "violated": ["other/1"]}, {"score": 0, "violated": None}, {"score": 0, "violated": [], "reason": 3},
    b'{"score": 0.9, "violated": ["weapons/1"], "score": 0.1}', b'[' * 900 + b']' * 900,
    b'{"score": NaN, "violated": []}', b"x" * 2_000_000, 307, 404, 201,
]


@pytest.mark.parametrize(("reply", "code"), [*((r, "guard_bad_answer") for r in BAD), (429, "guard_error"),
                                             (500, "guard_error")])
async def test_anything_else_is_a_failure(reply: Any, code: str) -> None:
    service = Service(reply)
    async with serving(service) as url:
        guard = WebhookGuard(url)
        with pytest.raises(GuardDown) as e:
            await guard.judge(asked("x"))
        assert e.value.code == code and len(service.got) == 1
        await guard.close()


async def test_nobody_there_and_nobody_answers() -> None:
    guard = WebhookGuard("http://127.0.0.1:9")
    with pytest.raises(GuardDown) as e:
        await guard.judge(asked("x"))
    assert e.value.code == "guard_unreachable"
    await guard.close()
    service = Service("hang")
    async with serving(service) as url:
        guard = WebhookGuard(url, deadline=0.1)
        with pytest.raises(GuardDown) as e:
            await guard.judge(asked("x"))
        assert e.value.code == "guard_timeout"
        await guard.close()


async def test_leaving_early_reaches_the_service() -> None:
    service = Service("hang")
    async with serving(service) as url:
        guard = WebhookGuard(url)
        task = asyncio.create_task(guard.judge(asked("x")))
        while not service.got:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(100):
            await asyncio.sleep(0.01)
            if service.gone:
                break
        assert service.gone == 1
        await guard.close()


@pytest.mark.parametrize("status", [429, 500])
async def test_limits_try_a_busy_service_once_more(status: int) -> None:
    service = Service(status)
    async with serving(service) as url:
        guard = Limits(WebhookGuard(url))
        with pytest.raises(GuardDown):
            await guard.judge(asked("x"))
        assert len(service.got) == 2
        await guard.close()


def test_half_surrogates_are_replaced() -> None:
    assert json.loads(question(asked("a\ud800b")))["messages"][0]["content"] == "a\ufffdb"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/hush/judge?key=hush", "http://user:hush@127.0.0.1:9/judge",
                                 "http://hush@127.0.0.1:9/?a=b@hush#hush"])
async def test_credentials_in_the_address_are_shown_nowhere(url: str) -> None:
    guard = Limits(WebhookGuard(url))
    with pytest.raises(GuardDown) as e:
        await guard.judge(asked("x"))
    await guard.close()
    for shown in (guard.fingerprint, guard.name, guard.ready(), e.value.detail, str(e.value), e.value.public):
        assert "hush" not in shown and "user" not in shown
    assert e.value.detail == "webhook: ClientConnectorError at http://127.0.0.1:9"


def test_the_fingerprint_names_the_service() -> None:
    names = [WebhookGuard(url).fingerprint for url in ("http://a/judge", "http://b/judge", "http://a/other",
                                                       "http://a/judge?set=2")]
    assert len(set(names)) == 4 and all(n.startswith("webhook-") for n in names)
    assert WebhookGuard("http://a/judge").fingerprint == WebhookGuard("http://u:p@a/judge").fingerprint == names[0]


async def test_a_service_that_learned_a_rule_is_heard_at_once() -> None:
    service = Service(OK)
    async with serving(service) as url:
        guard = Limits(AllOf(Patterns(), WebhookGuard(url)))
        assert (await guard.judge(asked("x"))).findings == () and guard.known(asked("x")) is None
        service.reply = {"score": 0.9, "violated": ["fraud/1"]}
        assert (await guard.judge(asked("x"))).findings
        await guard.close()


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "http://", "http:///judge", "ftp://h/", "http://h/a b", "http://h:x/",
                                 "u:hush@h", "http://u:hush@h:x/?hush"])
def test_mistakes(url: str) -> None:
    with pytest.raises(Mistakes, match="needs an address") as e:
        WebhookGuard(url)
    assert "hush" not in str(e.value)
    assert len(SET.rule_ids) == 3
