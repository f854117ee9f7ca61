"""`WebhookGuard`: any HTTP service as the guard. The contract others build on (DESIGN.md, public contract).

We POST one JSON object and expect 200 with another; the reading is strict, and anything else is a guard failure:

    {"direction": "input"|"output", "whole": bool,
     "policies": [{"id": "weapons", "rules": ["weapons/1", ...]}, ...],
     "messages": [{"role", "content"}, ...], "answer": [{"channel", "text"}, ...]}
    {"score": 0..1, "violated": [rule ids], "reason": text}          # violated empty: no violation

`score` is the service's belief that the case violates. A rule that the service calls violated is found with at least
its policy's threshold, for the service has decided. Redirects are never followed (the case would go to another origin),
cookies are never kept, one pool of connections is reused, and leaving early closes the connection.

The service may learn new rules at any time without telling, so what it said is not remembered (`steady`). Its address
may hold credentials, also in path and query: messages show the origin only, and the fingerprint is a hash.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from firewall.case import Case
from firewall.errors import GuardDown, Mistakes
from firewall.guards.said import said
from firewall.verdict import Finding, Verdict

LARGEST = 1 << 20           # bytes of an answer that are read


class WebhookGuard:
    """Args:
        url: `http://` or `https://` address that cases are POSTed to.
        deadline: seconds for one call; `connect` seconds to reach the service.
        connections: open at the same time.
    """

    name = "webhook"
    steady = False

    def __init__(self, url: str, *, deadline: float = 3.0, connect: float = 1.0, connections: int = 64) -> None:
        try:
            where = urlsplit(url)
            if where.scheme not in ("http", "https") or not where.hostname or where.port == 0 or url.split() != [url]:
                raise ValueError
        except ValueError:                   # which part of it would be a password is not to be told
            raise Mistakes(["guard.kind: webhook needs an address, e.g. webhook:http://127.0.0.1:9000/judge"]) from None
        self.url, self.deadline, self.connect, self.connections = url, deadline, connect, connections
        where = where._replace(netloc=where.netloc.rpartition("@")[2])
        self.origin = f"{where.scheme}://{where.netloc}"
        self.fingerprint = "webhook-" + hashlib.sha256(where.geturl().encode("utf-8", "replace")).hexdigest()[:16]
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def start(self) -> None:
        self._closed = False
        self._open()

    async def close(self) -> None:
        self._closed = True
        if self._session:
            await self._session.close()
            self._session = None

    def ready(self) -> str:
        return "guard webhook is closed" if self._closed else ""

    def known(self, case: Case) -> Verdict | None:
        return None

    async def judge(self, case: Case) -> Verdict:
        began = time.perf_counter()
        if self._closed:
            raise GuardDown("guard_closed", "guard webhook was closed")
        try:
            async with self._open().post(self.url, data=question(case), allow_redirects=False) as response:
                if response.status != 200:
                    busy = response.status == 429 or response.status >= 500
                    raise GuardDown("guard_error" if busy else "guard_bad_answer", f"webhook: status {response.status}")
                body = await response.content.read(LARGEST + 1)
                while len(body) <= LARGEST and (more := await response.content.read(LARGEST + 1 - len(body))):
                    body += more
        except aiohttp.ClientConnectionError as e:
            raise GuardDown("guard_unreachable", f"webhook: {type(e).__name__} at {self.origin}") from None
        except TimeoutError:
            raise GuardDown("guard_timeout", f"webhook: no answer within {self.deadline:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise GuardDown("guard_bad_answer", f"webhook: {type(e).__name__}") from None
        score, violated, reason = answer(body, case)
        owner = case.policies.owner
        findings = tuple(Finding(rule, max(score, owner[rule].threshold)) for rule in violated)
        return Verdict(self.name, findings, max([score, *(f.score for f in findings)]),
                       ms=(time.perf_counter() - began) * 1e3, path=(self.name,), reason=reason)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.connections, ttl_dns_cache=60),
                cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=True,
                timeout=aiohttp.ClientTimeout(total=self.deadline, sock_connect=self.connect),
                headers={"Content-Type": "application/json", "Accept": "application/json",
                         "Accept-Encoding": "identity"})
        return self._session


def question(case: Case) -> bytes:
    """The case as the contract spells it; half surrogates become U+FFFD."""
    body = {
        "direction": case.direction, "whole": case.whole,
        "policies": [{"id": p.id, "rules": [r.id for r in p.rules]} for p in case.policies],
        "messages": [{"role": m.role, "content": m.text} for m in case.messages],
        "answer": [{"channel": s.channel, "text": s.text} for s in case.answer],
    }
    try:
        return orjson.dumps(body)
    except TypeError:                       # a half surrogate
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def answer(body: bytes, case: Case) -> tuple[float, list[str], str]:
    """(score, violated rules, reason). Raises `GuardDown("guard_bad_answer")` for anything else."""
    try:
        heard: Any = said(body) if len(body) <= LARGEST else None
    except ValueError:
        raise GuardDown("guard_bad_answer", "webhook: the answer is not JSON with every key once") from None
    if not isinstance(heard, dict):
        raise GuardDown("guard_bad_answer", "webhook: the answer is not one JSON object of at most 1 MiB")
    score, violated, reason = heard.get("score"), heard.get("violated"), heard.get("reason", "")
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise GuardDown("guard_bad_answer", "webhook: score is not a number in [0, 1]")
    if not isinstance(violated, list) or not isinstance(reason, str):
        raise GuardDown("guard_bad_answer", "webhook: violated must be a list and reason text")
    asked = set(case.policies.rule_ids)
    if any(not isinstance(rule, str) or rule not in asked for rule in violated):
        raise GuardDown("guard_bad_answer", "webhook: violated names a rule that was not asked about")
    return float(score), sorted(set(violated)), reason
