"""The active policies: hot reload, last good set kept.

A set is swapped by one assignment: an exchange keeps the set it was admitted with. A broken edit changes nothing but
`stale`, which /readyz and a metric show. Files are read again when they look different, and while `stale` also every
half minute: what was in the way (no descriptor left, a network file system) may leave no trace in them. A file that was
touched a moment ago may still be half written, and half a policy can be a policy: it is read when it has rested.

The last good set outlives a worker: workers leave it in a file that their supervisor owns, and one that is started while an
edit is broken begins with it, stale.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from firewall.errors import Mistakes
from firewall.folder import asks
from firewall.policy import PolicySet, load

REST = 100_000_000      # nanoseconds without a write after which a file counts as written
AGAIN = 30.0            # seconds until a stale folder that looks the same is read again: reading costs half a second of CPU


class Source:
    """A folder and the last good set read from it.

    Args:
        check: raises `Mistakes` when a guard cannot work with a set (an unknown detector, say).
        release: see `load`.
        kept: the file that keeps the last good set for other workers; only this user may write it.

    Raises:
        Mistakes: on construction, when the first read fails and nothing was kept.
    """

    def __init__(self, folder: Path, enable: tuple[str, ...] = (), disable: tuple[str, ...] = (),
                 check: Callable[[PolicySet], None] = lambda _: None, release: str = "",
                 kept: Path | None = None) -> None:
        self.folder, self.enable, self.disable, self.check, self.release = folder, enable, disable, check, release
        self.kept = kept
        self.warm: Callable[[PolicySet], None] = lambda _: None     # a guard's preparation for a new set, before it counts
        self.stale: tuple[str, ...] = ()
        self.reloads = {"ok": 0, "failed": 0}
        self._lock = threading.Lock()
        self._seen, self._tried = self._look(), 0.0
        try:
            self.current = self._read()
        except Exception as e:
            if (last := self._last()) is None:
                raise
            self.current = last
            self._failed(e, told=False)
        else:
            self._keep()

    def refresh(self, force: bool = False) -> bool:
        """Reads again when a file changed. True when a new set took effect. Any thread may call it."""
        with self._lock:
            return self._refresh(force)

    def _refresh(self, force: bool) -> bool:
        seen = self._look()
        if seen == self._seen and not force and not (self.stale and time.monotonic() - self._tried >= AGAIN):
            return False
        now = time.time_ns()
        if not force and any(0 <= now - touched < REST for _, touched, *_ in seen):
            return False
        self._seen, self._tried = seen, time.monotonic()
        try:
            fresh = self._read()
            changed = fresh.digest != self.current.digest
            if changed:
                self.warm(fresh)
        except Exception as e:      # whatever lies in that folder
            self._failed(e, told=not force)
            return False
        self.stale = ()
        self.reloads["ok"] += 1
        self.current = fresh
        self._keep()
        structlog.get_logger().info("policies_loaded", digest=fresh.digest, policies=len(fresh))
        return changed

    def _failed(self, error: Exception, told: bool) -> None:
        """`told`: once is enough for the same mistakes."""
        wrong = tuple(error.lines) if isinstance(error, Mistakes) else (
            f"{self.folder}: cannot be read ({type(error).__name__})",)
        if wrong != self.stale or not told:
            self.reloads["failed"] += 1
            structlog.get_logger().error("policies_stale", kept=self.current.digest, mistakes=wrong)
        self.stale = wrong

    def _keep(self) -> None:
        if self.kept is not None:
            part = self.kept.with_name(f"{self.kept.name}.{os.getpid()}")
            with contextlib.suppress(OSError):      # no room: the one kept before serves as well
                part.write_bytes(pickle.dumps(self.current.policies))
                part.replace(self.kept)

    def _last(self) -> PolicySet | None:
        if self.kept is None or not self.kept.exists():
            return None
        return PolicySet(pickle.loads(self.kept.read_bytes()))

    def _read(self) -> PolicySet:
        fresh = load(self.folder, self.enable, self.disable, self.release)
        self.check(fresh)
        return fresh

    def _look(self) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
        """What a folder holds that is read or refused: with the files' numbers, for two that a link chose between may be as
        old and as long, with the time of their last change, for a mode or an owner changes no content, and with what has a
        name only."""
        out: list[tuple[str, int, tuple[int, ...]]] = []
        try:
            found = list(filter(asks, self.folder.iterdir()))
        except OSError as e:
            return (("", 0, (e.errno or 0,)),)
        for path in found:
            try:
                stat = path.stat()
            except OSError as e:
                out.append((path.name, 0, (e.errno or 0,)))
                continue
            out.append((path.name, stat.st_mtime_ns, (stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_dev)))
        return tuple(sorted(out))
