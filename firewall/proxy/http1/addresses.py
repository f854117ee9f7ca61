"""Where an origin's name leads: one lookup at a time, kept for some seconds, and for longer while the next one fails.

Not the loop's resolver: that shares four threads among all names, and a lookup whose call gave up goes on in them. One
upstream whose nameserver is silent (ten seconds a lookup) would take every other one along. Here a pool that asks has a
thread of its own, and all its calls wait for the same answer.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress

from aiohappyeyeballs import AddrInfoType

FRESH = 10.0        # seconds that an answer is used without asking again
PATIENCE = 1.0      # seconds that a new lookup is waited for where an older answer could serve


class Addresses:
    """The addresses of one host and port. Use on one event loop. A literal address is never looked up."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._found: list[AddrInfoType] = []
        self._until = float("-inf")
        self._asked: asyncio.Future[list[AddrInfoType]] | None = None
        self._begun = 0.0
        with suppress(OSError, UnicodeError):
            self._found = self._look(socket.AI_NUMERICHOST)
            self._until = float("inf")

    async def get(self) -> list[AddrInfoType]:
        """At least one, in the system's order of preference.

        Raises:
            OSError, UnicodeError: there is none, and there never was.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now < self._until:
            return self._found
        if self._asked is None:
            self._asked, self._begun = loop.create_future(), now
            threading.Thread(target=self._ask, args=(loop, self._asked), daemon=True).start()
        if not self._found:
            return await asyncio.shield(self._asked)
        await asyncio.wait((self._asked,), timeout=max(0.0, self._begun + PATIENCE - now))
        return self._found

    def _look(self, flags: int = 0) -> list[AddrInfoType]:
        return list(socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=flags))

    def _ask(self, loop: asyncio.AbstractEventLoop, asked: asyncio.Future[list[AddrInfoType]]) -> None:
        found: list[AddrInfoType] | Exception
        try:
            found = self._look()
        except Exception as error:
            found = error
        with suppress(RuntimeError):        # the loop has ended
            loop.call_soon_threadsafe(self._answered, asked, found)

    def _answered(self, asked: asyncio.Future[list[AddrInfoType]], found: list[AddrInfoType] | Exception) -> None:
        self._asked = None
        if isinstance(found, Exception):
            asked.set_exception(found)
            asked.exception()               # seen: perhaps nobody waits any more
        else:
            self._found, self._until = found, asyncio.get_running_loop().time() + FRESH
            asked.set_result(found)
