"""Peers really pass an exchange on; what is missing is said; the loads measure what they claim."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from benchmarks import field, overhead
from benchmarks.costs import rules, write
from benchmarks.flood import first_token, flood, streams, whole
from benchmarks.system import NotStarted, Process
from benchmarks.upstream import Upstream

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@pytest.mark.parametrize("name", ["aiohttp", pytest.param("nginx", marks=pytest.mark.skipif(not NGINX, reason="none")),
                                  "firewall"])
async def test_a_peer_passes_answers_and_streams_on(name: str) -> None:
    async with Upstream() as upstream:
        running, skipped = await asyncio.get_running_loop().run_in_executor(
            None, field.started, [name], upstream.port, None)
        assert not skipped and [r.name for r in running] == ["direct", name]
        peer = running[1]
        try:
            got = await flood(peer.port, "/v1/chat/completions", whole(), 40, 4, peer.process)
            assert got.statuses == {200: 40} and len(got.ms) == 40 and got.cpu > 0 and got.each > 0
            assert len(await first_token(peer.port, 3)) == 3
            run = await streams(peer.port, 10, peer.process, seconds=1.5, ramp=0.2)
        finally:
            peer.stop()
    assert run.delivered == 1.0 and run.whole == 1.0 and run.tokens > 0
    assert len(run.transit) > 20 and 0 < min(run.transit) < 1000


async def test_the_direct_run_delivers_every_event() -> None:
    async with Upstream() as upstream:
        run = await streams(upstream.port, 30, seconds=1.5, ramp=0.2)
    assert (run.delivered, run.whole, run.each) == (1.0, 1.0, 0.0)


def test_missing_peers_are_skipped_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    running, skipped = field.started(["envoy", "nginx"], 9, None)
    assert [r.name for r in running] == ["direct"]
    assert "envoyproxy.io" in skipped["envoy"] and "apt-get install nginx" in skipped["nginx"]


def test_a_process_that_dies_is_said() -> None:
    import sys
    with Process([sys.executable, "-c", "print('broken because'); raise SystemExit(3)"]) as one:
        with pytest.raises(NotStarted, match="broken because"):
            one.wait_for("ready", 10)


async def test_the_upstream_is_closed_when_the_client_leaves() -> None:
    got = await overhead.gone(times=3)
    assert got["ms"]["max"] < 1000


def test_policies_of_the_cost_curves(tmp_path) -> None:
    first = write(tmp_path, 3)
    assert len(list(tmp_path.glob("*.md"))) == 3 and write(tmp_path, 3) == first
    assert write(tmp_path, 1, 300) != first and len(list(tmp_path.glob("*.md"))) == 1
    assert len((tmp_path / "p000.md").read_text().split()) >= 300
    assert len(rules()) >= 24
