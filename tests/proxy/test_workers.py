"""The supervisor's own rules; its life with real processes is told in tests/story/test_workers.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from firewall.config import Config
from firewall.errors import Mistakes
from firewall.proxy import workers
from firewall.proxy.serve import Firewall


def config(port: int = 0, count: int = 3) -> Config:
    base = Config()
    return replace(base, server=replace(base.server, listen=f"127.0.0.1:{port}", admin="127.0.0.1:0", workers=count))


def test_every_worker_has_a_socket_on_one_port() -> None:
    supervisor = workers.Supervisor(config())
    try:
        ports = {s.getsockname()[1] for s in supervisor.sockets}
        assert len(supervisor.sockets) == 3 and len(ports) == 1
        assert all(s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for s in supervisor.sockets)
        with socket.create_connection(("127.0.0.1", ports.pop()), 1):      # the queue is open before any worker runs
            pass
    finally:
        for sock in supervisor.sockets:
            sock.close()


def test_l16_a_busy_port_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Mistakes, match="server.listen: cannot listen"):
            workers.Supervisor(config(taken.getsockname()[1]))


def test_workers_share_one_salt() -> None:
    """Else a tenant would have another name, and another memory, in each worker."""
    supervisor = workers.Supervisor(config(count=1))
    assert len(supervisor.salt) == 16
    for sock in supervisor.sockets:
        sock.close()


def test_counts_of_ended_workers_are_kept_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rolling restarts end workers for as long as the firewall runs: their files must not pile up, nor a count be lost."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    supervisor = workers.Supervisor(config(count=1))

    def merged() -> dict[tuple[str, str], float]:
        found = MultiProcessCollector(None, str(tmp_path)).collect()
        return {(s.name, "".join(s.labels.values())): s.value for m in found for s in m.samples}

    for pid in range(1, 6):
        for kind, names in (("counter", ("c_total",)), ("histogram", ("h_bucket", "h_sum")), ("gauge_livesum", ("g",))):
            file = MmapedDict(str(tmp_path / f"{kind}_{pid}.db"))
            for name in names:
                for label in ("a", str(pid)):
                    labels = ("k", "le") if name == "h_bucket" else ("k",)
                    file.write_value(mmap_key(name.partition("_")[0], name, labels, (label, "1.0"), "help"), pid, 0.0)
            file.close()
    before = merged()
    assert before["c_total", "a"] == 15 == before["h_sum", "a"] and before["c_total", "3"] == 3
    (tmp_path / "counter_5.db").write_bytes(b"\xff\xff\xff\x7f")        # it died as it wrote
    for pid in range(1, 6):
        supervisor._forget(SimpleNamespace(pid=pid))            # type: ignore[arg-type]
    assert len(list(tmp_path.glob("*.db"))) == 2
    after = merged()
    assert after["c_total", "a"] == 10 and after["c_total", "3"] == 3
    assert {k: v for k, v in after.items() if k[0][0] == "h"} == {k: v for k, v in before.items() if k[0][0] == "h"}
    supervisor.sockets[0].close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
async def test_a_v6_address_is_v6_only_and_its_url_has_brackets(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("- a rule\n")
    base = config()
    base = replace(base, server=replace(base.server, listen="[::1]:0", workers=1),
                   guard=replace(base.guard, kind="scripted"), records=replace(base.records, file="/dev/null"),
                   policies=replace(base.policies, folder=str(tmp_path)))
    async with Firewall(base) as firewall:
        assert firewall.url == f"http://[::1]:{firewall.server.port}"
    sock = workers._listener("::", 0)
    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    sock.close()


SUPERVISED = """
import os, signal, sys, time
from dataclasses import replace
from firewall.config import Config
from firewall.proxy import workers

def serve_one(config, worker, sock, salt, ready, kept):
    with open(sys.argv[1], "a") as file:
        print(worker, os.getpid(), file=file)
    start = [line.split()[0] for line in open(sys.argv[1])].count(str(worker))
    def serve():
        sock.setblocking(True)
        sock.listen()
        os.write(ready, b"1")
        while True:
            sock.accept()[0].sendall(b"%d" % worker)
    {act}

