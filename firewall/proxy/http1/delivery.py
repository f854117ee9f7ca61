"""Answer bytes that wait for their client: what they count for, and how long they may wait.

While bytes wait the client must take some in each `write_stall`. When its reply has ended and more than `high_water` is
left, nothing holds the upstream back any more and the rest is here: it keeps its place in flight, and stays in the body
budget together with its request, until it was taken. It leaves at `body_min_rate` on the average, or the client is cut:
a place must not be had for a byte every few seconds. (The first two windows are free: a kernel takes in large steps.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import kernel

if TYPE_CHECKING:
    from .connection import Connection

NEVER = float("inf")


def owe(connection: Connection) -> None:
    """A reply has ended above the high-water mark."""
    unsent = max(1, connection.transport.get_write_buffer_size())
    connection.server.held += unsent
    connection.owed, connection.held = connection.held + unsent, 0
    connection.owed_since = connection.server.now, kernel.taken(connection.transport)


def paid(connection: Connection) -> None:
    """It was taken, or nobody is there any more."""
    if connection.owed:
        connection.server.held -= connection.owed
        connection.server.in_flight -= 1
        connection.owed = 0


def late(connection: Connection, now: float, resting: float) -> bool | None:
    """Compares the clocks of what may wait; behind TLS a moment's emptiness of the kernel does not tell. True: the
    client takes too little. None: something may still wait in a state of rest, whose own clock (`resting` seconds; 0 in
    other states) has not begun."""
    transport, server = connection.transport, connection.server
    limits = server.limits
    taken = kernel.taken(transport)
    empty = not (connection.paused or transport.get_write_buffer_size() or kernel.unacked(transport))
    if resting and not empty:
        connection.deadline = server.now + resting
    if empty and taken == connection.taken:
        connection.stall = NEVER  # twice empty, and nothing moved in between
    elif empty or connection.stall < now:
        if taken <= connection.taken:
            return True
        connection.stall, connection.taken = server.now + limits.write_stall, taken
    if connection.owed:
        since, before = connection.owed_since
        lasted = now - since - 2 * limits.write_stall
        if lasted > 0 and taken - before < limits.body_min_rate * lasted:
            return True
    return None if resting and connection.stall < NEVER else False
