"""Every number of the data plane in two frozen records, with the reason beside it (reference/cases.md, R1-R7, R13).

All times are seconds, all sizes bytes, 0 means "no limit" only where it says so.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

RESERVE = 64  # file descriptors kept for upstreams, audit files and the admin plane (R13)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one `Server`. Deadlines are enforced by one sweep per server, never later than they say
    and at most two sweep periods (half a second) early."""

    first_byte_timeout: float = 10.0   # connection opened -> first byte of the first request
    header_timeout: float = 10.0       # first byte of a head -> its last byte (slowloris)
    idle_timeout: float = 75.0         # the client has the answer -> first byte of the next request
    body_timeout: float = 60.0         # head complete -> body complete
    body_min_rate: float = 1024.0      # bytes a second a body must average once `body_grace` has passed; and what is left
    #                                    of an answer (delivery.py)
    body_grace: float = 10.0
    max_line: int = 8192               # request line (414) and each header line (431), without its CRLF
    max_head: int = 32768              # request line and all headers with their CRLFs (431)
    max_headers: int = 100             # (431)
    max_body: int = 16 * 1024 * 1024   # decoded from chunked, not decompressed (413); `Request.limit` may lower it
    max_chunks: int = 65536            # chunks of one body, and see chunked.FREE: tiny ones are an attack on the CPU (400)
    max_trailer: int = 8192            # all trailers of a chunked body, dropped anyway (431)
    max_connections: int = 0           # 0: 45 % of RLIMIT_NOFILE minus the reserve
    max_in_flight: int = 0             # requests whose answers were not taken, over all connections; 0: no cap (503)
    body_budget: int = 256 * 1024 * 1024  # bodies > 16 KiB of those, and what is left of their answers (503)
    high_water: int = 65536            # unsent answer bytes above which `Reply.writable` is False
    low_water: int = 16384             # ... and below which `on_writable` is called
    read_ahead: int = 65536            # pipelined bytes kept while a request is in progress, then reading pauses (and see
    #                                    connection.py: half a second later they are dropped, `max_body` of them at most)
    write_stall: float = 30.0          # answer bytes wait and the client takes not one in such a window: gone (1-2 windows)
    linger: float = 2.0                # after a refusal has arrived: read and drop so that the client sees it, not a reset
    tick: float = 0.25                 # sweep period; shortened to a quarter of the shortest deadline

    def __post_init__(self) -> None:
        if not 0 < self.max_line <= self.max_head:
            raise ValueError("limits: max_line must lie between 1 and max_head")
        if not 0 <= self.low_water < self.high_water:
            raise ValueError("limits: low_water must be below high_water")

    @property
    def period(self) -> float:
        """The sweep period in use."""
        times = (self.first_byte_timeout, self.header_timeout, self.idle_timeout, self.body_timeout,
                 self.body_grace, self.write_stall, self.linger)
        return max(0.01, min(self.tick, min(times) / 4))

    @property
    def connections(self) -> int:
        """The connection cap in use."""
        if self.max_connections > 0:
            return self.max_connections
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            soft = 1 << 20
        return max(8, int(soft * 0.45) - RESERVE)


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """Limits of one `Pool`. Times are enforced by one sweep per pool (a quarter second, or a quarter of the
    shortest time). `idle_timeout` does not run while the caller holds the answer paused."""

    connect_timeout: float = 5.0       # name resolution, TCP (every address) and TLS together, per attempt (504)
    head_timeout: float = 600.0        # request sent -> last byte of the answer's head (504)
    idle_timeout: float = 120.0        # no byte of the body for so long (504)
    total: float = 3600.0              # whole call (504); 0: no limit
    max_line: int = 65536              # one header line of an answer: vendors send long ones
    max_head: int = 131072
    max_headers: int = 256
    max_interim: int = 8               # 1xx answers skipped before the real one
    max_connections: int = 0           # open at once; 0: no limit. Beyond it calls wait, `connect_timeout` long
    keepalive: float = 30.0            # an idle connection older than this is closed, not reused
    max_idle: int = 100                # idle connections kept
    tick: float = 0.25

    @property
    def period(self) -> float:
        """The sweep period in use."""
        return max(0.01, min(self.tick, min(self.connect_timeout, self.head_timeout, self.idle_timeout,
                                            self.keepalive) / 4))
