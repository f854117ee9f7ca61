"""The life of an exchange: admit -> judge -> forward -> relay -> settle.

    client                     firewall                                       upstream
      |  head    ------------>  admit: route table, type, key, body, words
      |  body                   judge: detectors, then the guard, all words
      |  <--- 400 in the        (block: upstream untouched)
      |       dialect's shape   forward: the client's own bytes ------------->  |
      |                         relay: frames -> gate <-- verdicts   <--------  |
      |  <--- judged bytes      settle: exactly one record, always

`App` is what the HTTP server calls; everything here is a thin line through rooms that know nothing of each other.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from firewall.case import Case, Message
from firewall.errors import FirewallError, GuardDown, internal
from firewall.exchange import Exchange
from firewall.guards.guard import forget
from firewall.policy import PolicySet
from firewall.proxy import headers, metrics, routes
from firewall.proxy.house import House
from firewall.proxy.http1.request import Request
from firewall.proxy.http1.server import Refusal, Reply
from firewall.proxy.redact import blocked
from firewall.proxy.relay import Relay
from firewall.proxy.tags import hidden, unremovable, visible
from firewall.verdict import ALLOW, Decision, Verdict
from firewall.wire.body import document, plain
from firewall.wire.moderation import Moderation
from firewall.wire.wire import Asked, Wire

BLOCKED = "This request was blocked by a content policy."
NOT_ALLOWED = FirewallError("endpoint_not_allowed", "This endpoint is not served by the firewall.", status=404)
NOT_JSON = FirewallError("unsupported_media_type", "The body must be application/json.", status=415)
NO_KEY = FirewallError("invalid_api_key", "A valid key for this firewall is required.", status=401)
SHUTTING = FirewallError("shutting_down", "The firewall is shutting down.", fault="ours", status=503, retry_after=1.0)
INPUTS = 1024       # texts that one `/v1/moderations` may hold: each is a question of its own


class App:
    """Binds the HTTP server to a `House`.

    An exchange costs a task only while somebody thinks: `exchange` runs by hand up to its first wait, and the relay that
    it leaves behind is driven by upstream's bytes.
    """

    def __init__(self, house: House) -> None:
        self.house = house
        self.tasks: set[asyncio.Task[None]] = set()     # exchanges that wait: for a guard, for a client to take the rest
        self.relays: set[Relay] = set()                 # exchanges whose answer is on its way
        s = house.config.stream
        self._period = max(0.05, min(s.content_idle, s.total) / 4)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        """Exchanges that have begun and have no record yet."""
        return len(self.tasks) + len(self.relays)

    # what the server calls

    def head(self, request: Request) -> Refusal | None:
        """The head is here: refuse what needs no body."""
        request.matched = self._match(request)
        if request.matched is None:
            return self._refuse(request, NOT_ALLOWED)
        if headers.media_type(request.get(b"content-type")) != b"application/json":
            return self._refuse(request, NOT_JSON)
        if self.house.client_keys and not self._known_client(request):
            return self._refuse(request, NO_KEY)
        return None

    def request(self, request: Request, reply: Reply) -> None:
        """A whole request is here."""
        phases = self.exchange(request, reply)
        try:
            phases.send(None)
        except StopIteration:       # nobody had to wait
            return
        self._wait(phases, reply)

    def refused(self, error: FirewallError, request: Request | None) -> tuple[int, bytes, bytes]:
        """The server could not read a request: shape the answer, keep a record."""
        refusal = self._refuse(request, error)
        return refusal.status, refusal.headers, refusal.body

    async def stop(self) -> None:
        """Out of time: every exchange in flight ends legally and is recorded."""
        for relay in list(self.relays):
            relay.broke(SHUTTING)
        await asyncio.sleep(0)      # a task that never ran would leave no record
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=1.0)

    # the phases

    async def exchange(self, request: Request, reply: Reply) -> None:
        """One exchange up to its record, or up to the relay that will settle it. Its first wait must be `sleep(0)`:
        there `request` makes it a task."""
        matched: routes.Match = request.matched
        wire, exchange = matched.route.wire, self._began(request, matched)
        handed = False
        try:
            handed = await self._through(request, matched, exchange, reply)
        except asyncio.CancelledError:
            if reply.gone:
                exchange.ending, exchange.status = "gone", exchange.status or 499
            else:
                self._fail(reply, wire, exchange, SHUTTING)
        except FirewallError as error:
            self._fail(reply, wire, exchange, error)
        except Exception as error:      # ours: closed, and said so
            structlog.get_logger().error("internal", where=type(error).__name__, id=exchange.id)
            self._fail(reply, wire, exchange, internal(error, "request"))
        finally:
            if not handed:
                self.settle(exchange)

    async def _through(self, request: Request, matched: routes.Match, exchange: Exchange, reply: Reply) -> bool:
        """Admit, judge, forward. True when a relay has it."""
        house, route = self.house, matched.route
        coding = request.get(b"content-encoding")
        exchange.bytes_in = len(request.body)
        if house.records.broken:
            house.records.check()
        policies = house.policies
        sent = plain(request.body, coding, house.body)
        asked = self._admit(document(sent, None, house.body), matched, exchange)
        case = Case("input", policies.side("input"), asked.messages, (), True, exchange.tenant, exchange.boundary)
        if route.local is not None:
            await asyncio.sleep(0)
            await self._moderate(route.local, asked, case, exchange, reply)
            return False
        judged = house.known(case, exchange)
        if judged is None:
            await asyncio.sleep(0)
            judged = await house.think(case, exchange)
        decision = judged[0]
        body = b""
        if (unseen := hidden(asked.messages)) and decision.action not in ("block", "error"):
            exchange.decided("input", decision)
            exchange.stripped = sum(span.end - span.start for span in unseen)
            body = visible(asked, unseen)
            asked = self._admit(document(body, None, house.body), matched, exchange)
            if hidden(asked.messages):      # what was removed held escapes or base64 apart
                raise unremovable()
            await asyncio.sleep(0)
            decision, _ = await house.judge(case._replace(messages=asked.messages), exchange)   # what will be forwarded
        if decision.action == "redact":
            try:
                body = asked.rewrite(decision.spans, lambda _: headers.MASK)
            except FirewallError:
                decision = blocked(decision)
        exchange.decided("input", decision)
        if decision.action == "error":
            raise exchange.error or GuardDown()
        if decision.action == "block":
            body = route.wire.blocked(decision.message or BLOCKED, decision.rules, exchange.id)
            self._answer(reply, exchange, 400, body, "blocked")
            return False
        self._forward(request, matched, asked, policies, body or sent, exchange, reply)
        return True

    def _forward(self, request: Request, matched: routes.Match, asked: Asked, policies: PolicySet, body: bytes,
                 exchange: Exchange, reply: Reply) -> None:
        """Asks upstream; its answer drives the relay, to `_relayed`. Raises `FirewallError` without upstream."""
        house, route = self.house, matched.route
        upstream = house.upstreams.get(route.family)
        if upstream is None:
            raise FirewallError("no_upstream", "No upstream is configured for this API.", fault="ours", status=502,
                                detail=f"set [upstream.{route.family}] url in firewall.toml")
        output = policies.side("output")
        relay = Relay(exchange, route.wire, asked, house.guard, output, reply, house.pace(output), self._relayed)
        lines = headers.forward(_credentials(request), upstream.key, bool(house.client_keys))
        exchange.unverified = upstream.unverified
        relay.call = upstream.pool.send(request.method.encode(), upstream.base.target(matched.target), lines, body, relay)
        request.body = b""      # the call has it until upstream answers: a long prompt does not stay for a long answer
        self.relays.add(relay)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._period, self._sweep)

    def _relayed(self, relay: Relay) -> None:
        """An answer has ended, one way or another."""
        self.relays.discard(relay)
        exchange, reply = relay.exchange, relay.reply
        if exchange.ending == "passed" and not reply.writable:      # written to its end, but not taken
            self._wait(self._taken(exchange, reply))
        else:
            self.settle(exchange)

    async def _taken(self, exchange: Exchange, reply: Reply) -> None:
        """Waits without the relay, its frames and its transcript."""
        exchange.ending = "gone"
        with suppress(asyncio.CancelledError):
            exchange.ending = "passed" if await reply.taken() else "gone"
        self.settle(exchange)

    def _wait(self, phases: Coroutine[Any, Any, None], reply: Reply | None = None) -> None:
        """The rest of an exchange as a task, cancelled when the client leaves."""
        task = asyncio.get_running_loop().create_task(phases)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

        def left() -> None:
            task.cancel()
        if reply is not None:
            reply.on_gone = left

    def _sweep(self) -> None:
        """The clocks of all answers under way: one timer, not one an answer."""
        self._timer = None
        now = time.perf_counter()
        for relay in list(self.relays):
            relay.look(now)
        if self.relays and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._period, self._sweep)

    async def _moderate(self, local: Moderation, asked: Asked, case: Case, exchange: Exchange, reply: Reply) -> None:
        """`/v1/moderations`: each input judged on its own, all policies, nothing forwarded. Words outside of several
        inputs are judged once, and count for each of them."""
        value = asked.document["input"]
        if type(value) is list and type(value[0]) is str and len(value) > INPUTS:
            raise FirewallError("limit_exceeded", f"`input` may hold at most {INPUTS} texts here.", param="input")
        own: list[Message] = []
        about: list[Message] = []
        for message in asked.messages:
            (own if message.where.partition(".")[0] == "input" else about).append(message)
        groups = local.inputs(replace(asked, messages=tuple(own)))
        if len(groups) == 1:
            groups, about = [(*groups[0], *about)], []
        shared = await self._heard(case._replace(messages=tuple(about)), exchange) if about else (ALLOW, [])
        results = []
        for messages in groups:
            decision, verdicts = await self._heard(case._replace(messages=messages), exchange)
            rules = tuple(sorted({*shared[0].rules, *decision.rules}))
            decision = Decision("flag" if rules else "allow", rules, (*shared[0].errors, *decision.errors))
            results.append((decision, [*shared[1], *verdicts]))
            exchange.decided("input", decision)
            await asyncio.sleep(0)      # a guard that answers at once gives nobody else a turn
        self._answer(reply, exchange, 200, local.answer(results, case.policies, exchange.id, asked.model), "answered")

    async def _heard(self, case: Case, exchange: Exchange) -> tuple[Decision, list[Verdict]]:
        """What was judged, or no answer at all."""
        decision, verdicts = await self.house.judge(case, exchange)
        if decision.action == "error" or decision.errors and not decision.rules:
            raise exchange.error or GuardDown(*decision.errors[:1])
        return decision, verdicts

    def _admit(self, body: dict[str, object], matched: routes.Match, exchange: Exchange) -> Asked:
        asked = (matched.route.local or matched.route.wire).ask(body)
        if asked.sizes:
            self._capped(asked)
        if matched.stream is not None:
            asked = replace(asked, stream=matched.stream, model=matched.model)
        exchange.named(asked.model)
        exchange.stream, exchange.opaque = asked.stream, len(asked.opaque)
        exchange.request_chars = sum([len(m.text) for m in asked.messages])
        return asked

    def _capped(self, asked: Asked) -> None:
        """Amplification: candidates and tokens one request may ask for (K17)."""
        limits = self.house.config.limits
        for kind, param, number in asked.sizes:
            most = limits.output_tokens if kind == "tokens" else limits.candidates
            if most and number > most:
                raise FirewallError("limit_exceeded", f"`{param}` may ask for at most {most} {kind} here.", param=param)

    # answers and endings

    def _answer(self, reply: Reply, exchange: Exchange, status: int, body: bytes, ending: str) -> None:
        exchange.ending, exchange.status, exchange.bytes_out = ending, status, len(body)   # type: ignore[assignment]
        reply.answer(status, headers.refusal(exchange), body)

    def _fail(self, reply: Reply, wire: Wire, exchange: Exchange, error: FirewallError) -> None:
        if exchange.ending in ("blocked", "failed"):
            reply.abort()
            return
        exchange.error = error
        exchange.ending = "refused" if error.fault == "client" else "failed"
        exchange.status = error.status
        body = wire.error(error, exchange.id)
        exchange.bytes_out = len(body)
        try:
            reply.answer(error.status, headers.refusal(exchange, error), body)
        except Exception:       # nobody to tell it to
            reply.abort()

    def _match(self, request: Request) -> routes.Match | None:
        return routes.match(request.method, request.path, request.query)

    def _began(self, request: Request | None, matched: routes.Match | None) -> Exchange:
        metrics.IN_FLIGHT.inc()
        route, house = matched.route if matched is not None else None, self.house
        name, wire = (route.name, (route.local or route.wire).name) if route is not None else ("other", "none")
        exchange = Exchange(name, wire, self._tenant(request) if request is not None else "", house.policies.digest,
                            house.guard.fingerprint)
        if matched is not None and matched.model:
            exchange.named(matched.model)
        return exchange

    def _refuse(self, request: Request | None, error: FirewallError) -> Refusal:
        """A refusal before the body, or of a malformed request."""
        matched = self._match(request) if request is not None else None
        exchange = self._began(request, matched)
        wire = matched.route.wire if matched is not None else routes.dialect(request.path if request is not None else "")
        exchange.error, exchange.ending, exchange.status = error, "refused", error.status
        self.settle(exchange)
        return Refusal(error.status, headers.refusal(exchange, error), wire.error(error, exchange.id))

    def settle(self, exchange: Exchange) -> None:
        """Exactly one record, always."""
        metrics.IN_FLIGHT.dec()
        forget(self.house.guard, exchange.boundary)
        self.house.ledger.add(exchange)

    def _tenant(self, request: Request) -> str:
        return headers.tenant(headers.credential(_credentials(request)), self.house.salt)

    def _known_client(self, request: Request) -> bool:
        key = headers.presented(_credentials(request))
        return any([hmac.compare_digest(key, known) for known in self.house.client_keys])


def _credentials(request: Request) -> headers.Pairs:
    """The headers, with Gemini's `?key=` among them: a key never travels in a path."""
    for part in request.query.split(b"&") if b"key=" in request.query else ():
        if part.startswith(b"key=") and routes.SAFE.issuperset(part[4:].decode("latin-1")):
            return (*request.headers, (b"x-goog-api-key", part[4:]))
    return request.headers

