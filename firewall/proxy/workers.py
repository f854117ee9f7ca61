"""`--workers N`: one process a core, supervised by a parent that serves nothing itself.

The parent opens one SO_REUSEPORT socket a worker and keeps it: a worker that dies or is replaced leaves its accept queue
to its successor, so that no connection is refused. SIGHUP is a rolling restart (new worker up and ready, then the old
one drains, told by SIGUSR1 that it was replaced), SIGTERM or Ctrl-C drains all, each worker told once; a second signal is
passed on, and each ends now, with a record of what it had in flight. A parent that is killed takes its workers along.

A worker that dies is started again, and begins with the last good policies where an edit is broken (`source`). Its socket
takes connections meanwhile, which nobody answers: after a start that came to nothing it is closed, so that the others get
them all, and more starts follow with back-off. Nobody who serves is ended because another cannot: only where nobody serves,
five deaths in ten seconds, three starts that came to nothing, whatever they took, or the very first one end it all. The
parent waits for nobody: while a worker loads, another that dies is started again.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import multiprocessing
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path

import structlog

from firewall.config import Config, address
from firewall.errors import FirewallError, Mistakes
from firewall.process import die_with_parent, refused
from firewall.proxy.records import configure_logging

FORK = multiprocessing.get_context("fork")
RETRY = 30.0            # most seconds between two starts of a worker that does not come up
GRACE = 3.0             # seconds after a second signal until what still runs is killed


def serve_one(config: Config, worker: int = 0, sock: socket.socket | None = None, salt: bytes | None = None,
              ready: int = -1, kept: Path | None = None) -> int:
    """Runs one worker in this process. Exit status 2 and every mistake on standard error when it cannot serve."""
    import uvloop

    from firewall.proxy.serve import run
    configure_logging()

    gc.set_threshold(20_000, 50, 50)        # what an exchange makes dies by reference counts

    def started(_: object) -> None:
        gc.collect()
        gc.freeze()
        if ready >= 0:
            os.write(ready, b"1")

    try:
        return uvloop.run(run(config, worker=worker, sock=sock, salt=salt, kept=kept, started=started))
    except Mistakes as e:
        print("firewall: cannot serve:", *e.lines, sep="\n  ", file=sys.stderr)
    except FirewallError as e:
        print(f"firewall: cannot serve: {e.detail}", file=sys.stderr)
    except OSError as e:
        return refused("firewall: cannot serve", e)
    return 2


class Supervisor:
    """Keeps N workers alive. `run` returns the exit status."""

    def __init__(self, config: Config) -> None:
        self.config, self.pid = config, os.getpid()
        self.salt = os.urandom(16)
        host, port = address(config.server.listen)
        self.sockets: list[socket.socket] = []
        for name, place in (("listen", config.server.listen), ("admin", config.server.admin)):
            try:
                _listener(*address(place), shared=False).close()    # two firewalls would share the port unnoticed
                for _ in range(config.server.workers if name == "listen" else 0):
                    self.sockets.append(_listener(host, port))
                    port = self.sockets[0].getsockname()[1]
            except OSError as e:
                raise Mistakes([f"server.{name}: cannot listen on {place}: {e.strerror}"]) from None
        self.place = host, port
        self.workers: dict[int, BaseProcess] = {}               # the last of each number that served
        self.coming: dict[int, tuple[BaseProcess, int]] = {}    # started and not yet serving, and the pipe where it says so
        self.old: list[BaseProcess] = []                        # replaced, draining
        self.rolls: list[int] = []                              # numbers that a rolling restart has not come to
        self.failed: dict[int, int] = {}                        # starts in a row that came to nothing
        self.again: dict[int, float] = {}                       # without a worker: when the next start is due
        self.deaths: list[float] = []
        self.told: set[int] = set()             # workers that were asked to end
        self.stopping = self.rolling = False
        self.hurried = 0.0                      # when a second signal came

    def run(self) -> int:
        configure_logging()
        folder = tempfile.mkdtemp(prefix="firewall-metrics-")
        self.kept = Path(folder, "policies")
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._roll)
        try:
            self._start(0)      # alone: what keeps one from serving keeps all, and is said once
            return self._watch()
        finally:
            for process in self._all():
                if process.is_alive():
                    process.terminate()
            shutil.rmtree(folder, ignore_errors=True)

    def _all(self) -> tuple[BaseProcess, ...]:
        return (*self.workers.values(), *(process for process, _ in self.coming.values()), *self.old)

    def _watch(self) -> int:
        while True:
            time.sleep(0.1)
            if self.stopping:
                return self._ended()
            for number in list(self.coming):
                if status := self._came(number):
                    return status
            now = time.monotonic()
            for number, process in self.workers.items():
                if not process.is_alive() and number not in self.again:
                    structlog.get_logger().error("worker_died", worker=number, exit=process.exitcode)
                    self._forget(process)
                    self.deaths = [t for t in self.deaths if now - t < 10] + [now]
                    self.again[number] = now + 0.2 * len(self.deaths)
                    if len(self.deaths) >= 5 and not self._serving():
                        print("firewall: workers keep dying; giving up", file=sys.stderr)
                        return 1
            for number in [n for n, due in self.again.items() if now >= due and n not in self.coming]:
                self._start(number)
            for process in [p for p in self.old if not p.is_alive()]:
                self._forget(process)
                self.old.remove(process)
            if self.rolling:
                self.rolling, self.rolls = False, list(range(len(self.sockets)))
            if missing := set(range(len(self.sockets))) - self.workers.keys() - self.coming.keys() - self.again.keys():
                for number in missing if self.workers else ():
                    self._start(number)
            elif self.rolls and not self.coming:
                self._start(self.rolls.pop(0))

    def _serving(self) -> bool:
        return any([process.is_alive() for process in self.workers.values()])

    def _ended(self) -> int:
        """Waits for all to end. 1 when one did not drain; who was told before it served just ended."""
        self._end(self._all(), signal.SIGTERM)      # one may have come up meanwhile
        while any([process.is_alive() for process in self._all()]):
            if self.hurried and time.monotonic() - self.hurried > GRACE:
                for process in self._all():
                    process.kill()
            time.sleep(0.05)
        return int(any(p.exitcode not in (0, -signal.SIGTERM) for p in self._all() if p.pid in self.told))

    def _start(self, number: int) -> None:
        """Forks a worker. It counts when it says that it serves."""
        if self.sockets[number].fileno() < 0:
            try:
                self.sockets[number] = _listener(*self.place, ready=False)
            except OSError:
                self.again[number] = time.monotonic() + RETRY
                return
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        process = FORK.Process(target=self._child, args=(number, writing), name=f"firewall-{number}")
        process.start()
        os.close(writing)
        self.coming[number] = process, reading

    def _came(self, number: int) -> int:
        """Looks whether a worker that was started serves now, in place of the one before it, or ended. The exit status
        of it all when it is not worth another start."""
        process, pipe = self.coming[number]
        try:
            serves = bool(os.read(pipe, 1))
        except BlockingIOError:
            serves = False
        if not serves and process.is_alive():
            return 0
        os.close(pipe)
        del self.coming[number]
        before = self.workers.get(number)
        if serves:
            self.workers[number], self.failed[number] = process, 0
            self.again.pop(number, None)
            if before is not None:
                self.old.append(before)
                self._end([before], signal.SIGUSR1)
            return 0
        self._forget(process)
        if self.stopping:
            return 0
        log = structlog.get_logger()
        if before is not None and before.is_alive():        # it stays where a new one could not serve, and does what it can
            log.error("roll_failed", worker=number)
            os.kill(before.pid or 0, signal.SIGHUP)
            return 0
        self.failed[number] = failed = self.failed.get(number, 0) + 1
        if self._serving() or (before is not None and (failed < 3 or any([self.failed.get(n, 0) < 3 for n in self.coming]))):
            self.again[number] = time.monotonic() + min(2.0 ** failed, RETRY)
            if self._serving():
                log.error("worker_down", worker=number, starts=failed)
                with contextlib.suppress(OSError):
                    self.sockets[number].shutdown(socket.SHUT_RD)       # closing is not enough: other workers hold it too
                self.sockets[number].close()
            return 0
        print(f"firewall: worker {number} does not start; giving up", file=sys.stderr)
        return 1 if before is not None else 2

    def _child(self, number: int, ready: int) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)        # until there is something to read again
        signal.signal(signal.SIGINT, signal.SIG_IGN)        # a terminal's Ctrl-C reaches all: the parent tells us
        die_with_parent()
        if os.getppid() != self.pid:                        # it went before we asked
            sys.exit(1)
        sys.exit(serve_one(self.config, number, self.sockets[number], self.salt, ready, self.kept))

    def _stop(self, *_: object) -> None:
        if self.stopping and not self.hurried:
            self.hurried = time.monotonic()
            self.told.clear()
        self.stopping = True
        self._end(self._all(), signal.SIGTERM)

    def _end(self, processes: Iterable[BaseProcess], how: signal.Signals) -> None:
        """Asks each to drain, once: a worker takes a second signal for `now`."""
        for process in processes:
            if process.pid and process.pid not in self.told and process.is_alive():
                self.told.add(process.pid)
                with contextlib.suppress(ProcessLookupError):       # reaped by what a signal interrupted
                    os.kill(process.pid, how)

    def _forget(self, process: BaseProcess) -> None:
        """A worker that ended has no gauges any more, and its counts join those of the workers that ended before it: else
        every rolling restart would leave files that each scrape reads."""
        if process.pid:
            from prometheus_client import multiprocess  # here: it reads the folder's name when it is imported

            self.told.discard(process.pid)
            multiprocess.mark_process_dead(process.pid)
            with contextlib.suppress(OSError):
                _bury(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]), process.pid)

    def _roll(self, *_: object) -> None:
        self.rolling = True


def _bury(folder: Path, pid: int) -> None:
    """Adds the counters and histograms of one worker to `counter_ended.db` and `histogram_ended.db`. The lock keeps a scrape
    from seeing both or neither (`metrics.page`)."""
    from prometheus_client.mmap_dict import MmapedDict

    with open(folder / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for kind in ("counter", "histogram"):
            own, ended = folder / f"{kind}_{pid}.db", folder / f"{kind}_ended.db"
            try:
                counts = list(MmapedDict.read_all_values_from_file(own))
            except FileNotFoundError:
                continue
            except (RuntimeError, ValueError, struct.error):        # cut short by its death: no scrape can read it either
                counts = []
            if counts and not ended.exists():
                own.rename(ended)
                continue
            sums = MmapedDict(ended)
            for key, value, *_ in counts:
                sums.write_value(key, sums.read_value(key)[0] + value, 0.0)
            sums.close()
            own.unlink()


def _listener(host: str, port: int, shared: bool = True, ready: bool = True) -> socket.socket:
    """`ready`: connections may come, else only when who serves on it listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)     # as an event loop does that opens its own
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
        if ready:
            sock.listen(4096)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
