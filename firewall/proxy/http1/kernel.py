"""What the kernel knows about a TCP connection and no transport tells: what the other side has acknowledged, and what
it has sent that nobody has read yet.

A transport counts what it still holds itself. Behind TLS that is not even all of what waits in this process (the plain
transport below holds the rest, out of sight), and the kernel says "taken" for what lies in its own buffer.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import sys
import termios

_ACKED_AT = 120  # struct tcp_info: u64 tcpi_bytes_acked (linux/tcp.h, since 4.1)


def acked(transport: asyncio.Transport) -> int | None:
    """Bytes the peer's kernel acknowledged so far, the handshake counting as one; None where nobody can tell."""
    try:
        info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        (count,) = struct.unpack_from("=Q", info, _ACKED_AT)
    except (OSError, AttributeError, struct.error):  # closed, not Linux, an old Linux
        return None
    return int(count)


def taken(transport: asyncio.Transport) -> int:
    """A number that grows whenever the client takes bytes, while none are written."""
    count = acked(transport)
    return -transport.get_write_buffer_size() if count is None else count


def ear(transport: asyncio.Transport) -> select.poll:
    """`ear(...).poll(0)` is empty while the other side has neither sent nor ended anything that was not read."""
    heard = select.poll()
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        heard.register(sock.fileno(), select.POLLIN)
    return heard


def unacked(transport: asyncio.Transport) -> int:
    """Bytes the kernel holds that its peer has not acknowledged (SIOCOUTQ); 0 where nobody can tell."""
    try:
        count = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, AttributeError, ValueError):
        return 0
    return int.from_bytes(count, sys.byteorder)
