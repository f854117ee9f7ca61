"""A refusal is cheaper than an exchange: it must never make a figure of the data plane."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks import costs, overhead
from benchmarks.flood import Flood
from benchmarks.load import Broken
from benchmarks.system import Firewall
from benchmarks.upstream import Upstream

REFUSED = {"model": "lab-whole-1000", "messages": "not a list"}


def test_only_answers_make_a_figure() -> None:
    good = Flood([1.0], Counter({200: 1}), 1.0, 0.0)
    assert good.answered() is good
    with pytest.raises(Broken, match="2 x 200, 1 x 503"):
        Flood([1.0] * 3, Counter({503: 1, 200: 2}), 1.0, 0.0).answered()
    with pytest.raises(Broken, match="none"):
        Flood([], Counter(), 1.0, 0.0).answered()


async def test_capacity_counts_rows_that_were_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await overhead.capacity(24, 4))["rows_per_second"] > 0
    monkeypatch.setattr(overhead, "whole", lambda: REFUSED)
    with pytest.raises(Broken, match="24 x 400"):
        await overhead.capacity(24, 4)


async def test_workers_costs_and_concurrency_take_no_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "whole", lambda: REFUSED)
    monkeypatch.setattr(costs, "conversation", lambda turns, number: REFUSED)
    async with Upstream() as upstream:
        with Firewall(upstream.url, "scripted") as firewall:
            class Lab:
                def peer(self, name: str) -> Firewall:
                    return firewall
            for what in (overhead.concurrency(Lab(), (1,), 8), costs._cost(firewall, "scripted", 8, 1),
                         costs._cost(firewall, "embedded", 8, 1)):
                with pytest.raises(Broken, match="8 x 400"):
                    await what
    with pytest.raises(Broken, match="8 x 400"):
        await overhead.workers(overhead.cores()[1], 8, 4)
