"""What is counted in plain numbers reaches prometheus_client as if each exchange had been told at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from firewall.errors import GuardDown
from firewall.exchange import Exchange
from firewall.proxy import metrics
from firewall.proxy.metrics import BUCKETS, Spread
from firewall.verdict import ALLOW, Decision, Verdict


def told() -> dict[str, float]:
    """The page, by name and labels."""
    lines = [line.rpartition(" ") for line in metrics.page().decode().splitlines() if line.startswith("firewall_")]
    return {name: float(value) for name, _, value in lines}


def since(before: dict[str, float]) -> dict[str, float]:
    """What grew."""
    return {name: value - before.get(name, 0) for name, value in told().items() if value != before.get(name, 0)}


def exchange(wire: str, first: float = 0.0, took: float = 0.0) -> Exchange:
    x = Exchange("r", wire)
    x.ending = "passed"
    x.first_byte, x.ended = x.began + first if first else 0.0, x.began + took
    return x


SECONDS = st.sampled_from([0.0, *BUCKETS, 1e9]) | st.floats(0, 400)


@given(st.lists(st.lists(SECONDS, max_size=5), max_size=4))
def test_a_spread_is_what_observing_one_by_one_gives(poured: list[list[float]]) -> None:
    one, many = (Histogram("x", "x", buckets=BUCKETS, registry=CollectorRegistry()) for _ in range(2))
    spread = Spread(many)
    for times in poured:
        for seconds in times:
            one.observe(seconds)
            spread.seen.append(seconds)
        spread.pour()
    (a,), (b,) = one.collect(), many.collect()
    for x, y in zip(a.samples, b.samples, strict=True):
        if not x.name.endswith("_created"):
            assert (x.name, x.labels) == (y.name, y.labels) and abs(x.value - y.value) <= 1e-9 * abs(x.value)


def test_an_ordinary_exchange() -> None:
    before = told()
    for took in (0.002, 0.004):
        x = exchange("plain", 0.0007, took)
        verdict = Verdict("g", ms=3.0, tokens=5)
        x.decided("input", ALLOW)
        x.heard(verdict)
        x.upstream_status = 200
        x.heard(verdict)
        x.decided("output", ALLOW)
        metrics.settle(x)
    grown = since(before)
    assert grown['firewall_exchanges_total{decision="allow",ending="passed",wire="plain"}'] == 2
    assert grown["firewall_guard_asks_total"] == 4 and grown["firewall_guard_tokens_total"] == 10
    assert grown['firewall_exchange_seconds_bucket{le="0.0025",wire="plain"}'] == 1
    assert grown['firewall_exchange_seconds_bucket{le="0.005",wire="plain"}'] == 2
    assert abs(grown['firewall_exchange_seconds_sum{wire="plain"}'] - 0.006) < 1e-6
    assert grown['firewall_first_byte_seconds_count{wire="plain"}'] == 2 == grown["firewall_guard_seconds_count"]
    assert not [name for name in grown if name.startswith(("firewall_fa", "firewall_policy", "firewall_unjudged"))]


def test_what_is_not_ordinary() -> None:
    before = told()
    down = exchange("odd")
    down.error = GuardDown()
    down.decided("input", Decision("error", (), ("guard_unavailable",)))
    opened = exchange("odd", 0.1, 0.2)
    opened.came, opened.cleared, opened.release = 10, 4, "watch"
    opened.decided("input", Decision("allow", (), ("guard_timeout",)))
    opened.decided("output", Decision("redact", ("ticks/1", "ticks/2", "tocks/1")))
    for x in (down, opened):
        metrics.settle(x)
    grown = since(before)
    assert grown['firewall_faults_total{code="guard_unavailable",fault="guard"}'] == 1
    assert grown['firewall_policy_hits_total{policy="ticks"}'] == grown['firewall_policy_hits_total{policy="tocks"}'] == 1
    assert grown["firewall_fail_open_total"] == 1 and grown["firewall_unjudged_characters_total"] == 6
    assert grown['firewall_exchanges_total{decision="error",ending="passed",wire="odd"}'] == 1
    assert grown['firewall_exchange_seconds_count{wire="odd"}'] == 2


def test_in_flight_is_a_level() -> None:
    for _ in range(3):
        metrics.IN_FLIGHT.inc()
    metrics.IN_FLIGHT.dec()
    assert told()["firewall_in_flight"] == 2.0
    metrics.IN_FLIGHT.dec()
    metrics.IN_FLIGHT.dec()
    assert told()["firewall_in_flight"] == 0.0


WORKER = """
import asyncio, sys
from firewall.exchange import Exchange
from firewall.proxy import metrics
from firewall.proxy.ledger import Ledger
from firewall.proxy.records import Records
async def main():
    ledger = Ledger(Records("/dev/null"))
    for n in range(3):
        metrics.IN_FLIGHT.inc()
        ledger.add(Exchange("r", "many"))
    if sys.argv[1] == "close":
        ledger.close()
    else:
        await asyncio.sleep(0.15)
    print("told", flush=True)
    sys.stdin.read()
asyncio.run(main())
"""


def test_the_page_of_another_worker_shows_it_soon(tmp_path: Path) -> None:
    """Several processes: the numbers stand in files, a tenth of a second later or when the ledger is closed."""
    env = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    both = [subprocess.Popen([sys.executable, "-c", WORKER, how], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for how in ("close", "wait")]
    assert [p.stdout.readline() for p in both] == [b"told\n"] * 2
    shown = "from firewall.proxy import metrics; print(metrics.page().decode())"
    page = subprocess.run([sys.executable, "-c", shown], env=env, capture_output=True, text=True).stdout
    for process in both:
        process.communicate()
    assert 'firewall_exchanges_total{decision="unjudged",ending="unfinished",wire="many"} 6.0' in page
    assert 'firewall_exchange_seconds_count{wire="many"} 6.0' in page and "firewall_in_flight 6.0" in page
    assert "firewall_guard_asks_total 0.0" in page