workers.serve_one, workers.RETRY = serve_one, 0.5
base = Config()
server = replace(base.server, listen="127.0.0.1:" + sys.argv[2], admin="127.0.0.1:0", workers=2)
sys.exit(workers.Supervisor(replace(base, server=server)).run())
"""


class Supervised:
    """A supervisor in a process of its own, over workers that do what a line says and write down when they start."""

    def __init__(self, act: str, starts: Path) -> None:
        self._starts = starts
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        code = SUPERVISED.replace("{act}", act)
        self.process = subprocess.Popen([sys.executable, "-c", code, str(starts), str(self.port)],
                                        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})

    def starts(self, number: int) -> list[int]:
        """Process ids of the workers of one number."""
        lines = self._starts.read_text().splitlines() if self._starts.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == str(number)]

    def answered(self) -> set[bytes]:
        """Which workers answer twenty connections."""
        told = set()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", self.port), 5) as one:
                told.add(one.recv(1))
        return told

    def ended(self) -> tuple[int, int]:
        """What it comes back with once asked to end, and how often it said that a worker was down."""
        self.process.terminate()
        said = self.process.communicate(timeout=20)[1]
        return self.process.returncode, said.count('"event":"worker_down"')

    def until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + 20
        while not true():
            assert time.monotonic() < end and self.process.poll() is None
            time.sleep(0.02)


def test_a_first_worker_that_does_not_serve_ends_it_all(tmp_path: Path) -> None:
    it = Supervised("time.sleep(0.1)", tmp_path / "starts")
    said = it.process.communicate(timeout=20)[1]
    assert (it.process.returncode, len(it.starts(0)), len(it.starts(1))) == (2, 1, 0)
    assert "worker 0 does not start" in said


def test_who_serves_is_not_ended_by_a_worker_that_is_killed_while_it_loads(tmp_path: Path) -> None:
    """As memory runs out: it is started again, with back-off, and gets no connections meanwhile."""
    it = Supervised("serve() if worker == 0 or start == 3 else time.sleep(0.1)", tmp_path / "starts")
    it.until(lambda: len(it.starts(1)) >= 2)
    it.until(lambda: len(it.starts(1)) == 3)
    it.until(lambda: it.answered() == {b"0", b"1"})
    assert len(it.starts(0)) == 1
    assert it.ended() == (0, 2)


def test_who_serves_is_not_ended_because_another_does_not_start(tmp_path: Path) -> None:
    """And gets all connections, until it does."""
    it = Supervised("serve() if worker == 0 or start in (1, 7) else time.sleep(0.1)", tmp_path / "starts")
    it.until(lambda: it.starts(1))
    it.until(lambda: it.answered() == {b"0", b"1"})
    os.kill(it.starts(1)[0], signal.SIGKILL)
    it.until(lambda: len(it.starts(1)) >= 3)
    assert it.answered() == {b"0"} or len(it.starts(1)) == 7
    it.until(lambda: len(it.starts(1)) == 7)
    it.until(lambda: it.answered() == {b"0", b"1"})
    assert len(it.starts(0)) == 1
    assert it.ended() == (0, 5)


def test_three_starts_that_come_to_nothing_end_it_all_where_nobody_serves(tmp_path: Path) -> None:
    """Each may take minutes: deaths in ten seconds are not counted in vain."""
    it = Supervised("serve() if start == 1 else time.sleep(0.1)", tmp_path / "starts")
    it.until(lambda: it.starts(1))
    it.until(lambda: it.answered() == {b"0", b"1"})
    for number in (0, 1):
        os.kill(it.starts(number)[0], signal.SIGKILL)
    said = it.process.communicate(timeout=20)[1]
    assert it.process.returncode == 1 and "does not start; giving up" in said
    assert max(len(it.starts(0)), len(it.starts(1))) >= 4


def test_a_roll_that_fails_has_the_old_worker_reopen_its_files(tmp_path: Path) -> None:
    """What SIGHUP asks for besides: after logrotate's gzip nothing may be written to the moved file."""
    act = 'signal.signal(signal.SIGHUP, lambda *_: open(sys.argv[1] + str(worker), "w").close()); start == 1 and serve()'
    it = Supervised(act, tmp_path / "starts")
    it.until(lambda: it.starts(1))
    it.until(lambda: it.answered() == {b"0", b"1"})
    it.process.send_signal(signal.SIGHUP)
    it.until(lambda: len(list(tmp_path.glob("starts[01]"))) == 2)
    assert it.answered() == {b"0", b"1"}
    it.process.terminate()
    assert it.process.communicate(timeout=20)[1].count('"event":"roll_failed"') == 2 and it.process.returncode == 0


def test_a_death_while_another_worker_loads_is_seen(tmp_path: Path) -> None:
    """A rolling restart of workers that take minutes to load, and one that dies at that time."""
    it = Supervised("serve() if worker == 1 or start != 2 else time.sleep(60)", tmp_path / "starts")
    it.until(lambda: it.starts(1))
    time.sleep(0.5)
    it.process.send_signal(signal.SIGHUP)
    it.until(lambda: len(it.starts(0)) == 2)
    os.kill(it.starts(1)[0], signal.SIGKILL)
    it.until(lambda: len(it.starts(1)) == 2)
    os.kill(it.starts(0)[1], signal.SIGKILL)        # the new one fails: the old one stays, and the restart goes on
    it.until(lambda: len(it.starts(1)) == 3)
    assert len(it.starts(0)) == 2
    it.process.terminate()
    assert '"exit":-9,"event":"worker_died"' in it.process.communicate(timeout=20)[1].replace(" ", "")
    assert it.process.returncode == 0
