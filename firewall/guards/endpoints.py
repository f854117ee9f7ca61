"""OpenAI-compatible servers as one engine: least-loaded with prefix affinity, strict reading, abort by hanging up.

Affinity: questions with the same word (an exchange's boundary) prefer the same server by rendezvous hashing, because
its prefix cache holds their transcript; when that server has `SLACK` more questions in flight than the idlest one, the
idlest takes over. A server that refuses connections rests for a moment. Our own prompts go to /v1/completions, as token
ids, so that no server-side chat template stands between them and the model; dialects use /v1/chat/completions.

Against vLLM the extensions are used (`cache_salt`, `logprob_token_ids`, `structured_outputs`, `priority`); a plain
OpenAI-compatible server gets the plain fields only (`extended=False`) and text where it takes no ids. Our own engine
child has a short way for one-token questions (fastlane.py); a server that turns out not to have it is not asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from firewall.errors import GuardDown, Mistakes
from firewall.guards.compose import DEPTHS
from firewall.guards.engine import Ask, Reply
from firewall.guards.fastlane import PATH

SLACK = 4
TOO_LONG = ("context length", "max_model_len", "maximum model length", "too long", "longer than",
            "max_tokens must be at least 1")        # vLLM's words when the prompt fills the context to the last token
REST = 2.0              # seconds a server that refused is left alone, and between tries while none answers
LARGEST = 4 << 20       # bytes of an answer
ABSENT = (404, 405, 501)        # statuses of a server without the short way


@dataclass
class Endpoint:
    """One server. `url` is `http(s)://host:port[/v1]` or `unix:/path`."""

    url: str
    active: int = 0
    down_until: float = 0.0
    session: aiohttp.ClientSession | None = None
    shown: str = ""             # the address as logs may have it: without user, password and query

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://", "unix:")) or any(c.isspace() for c in self.url):
            raise Mistakes(["guard.kind: not an address; write remote:http://127.0.0.1:8000"])
        self.url = self.url.rstrip("/").removesuffix("/v1")
        parts = urlsplit(self.url)
        self.shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else self.url

    def open(self, deadline: float, key: str) -> aiohttp.ClientSession:
        if self.session is None or self.session.closed:
            unix = self.url.startswith("unix:")
            self.session = aiohttp.ClientSession(
                "http://engine" if unix else self.url + "/",
                connector=aiohttp.UnixConnector(self.url[5:], limit=0) if unix else aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(), trust_env=False,
                timeout=_within(deadline),
                headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}))
        return self.session


class Endpoints:
    """Args:
        urls: servers that all serve the same model.
        model: its name; "" takes the first that the servers list.
        context: tokens; 0 asks the servers (`max_model_len`).
        deadline: seconds for one completion.
        extended: the servers are vLLM.
        lane: they were started with fastlane.py.
    """

    def __init__(self, urls: Sequence[str], model: str = "", *, context: int = 0, deadline: float = 30.0,
                 extended: bool = True, priority: bool = False, lane: bool = False, key: str = "") -> None:
        if not urls:
            raise Mistakes(["guard.kind: remote needs an address, e.g. remote:http://127.0.0.1:8000"])
        self.endpoints = [Endpoint(u) for u in urls]
        self.model, self.context, self.deadline, self.extended = model, context, deadline, extended
        self._timeout = _within(deadline)
        self.priority, self.lane, self._key, self._problem = priority, lane, key, "not connected yet"
        self._again: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Asks every server for its models. One that answers is enough; a model nobody serves is a mistake. Where none
        answers they are asked until one does: who is not ready gets no traffic that could find out."""
        problems = [p for e in self.endpoints if (p := await self._meet(e))]
        self._problem = "; ".join(problems) if len(problems) == len(self.endpoints) else ""
        if self._problem and self._again is None:
            self._again = asyncio.create_task(self._retry())

    async def _retry(self) -> None:
        await asyncio.sleep(REST)
        while self._problem:
            try:
                await self.start()
            except Mistakes as e:
                self._problem = "; ".join(e.lines)
            await asyncio.sleep(REST)
        self._again = None

    async def close(self) -> None:
        if self._again:
            self._again.cancel()
            self._again = None
        for e in self.endpoints:
            if e.session:
                await e.session.close()
                e.session = None

    def ready(self) -> str:
        return self._problem and f"remote guard: {self._problem}"

    async def complete(self, ask: Ask) -> Reply:
        if self.lane and ask.limit == 1 and ask.watch and isinstance(ask.prompt, list):
            status, said = await self._ask(PATH[1:], ask.affinity, lambda: self.short(ask))
            if status == 200:
                return _snap(said)
            if status not in ABSENT:
                raise _refused(status, said)
            self.lane = False
        return reply(_good(await self._ask("v1/completions", ask.affinity, lambda: self.body(ask))))

    async def converse(self, messages: Sequence[tuple[str, str]], limit: int, extra: Mapping[str, Any],
                       affinity: str = "") -> Reply:
        """/v1/chat/completions, for guards whose prompt is their server's chat template (dialects/)."""
        def body() -> dict[str, Any]:
            return {"model": self.model, "messages": [{"role": r, "content": t} for r, t in messages],
                    "max_tokens": limit, "temperature": 0, "n": 1, "stream": False, **extra}
        return reply(_good(await self._ask("v1/chat/completions", affinity, body)))

    async def _ask(self, path: str, affinity: str, body: Callable[[], dict[str, Any]]) -> tuple[int, Any]:
        if self._problem:
            with contextlib.suppress(Mistakes):         # it serves another model now
                await self.start()
            if self._problem:
                raise GuardDown("guard_unreachable", self.ready())
        endpoint = self.choose(affinity)
        endpoint.active += 1
        try:
            return await self._call(endpoint, "POST", path, body())
        finally:
            endpoint.active -= 1

    async def warm(self, deadline: float) -> None:
        """One completion at every server, with time to spare: an engine's first answer compiles and allocates."""
        ask = Ask([1, 2, 3, 4], 1)
        for endpoint in self.endpoints:
            _good(await self._call(endpoint, "POST", "v1/completions", self.body(ask), deadline))

    def choose(self, affinity: str) -> Endpoint:
        now = time.monotonic()
        up = [e for e in self.endpoints if e.down_until <= now] or self.endpoints
        idlest = min(up, key=lambda e: e.active)
        likes = max(up, key=lambda e: hashlib.blake2b(f"{affinity}\0{e.url}".encode(), digest_size=8).digest())
        return likes if likes.active < idlest.active + SLACK else idlest

    def body(self, ask: Ask) -> dict[str, Any]:
        """Greedy, as in validation; never a sampling parameter from outside."""
        out: dict[str, Any] = {"model": self.model, "prompt": ask.prompt, "max_tokens": ask.limit, "temperature": 0,
                               "n": 1, "stream": False}
        if ask.stop:
            out["stop"] = list(ask.stop)
        if ask.limit == 1 or ask.odds:
            out["logprobs"] = 20 if self.extended else 5
        if self.extended:
            out |= {"cache_salt": ask.salt} if ask.salt else {}
            if ask.watch and ask.limit == 1:
                # the next token is masked to the two; their log-probabilities are those before the mask
                out |= {"logprob_token_ids": list(ask.watch), "allowed_token_ids": list(ask.watch), "logprobs": 1,
                        "return_tokens_as_token_ids": True}
            if ask.pattern:
                out["structured_outputs"] = {"regex": ask.pattern}
            if self.priority:
                out["priority"] = DEPTHS[ask.depth]
        return out

    def short(self, ask: Ask) -> dict[str, Any]:
        """A one-token question for the short way."""
        return {"prompt": ask.prompt, "watch": list(ask.watch), "salt": ask.salt, "priority": DEPTHS[ask.depth]}

    async def _meet(self, endpoint: Endpoint) -> str:
        try:
            status, said = await self._call(endpoint, "GET", "v1/models", None)
            served = {m["id"]: m for m in said["data"]} if status == 200 else {}
        except GuardDown as e:
            return e.detail
        except (KeyError, TypeError):
            served = {}
        if not served:
            return f"{endpoint.shown} does not list its models (status {status})"
        self.model = self.model or next(iter(served))
        if self.model not in served:
            names = ", ".join(sorted(map(str, served)))
            raise Mistakes([f"guard.model: {endpoint.shown} serves {names}, not {self.model!r}"])
        length = served[self.model].get("max_model_len")
        if isinstance(length, int) and length > 0:
            self.context = min(self.context or length, length)
        return ""

    async def _call(self, endpoint: Endpoint, method: str, path: str, body: dict[str, Any] | None,
                    deadline: float | None = None) -> tuple[int, Any]:
        """(status, decoded JSON). Leaving this closes the connection, which aborts the request in the engine."""
        try:
            async with endpoint.open(self.deadline, self._key).request(
                    method, path, data=None if body is None else orjson.dumps(body), allow_redirects=False,
                    timeout=self._timeout if deadline is None else _within(deadline)) as response:
                data = bytearray()
                async for part in response.content.iter_any():
                    data += part
                    if len(data) > LARGEST:
                        raise GuardDown("guard_bad_answer", "the engine's answer has no end")
        except aiohttp.ClientConnectionError as e:
            endpoint.down_until = time.monotonic() + REST
            raise GuardDown("guard_unreachable", f"{endpoint.shown}: {type(e).__name__}") from None
        except TimeoutError:
            raise GuardDown("guard_timeout", f"{endpoint.shown}: no answer within {self.deadline:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise GuardDown("guard_bad_answer", f"{endpoint.shown}: {type(e).__name__}") from None
        try:
            return response.status, orjson.loads(data)
        except orjson.JSONDecodeError:
            if response.status == 200:
                raise GuardDown("guard_bad_answer", f"{endpoint.shown}: the answer is not JSON") from None
            return response.status, None


def _within(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, sock_connect=2)


def _good(answer: tuple[int, Any]) -> Any:
    status, said = answer
    if status != 200:
        raise _refused(status, said)
    return said


def _snap(said: Any) -> Reply:
    """The short way's answer, strictly read. Raises `GuardDown("guard_bad_answer")`."""
    try:
        first: dict[int | str, float] = {int(t): float(p) for t, p in said["first"].items()}
        return Reply("", first, int(said["prompt"]), int(said["cached"]), 1, True)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise GuardDown("guard_bad_answer", "the engine's answer has not the form of a snap") from None


def reply(said: Any) -> Reply:
    """A completions or chat answer, strictly read. Raises `GuardDown("guard_bad_answer")`."""
    try:
        [choice] = said["choices"]
        chat = "message" in choice
        text, usage = choice["message"]["content"] if chat else choice["text"], said.get("usage") or {}
        probs = choice.get("logprobs") or {}
        if chat:
            places = probs.get("content") or [{}]
            at = _visible([place.get("token", "?") for place in places])
            first: dict[int | str, float] = {t["token"]: float(t["logprob"]) for t in places[at].get("top_logprobs") or []}
        else:
            rows = probs.get("top_logprobs") or [{}]
            at = _visible(probs.get("tokens") or ["?"])
            first = {_token(t): float(p) for t, p in ((rows[at] if at < len(rows) else {}) or {}).items() if p is not None}
        details = usage.get("prompt_tokens_details") or {}
        if not isinstance(text, str):
            raise TypeError
        return Reply(text, first, int(usage.get("prompt_tokens") or 0), int(details.get("cached_tokens") or 0),
                     int(usage.get("completion_tokens") or 0), choice.get("finish_reason") == "length")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise GuardDown("guard_bad_answer", "the engine's answer has not the form of a completion") from None


def _visible(tokens: list[str]) -> int:
    """The place of the first token that shows: Llama Guard 3 begins with a blank line, which says nothing."""
    return next((i for i, token in enumerate(tokens) if token.strip()), 0)


def _token(name: str) -> int | str:
    return int(name[9:]) if name.startswith("token_id:") else name


def _refused(status: int, said: Any) -> GuardDown:
    """The engine's own words may repeat the prompt: they are searched, never kept."""
    words = str(said).lower()[:4000]
    if status in (400, 413, 422) and any(w in words for w in TOO_LONG):
        return GuardDown("guard_too_long", f"the engine refused the prompt's length (status {status})")
    if status in (429, 503):
        code = "guard_overloaded" if status == 503 else "guard_error"
        return GuardDown(code, f"the engine is full (status {status})")
    return GuardDown("guard_error" if status >= 500 else "guard_bad_answer", f"the engine answered: status {status}")
