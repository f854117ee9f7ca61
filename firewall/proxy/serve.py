"""One worker process: loads the house, serves, reloads policies, drains on SIGTERM.

Drain: /readyz turns false, wait for the load balancer, stop accepting, let exchanges in flight finish, end what is
left legally, write the last records, exit 0. A second signal exits at once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
from aiohttp import web

from firewall.config import Config, address
from firewall.errors import Mistakes
from firewall.guards.build import build, check
from firewall.guards.guard import Guard, warm
from firewall.proxy import metrics
from firewall.proxy.admin import application, listen
from firewall.proxy.house import House
from firewall.proxy.http1 import tls
from firewall.proxy.http1.limits import Limits
from firewall.proxy.http1.server import Server
from firewall.proxy.listing import Front
from firewall.proxy.pressure import Pressure
from firewall.proxy.records import Records
from firewall.proxy.source import Source

log = structlog.get_logger()


def server_limits(config: Config) -> Limits:
    c = config.limits
    return Limits(first_byte_timeout=c.first_byte, header_timeout=c.head, idle_timeout=c.idle,
                  body_timeout=c.body_time, body_min_rate=c.body_rate, max_body=c.body, body_budget=c.body_budget,
                  max_connections=c.connections, max_in_flight=c.in_flight)


class Firewall:
    """A running firewall in this event loop: `async with Firewall(config) as f: f.url`.

    Args:
        guard: instead of the configured one (tests, the demo).
        worker: number of this process; worker 0 owns the admin plane.
        sock: an inherited listening socket, else one is opened on `server.listen`.
        kept: where workers leave the last good set of policies for those that come after them.

    Raises:
        Mistakes: on entering, with every reason why it cannot serve.
    """

    def __init__(self, config: Config, guard: Guard | None = None, *, worker: int = 0,
                 sock: socket.socket | None = None, salt: bytes | None = None, admin: bool = True,
                 kept: Path | None = None) -> None:
        self.config, self.worker, self.sock, self.with_admin = config, worker, sock, admin
        source = Source(config.policy_folder, config.policies.enable, config.policies.disable, check, config.stream.release,
                        kept)
        self.house = House(config, guard or build(config, source.current), source,
                           Records(config.records.file, worker), salt)
        self.app = Front(self.house)
        s = config.server
        ssl = tls.server(s.certificate, s.private_key) if s.certificate else None
        self.server = Server(self.app, server_limits(config), ssl)
        self.pressure = Pressure(self.server, config.limits.memory)
        self.admin: web.AppRunner | None = None
        self.admin_listener: asyncio.Server | None = None
        self.admin_port = 0
        self.loops: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        host, _ = address(self.config.server.listen)
        host = f"[{host}]" if ":" in host else host
        return f"http{'s' if self.config.server.certificate else ''}://{host}:{self.server.port}"

    async def __aenter__(self) -> Firewall:
        guard, source = self.house.guard, self.house.source
        await guard.start()
        source.warm = partial(warm, guard)
        await asyncio.to_thread(source.warm, source.current)
        host, port = address(self.config.server.listen)
        try:
            await self.server.start(host, port, reuse_port=self.config.server.workers > 1, sock=self.sock)
            if self.with_admin:
                admin_host, admin_port = address(self.config.server.admin)
                self.admin = web.AppRunner(application(self.house), access_log=None)
                await self.admin.setup()
                self.admin_listener = await listen(self.admin, admin_host, admin_port, self.config.server.workers > 1)
                self.admin_port = self.admin_listener.sockets[0].getsockname()[1]
        except OSError as e:
            await self.close()
            raise Mistakes([f"server: cannot listen on {self.config.server.listen} or {self.config.server.admin}: "
                            f"{e.strerror or e}"]) from None
        self.loops += [asyncio.create_task(self._watch()), asyncio.create_task(self._lag())]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def drain(self, wait: float | None = None, timeout: float | None = None, replaced: bool = False) -> None:
        """Not ready, wait, stop accepting, finish what is in flight. `replaced`: another worker serves already, and it
        alone shall say how the firewall stands."""
        s = self.config.server
        self.house.draining = "draining"
        self.house.gauge()
        if replaced and self.admin_listener is not None:
            self.admin_listener.close()
        await asyncio.sleep(s.drain_wait if wait is None else wait)
        self.server.stop_accepting()
        await self.server.drain(s.drain_timeout if timeout is None else timeout)
        if self.app.in_flight:      # out of time: each ends legally and is recorded
            await self.app.stop()
            await self.server.drain(1.0)

    async def close(self) -> None:
        for task in self.loops:
            task.cancel()
        await self.app.stop()
        self.server.close()
        if self.admin_listener is not None:
            self.admin_listener.close()
        if self.admin is not None:
            await self.admin.cleanup()
        await self.house.close()

    def hang_up(self) -> None:
        """SIGHUP: policies are read again, and records go on in a new file when theirs was moved (logrotate)."""
        self.house.ledger.flush()
        self.house.records.reopen()
        self.loops = [t for t in self.loops if not t.done()] + [asyncio.create_task(self._refresh(force=True))]

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.config.policies.reload)
            await self._refresh()

    async def _refresh(self, force: bool = False) -> None:
        """Off the loop: a new set may take a second to prepare."""
        try:
            await asyncio.to_thread(self.house.source.refresh, force)
        except Exception as e:      # whatever lies in that folder, the last good set stays and we look again
            log.error("policies_unreadable", where=type(e).__name__)

    async def _lag(self) -> None:
        """The worst lag of the last ten seconds, sampled four times a second, and memory at the same time."""
        seen = [0.0] * 40
        at = 0
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.25)
            seen[at] = max(0.0, time.perf_counter() - began - 0.25)
            at = (at + 1) % len(seen)
            metrics.LAG.set(max(seen))
            if at % 4 == 0:
                self.house.mend()
            self.pressure.look()
            self.house.short = "short of memory: new requests are refused" if self.server.shedding else ""
            self.house.gauge()


async def run(config: Config, guard: Guard | None = None, *, worker: int = 0, sock: socket.socket | None = None,
              salt: bytes | None = None, kept: Path | None = None,
              started: Callable[[Firewall], None] = lambda _: None) -> int:
    """Serves until a signal. Returns the exit status."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals, replaced = 0, False

    def asked(by: int) -> None:
        nonlocal signals, replaced
        signals += 1
        replaced = by == signal.SIGUSR1
        stop.set()
        if signals > 1:
            log.warning("second_signal", action="exit now")
            loop.stop()
            sys.exit(1)

    # a worker (with a socket from its parent) leaves Ctrl-C to the parent, which tells it once
    for name in (signal.SIGTERM, signal.SIGUSR1 if sock else signal.SIGINT):
        loop.add_signal_handler(name, asked, name)
    firewall: Firewall
    loop.add_signal_handler(signal.SIGHUP, lambda: firewall.hang_up())      # what comes while it is made is heard after
    firewall = Firewall(config, guard, worker=worker, sock=sock, salt=salt, kept=kept)
    async with firewall:
        log.info("serving", url=firewall.url, config=config.source, admin=f"port {firewall.admin_port}", worker=worker,
                 policies=len(firewall.house.policies), digest=firewall.house.policies.digest,
                 guard=firewall.house.guard.name, release=config.stream.release)
        started(firewall)
        await stop.wait()
        log.info("draining", worker=worker, in_flight=firewall.app.in_flight)
        await firewall.drain(replaced=replaced)
    log.info("stopped", worker=worker)
    return 0
