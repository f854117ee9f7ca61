"""What one worker process owns for its whole life: configuration, policies, guard, upstream pools, records.

`House.judge` is the one way from a case to a decision: no policies means nothing to judge, a memory answers at once,
and a guard that fails becomes a decision in `verdict.decide` alone.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from firewall import config as settings
from firewall.case import Case
from firewall.config import Config
from firewall.errors import FirewallError, GuardDown, Mistakes
from firewall.exchange import Exchange
from firewall.guards.guard import Guard
from firewall.policy import PolicySet
from firewall.proxy import headers, metrics, routes
from firewall.proxy.http1.client import Origin, Pool, UpstreamLimits
from firewall.proxy.ledger import Ledger
from firewall.proxy.records import Records
from firewall.proxy.relay import Pace
from firewall.proxy.source import Source
from firewall.verdict import ALLOW, Decision, Verdict, decide
from firewall.wire.body import BodyLimits

Judged = tuple[Decision, list[Verdict]]


class Upstream(NamedTuple):
    """Where one family of dialects goes. `key`: our credential's line, or empty; `unverified`: nobody checks who answers."""

    pool: Pool
    base: routes.Base
    key: bytes
    unverified: bool


class House:
    """Built before the event loop serves; `start` and `close` frame its life.

    Raises:
        Mistakes: on construction, with every reason why it cannot serve.
    """

    def __init__(self, config: Config, guard: Guard, source: Source, records: Records, salt: bytes | None = None) -> None:
        self.config, self.guard, self.source, self.records = config, guard, source, records
        self.ledger = Ledger(records, config.records.explain_verdict)
        self.salt = salt or os.urandom(16)
        self.body = BodyLimits(size=config.limits.body)
        s = config.stream
        self.paces: dict[str, Pace] = {r: Pace(r, s.hold, s.whole, s.event, s.content_idle, s.total, s.pad)
                                       for r in ("rolling", "whole", "watch")}
        self._paced: tuple[PolicySet | None, Pace] = None, self.paces["rolling"]        # of the last policies
        self.client_keys = tuple(settings.secret(name).encode() for name in config.server.client_keys)
        self.upstreams: dict[str, Upstream] = {}        # by family
        wrong: list[str] = []
        for family in settings.FAMILIES:
            upstream = config.upstreams.get(family, config.upstream)
            name = f"upstream.{family}" if family in config.upstreams else "upstream"       # one mistake is said once
            if not upstream.url:
                continue
            try:
                key = headers.key_line(family, settings.secret(upstream.key))
                origin = Origin.parse(upstream.url, ca=upstream.ca_file or None, insecure=not upstream.verify)
                pool = Pool(origin, UpstreamLimits(
                    connect_timeout=upstream.connect_timeout, head_timeout=upstream.head_timeout,
                    idle_timeout=upstream.idle_timeout, total=s.total, keepalive=upstream.keepalive,
                    max_idle=upstream.max_idle))
                self.upstreams[family] = Upstream(pool, routes.base(origin.prefix, family), key,
                                                  origin.ssl is not None and not upstream.verify)
            except Mistakes as e:
                wrong += [f"{name}: {line}" for line in e.lines]
            except (FirewallError, ValueError) as e:
                wrong.append(f"{name}.url: {getattr(e, 'detail', e)}")
        if wrong:
            raise Mistakes(sorted(set(wrong)))
        self.draining = self.short = ""     # of memory

    @property
    def policies(self) -> PolicySet:
        return self.source.current

    def pace(self, policies: PolicySet) -> Pace:
        """The strictest release that the policies ask for: `watch` where all of them only watch. What a policy leaves
        open, and an empty set, is as configured."""
        if self._paced[0] is not policies:
            default, said = self.config.stream.release, policies.releases
            mode = next(m for m in ("whole", "rolling", "watch") if m in said or m == default and (None in said or not said))
            self._paced = policies, self.paces[mode]
        return self._paced[1]

    def ready(self) -> str:
        """Empty when traffic can be served, else why not. It can without a guard where every policy says so."""
        guard = "" if all(p.open for p in self.policies) else self.guard.ready()
        return self.draining or guard or (f"records: {self.records.broken}" if self.records.broken else "") or self.short

    def gauge(self) -> None:
        """Sets this worker's gauges: each says it for itself, for another one may answer the scrape."""
        metrics.IN_FLIGHT.pour()
        metrics.state(not self.ready(), bool(self.source.stale), self.source.reloads)

    def mend(self) -> None:
        """Tries again what keeps us from being ready: no traffic would find out, for who is not ready gets none."""
        self.records.mend()

    def known(self, case: Case, exchange: Exchange) -> Judged | None:
        """The decision on one question of the request side, where nobody has to think."""
        if not case.policies.policies:
            return ALLOW, []
        try:
            verdict = self.guard.known(case)
        except GuardDown as error:
            return _decided(case, exchange, error)
        return None if verdict is None else _decided(case, exchange, verdict)

    async def think(self, case: Case, exchange: Exchange) -> Judged:
        """The same, of a guard that does not know."""
        try:
            return _decided(case, exchange, await self.guard.judge(case))
        except GuardDown as error:
            return _decided(case, exchange, error)

    async def judge(self, case: Case, exchange: Exchange) -> Judged:
        """One question on the request side."""
        return self.known(case, exchange) or await self.think(case, exchange)

    async def close(self) -> None:
        for upstream in self.upstreams.values():
            await upstream.pool.close()
        await self.guard.close()
        self.ledger.close()
        self.records.close()



def _decided(case: Case, exchange: Exchange, told: Verdict | GuardDown) -> Judged:
    errors: list[GuardDown] = []
    verdicts: list[Verdict] = []
    if isinstance(told, GuardDown):
        errors.append(told)
        exchange.error = told
    else:
        exchange.heard(told)
        verdicts.append(told)
        if told.unsure:
            errors.append(GuardDown("guard_unsure", "the guard did not vouch for a whole request"))
    decision = decide(verdicts, case.policies, errors)
    if not decision.stops:
        exchange.error = None
    return decision, verdicts
