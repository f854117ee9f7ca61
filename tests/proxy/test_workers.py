"""The supervisor's own rules; its life with real processes is told in tests/story/test_workers.py."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from firewall.config import Config
from firewall.errors import Mistakes
from firewall.proxy import workers


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
