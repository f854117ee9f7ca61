"""Prometheus metrics. Labels come from our own tables only, so their number is bounded; nothing is counted a token.

With several workers prometheus_client's multiprocess mode merges them (PROMETHEUS_MULTIPROC_DIR, set by the
supervisor before this module is imported).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from firewall.exchange import Exchange

BUCKETS = (.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300)
EXCHANGES = Counter("firewall_exchanges_total", "Exchanges by how they ended.", ("wire", "decision", "ending"))
RULES = Counter("firewall_policy_hits_total", "Exchanges in which a policy was violated.", ("policy",))
ASKS = Counter("firewall_guard_asks_total", "Questions to the guard.")
TOKENS = Counter("firewall_guard_tokens_total", "Tokens the guard computed.")
FAULTS = Counter("firewall_faults_total", "Failures by whose fault they were.", ("fault", "code"))
DURATION = Histogram("firewall_exchange_seconds", "Whole exchanges.", ("wire",), buckets=BUCKETS)
FIRST = Histogram("firewall_first_byte_seconds", "Until the first byte of an answer left.", ("wire",), buckets=BUCKETS)
GUARD = Histogram("firewall_guard_seconds", "Guard time in an exchange.", buckets=BUCKETS)
OPEN = Counter("firewall_fail_open_total", "Exchanges that went on without a guard, because a policy says so.")
UNJUDGED = Counter("firewall_unjudged_characters_total", "Characters that left unjudged (watch mode, fail open).")
IN_FLIGHT = Gauge("firewall_in_flight", "Exchanges in flight.", multiprocess_mode="livesum")
STALE = Gauge("firewall_policy_stale", "1 while the policies on disk are broken and the last good set is in force.",
              multiprocess_mode="livemax")
READY = Gauge("firewall_ready", "1 when traffic is accepted.", multiprocess_mode="livemax")
RELOADS = Gauge("firewall_policy_reloads", "Reloads of the policies by result.", ("result",), multiprocess_mode="livemax")
LAG = Gauge("firewall_loop_lag_seconds", "Event loop lag, worst in the last ten seconds.", multiprocess_mode="livemax")


@cache
def _kept(wire: str, label: str, ending: str) -> tuple[Counter, Histogram, Histogram]:
    """The children that nearly every exchange counts in: looking one up costs more than counting."""
    return EXCHANGES.labels(wire, label, ending), DURATION.labels(wire), FIRST.labels(wire)


def settle(exchange: Exchange) -> None:
    """Counts one finished exchange."""
    outcome, label = exchange.outcome, exchange.label
    exchanges, duration, first = _kept(exchange.wire, label, exchange.ending)
    exchanges.inc()
    duration.observe(time.perf_counter() - exchange.began)
    for decision in exchange.decisions.values():
        if decision.errors and not decision.stops:
            OPEN.inc()
            break
    for policy in {rule.partition("/")[0] for rule in outcome.rules}:
        RULES.labels(policy).inc()
    if exchange.asks:
        ASKS.inc(exchange.asks)
        GUARD.observe(exchange.guard_ms / 1e3)
    if exchange.tokens:
        TOKENS.inc(exchange.tokens)
    if exchange.error is not None:
        FAULTS.labels(exchange.error.fault, exchange.error.code).inc()
    if exchange.came > exchange.cleared and (exchange.release == "watch" or label == "flag"):
        UNJUDGED.inc(exchange.came - exchange.cleared)
    if exchange.first_byte:
        first.observe(exchange.first_byte - exchange.began)


def state(ready: bool, stale: bool, reloads: Mapping[str, int]) -> None:
    """How this worker stands."""
    READY.set(ready)
    STALE.set(stale)
    for result, count in reloads.items():
        RELOADS.labels(result).set(count)


def page() -> bytes:
    """The exposition text, merged over workers where there are several."""
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        with open(os.path.join(folder, "lock"), "a") as lock:       # the supervisor may be adding up ended workers' files
            fcntl.flock(lock, fcntl.LOCK_SH)
            return generate_latest(registry)
    return generate_latest(REGISTRY)
