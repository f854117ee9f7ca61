"""Several workers: one port, one merged metrics page, rolling restart without a refused connection, a death survived."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest

from firewall.proxy.records import verify
from tests.story.upstream import END, HEAD, Upstream, chat, chat_events, chunk, whole


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def running(tmp_path: Path, request: pytest.FixtureRequest):
    async with Upstream([getattr(request, "param", [whole(chat("x"))])]) as mu:
        port, admin = free_port(), free_port()
        (tmp_path / "p").mkdir()
        (tmp_path / "p" / "a.md").write_text("- a rule\n")
        (tmp_path / "firewall.toml").write_text(
            f'[server]\nlisten="127.0.0.1:{port}"\nadmin="127.0.0.1:{admin}"\ndrain-wait=0.1\nworkers=2\n'
            f'[upstream]\nurl="{mu.url}"\n[policies]\nfolder="p"\n[guard]\nkind="scripted"\n'
            f'[records]\nfile="{tmp_path}/records"\n')
        process = subprocess.Popen([sys.executable, "-m", "firewall", "--config", str(tmp_path / "firewall.toml")],
                                   stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
        assert process.stderr is not None
        loop = asyncio.get_running_loop()
        for _ in range(2):
            assert '"serving"' in await loop.run_in_executor(None, process.stderr.readline)
        try:
            yield process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
        finally:
            if process.poll() is None:
                process.terminate()
                await loop.run_in_executor(None, process.wait, 15)
            process.stderr.close()


async def ask(url: str) -> int:
    """One request on a connection of its own, so that a closed listener would show."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    async with aiohttp.ClientSession() as http, http.post(
            f"{url}/v1/chat/completions", data=body, headers={"content-type": "application/json"}) as reply:
        await reply.read()
        return reply.status


async def test_rolling_restart_and_death_without_a_refused_connection(running, tmp_path):
    process, url, admin = running
    parent = psutil.Process(process.pid)
    before = {p.pid for p in parent.children()}
    assert len(before) == 2
    answers: list[int] = []
    stop = False

    async def load() -> None:
        while not stop:
            answers.append(await ask(url))

    users = [asyncio.create_task(load()) for _ in range(4)]
    await asyncio.sleep(0.5)
    process.send_signal(signal.SIGHUP)
    for _ in range(600):        # a start may take long on a busy machine
        await asyncio.sleep(0.1)
        after = {p.pid for p in parent.children()}
        if len(after) == 2 and not after & before:
            break
    assert not after & before and len(after) == 2
    stop = True
    await asyncio.gather(*users)
    assert len(answers) > 20 and set(answers) == {200}
    # old and new workers wrote at the same time: each file has one chain, and together they hold every exchange
    await asyncio.sleep(0.2)
    files = sorted(tmp_path.glob("records*"))
    assert len(files) == 4 and sum(verify(path) for path in files if path.stat().st_size) == len(answers)

    psutil.Process(min(after)).kill()
    for _ in range(100):
        await asyncio.sleep(0.1)
        if len([p for p in parent.children() if p.status() != psutil.STATUS_ZOMBIE]) == 2:
            break
    assert [await ask(url) for _ in range(10)] == [200] * 10


async def test_metrics_are_merged(running):
    _, url, admin = running
    for _ in range(20):
        assert await ask(url) == 200
    await asyncio.sleep(0.2)
    async with aiohttp.ClientSession() as http, http.get(f"{admin}/metrics") as reply:
        text = await reply.text()
    counted = re.findall(r'firewall_exchanges_total\{.*ending="passed".*\} ([0-9.]+)', text)
    assert sum(map(float, counted)) == 20


async def ended(process: subprocess.Popen[str], seconds: float = 20) -> int:
    return await asyncio.get_running_loop().run_in_executor(None, process.wait, seconds)


@pytest.mark.parametrize("pause", [0.05, 0.6])
async def test_sigterm_in_the_middle_of_a_rolling_restart_ends_all(running, pause: float) -> None:
    process, url, _ = running
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGHUP)
    await asyncio.sleep(pause)
    process.send_signal(signal.SIGTERM)
    assert await ended(process) == 0 and "second_signal" not in process.stderr.read()
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


@pytest.mark.parametrize("running", [[HEAD, *map(chunk, chat_events("a", "b")[:2]), 60.0, END]], indirect=True)
async def test_a_second_signal_ends_all_now_and_what_was_in_flight_is_recorded(running, tmp_path: Path) -> None:
    process, url, _ = running
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
    streams = []
    for _ in range(6):      # on both workers
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                     b"content-length: %d\r\n\r\n" % len(body) + body)
        await reader.readuntil(b"\r\n\r\n")
        streams.append(writer)
    process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert await ended(process) == 1
    for writer in streams:
        writer.close()
    rows = [json.loads(line) for path in tmp_path.glob("records*") for line in path.read_text().splitlines()]
    assert [(row["ending"], row["code"]) for row in rows] == [("failed", "shutting_down")] * 6


async def test_a_terminals_ctrl_c_reaches_everybody_and_drains(running) -> None:
    process, url, _ = running
    assert await ask(url) == 200
    for one in (*psutil.Process(process.pid).children(), psutil.Process(process.pid)):
        one.send_signal(signal.SIGINT)
    assert await ended(process) == 0 and "second_signal" not in process.stderr.read()


async def test_a_second_firewall_on_the_same_ports_is_refused(running, tmp_path: Path) -> None:
    _, url, _ = running
    other = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "firewall", "--config", str(tmp_path / "firewall.toml")],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}, timeout=20)
    assert other.returncode == 2 and "server.listen: cannot listen" in other.stderr
    assert await ask(url) == 200


async def test_workers_go_with_a_parent_that_was_killed(running) -> None:
    process, url, _ = running
    children = psutil.Process(process.pid).children()
    process.kill()
    await ended(process)
    for _ in range(150):
        await asyncio.sleep(0.1)
        if not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
            return
    raise AssertionError("orphans serve on")


async def test_readiness_holds_through_a_rolling_restart(running) -> None:
    process, url, admin = running
    before = {p.pid for p in psutil.Process(process.pid).children()}
    process.send_signal(signal.SIGHUP)
    seen: list[int] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
        for _ in range(60):
            async with http.get(f"{admin}/readyz") as reply:
                seen.append(reply.status)
            await asyncio.sleep(0.05)
            if not before & {p.pid for p in psutil.Process(process.pid).children()}:
                break
        async with http.get(f"{admin}/metrics") as reply:
            assert "firewall_ready 1.0" in await reply.text()
    assert set(seen) == {200}
