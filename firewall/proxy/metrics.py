"""Prometheus metrics. Labels come from our own tables only, so their number is bounded; nothing is counted a token.

What every exchange counts is added up in plain numbers, and prometheus_client is told (`pour`) before a page is made and
some times a second (`Ledger`), so that other workers' pages show it: each number costs it a lock and some calls. A worker
that is killed takes along what it counted in the last tenth of a second; of its records, what ended in the last turn of
its event loop.

With several workers prometheus_client's multiprocess mode merges them (PROMETHEUS_MULTIPROC_DIR, set by the
supervisor before this module is imported).
"""

from __future__ import annotations

import fcntl
import os
import time
from bisect import bisect_left
from collections.abc import Mapping
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from firewall.exchange import Exchange
from firewall.verdict import ALLOW

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
STALE = Gauge("firewall_policy_stale", "1 while the policies on disk are broken and the last good set is in force.",
              multiprocess_mode="livemax")
READY = Gauge("firewall_ready", "1 when traffic is accepted.", multiprocess_mode="livemax")
RELOADS = Gauge("firewall_policy_reloads", "Reloads of the policies by result.", ("result",), multiprocess_mode="livemax")
LAG = Gauge("firewall_loop_lag_seconds", "Event loop lag, worst in the last ten seconds.", multiprocess_mode="livemax")


class Spread:
    """What was observed since a histogram was last told: seconds."""

    __slots__ = ("histogram", "seen")

    def __init__(self, histogram: Histogram) -> None:
        self.histogram, self.seen = histogram, list[float]()

    def pour(self) -> None:
        """`Histogram.observe` of each, with one call for each bucket that some fell into."""
        if self.seen:
            buckets = [0] * (len(BUCKETS) + 1)
            for seconds in self.seen:
                buckets[bisect_left(BUCKETS, seconds)] += 1         # a bucket holds its upper bound
            self.histogram._sum.inc(sum(self.seen))
            for n, bucket in zip(buckets, self.histogram._buckets, strict=True):
                if n:
                    bucket.inc(n)
            self.seen = []


class Count:
    """What came to a counter since it was last told."""

    __slots__ = ("counter", "n")

    def __init__(self, counter: Counter) -> None:
        self.counter, self.n = counter, 0

    def pour(self) -> None:
        if self.n:
            self.counter.inc(self.n)
            self.n = 0


class Level:
    """A number that goes up and down."""

    __slots__ = ("gauge", "n")

    def __init__(self, gauge: Gauge) -> None:
        self.gauge, self.n = gauge, 0

    def inc(self) -> None:
        self.n += 1

    def dec(self) -> None:
        self.n -= 1

    def pour(self) -> None:
        self.gauge.set(self.n)


IN_FLIGHT = Level(Gauge("firewall_in_flight", "Exchanges in flight.", multiprocess_mode="livesum"))
_asks, _tokens, _guard = Count(ASKS), Count(TOKENS), Spread(GUARD)
_kept: list[Count | Spread | Level] = [IN_FLIGHT, _asks, _tokens, _guard]


@cache
def _times(wire: str) -> tuple[Spread, Spread]:
    """Of whole exchanges, and until the first byte."""
    whole, first = Spread(DURATION.labels(wire)), Spread(FIRST.labels(wire))
    _kept.extend((whole, first))
    return whole, first


@cache
def _ordinary(wire: str, label: str, ending: str) -> tuple[Count, Spread, Spread]:
    """What every exchange counts in."""
    count = Count(EXCHANGES.labels(wire, label, ending))
    _kept.append(count)
    return count, *_times(wire)


def settle(exchange: Exchange) -> None:
    """Counts one finished exchange."""
    label, began = exchange.label, exchange.began
    count, whole, first = _ordinary(exchange.wire, label, exchange.ending)
    count.n += 1
    whole.seen.append((exchange.ended or time.perf_counter()) - began)
    if exchange.first_byte:
        first.seen.append(exchange.first_byte - began)
    if exchange.asks:
        _asks.n += exchange.asks
        _guard.seen.append(exchange.guard_ms / 1e3)
    _tokens.n += exchange.tokens
    if exchange.error is not None:
        FAULTS.labels(exchange.error.fault, exchange.error.code).inc()
    if exchange.came > exchange.cleared and (exchange.release == "watch" or label == "flag"):
        UNJUDGED.inc(exchange.came - exchange.cleared)
    for decision in exchange.decisions.values():
        if decision is not ALLOW:
            _decided(exchange)
            break


def _decided(exchange: Exchange) -> None:
    if any(decision.errors and not decision.stops for decision in exchange.decisions.values()):
        OPEN.inc()
    for policy in {rule.partition("/")[0] for rule in exchange.outcome.rules}:
        RULES.labels(policy).inc()


def pour() -> None:
    """Tells prometheus_client what was counted since the last time."""
    for kept in _kept:
        kept.pour()


def state(ready: bool, stale: bool, reloads: Mapping[str, int]) -> None:
    """How this worker stands."""
    READY.set(ready)
    STALE.set(stale)
    for result, count in reloads.items():
        RELOADS.labels(result).set(count)


def page() -> bytes:
    """The exposition text, merged over workers where there are several."""
    pour()
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        with open(os.path.join(folder, "lock"), "a") as lock:       # the supervisor may be adding up ended workers' files
            fcntl.flock(lock, fcntl.LOCK_SH)
            return generate_latest(registry)
    return generate_latest(REGISTRY)
