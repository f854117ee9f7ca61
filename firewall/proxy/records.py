"""Where records go: one structlog JSON event per exchange, chained by hash.

Each line carries `chain` = SHA-256(previous chain + the line without it), so that a cut, edited or swapped line of a
kept file shows. A file that cannot be written refuses new exchanges (`audit_unavailable`) until it can.

A file has one writer, kept by a lock: worker 1 writes to `NAME-w1`, and during a rolling restart the new worker to
`NAME-next` while the old one ends its exchanges in NAME (names that a rotation does not use). Standard output may have
several writers, workers and earlier starts: there each line says `by` whom, and each writer has a chain of its own.

Rotation is the operator's (logrotate with `create`, then SIGHUP; not `copytruncate`): `reopen` ends the moved file with
`records_ended` and begins the new one with `records_begun`, whose `after` is the chain value of that last line. So a file
cut at its end, or one that was deleted, shows in the next. Where nobody signals it is done all the same, some seconds later.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import logging
import os
import secrets
import stat
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from select import PIPE_BUF
from typing import IO, Any

import orjson
import structlog

from firewall.errors import FirewallError, Mistakes

START = "0" * 64
BLOCK = 1 << 16         # bytes read from the end of a file at first
OWED = 10_000           # records kept in memory while they cannot be written
CHAIN, END = b',"chain":"', b'"}\n'
LINK = len(CHAIN) + len(START) + len(END) - 1       # bytes that a record's line is longer than the record
AWAY = 10               # looks, a second apart, that a file may be away from its place: a rotation signals at its end


class Records:
    """Writes records and knows whether it still can."""

    def __init__(self, file: str, worker: int = 0) -> None:
        self.path = None if file == "-" else beside(Path(file), f"-w{worker}" if worker else "")
        self.file: IO[bytes]
        self._by = b',"by":"%b"' % secrets.token_hex(4).encode() if self.path is None else b""
        self._most = PIPE_BUF
        chain, cut = START, 0
        self._owed: list[bytes] = []
        self._paid = self._lost = self._away = 0
        try:
            if self.path is not None:
                self.file, chain, cut = _open(self.path)
                self._most = 1 << 62 if stat.S_ISREG(os.fstat(self.file.fileno()).st_mode) else PIPE_BUF
            else:                       # past Python's buffer, which would keep the rest of a line that did not fit
                self.file = open(1, "ab", buffering=0, closefd=False)
        except (OSError, Mistakes) as e:
            raise Mistakes([f"records.file: {self.path}: {e}"]) from None
        self._chain = chain.encode()
        self.broken = ""
        if cut:
            self._write([orjson.dumps({"event": "records_recovered", "after": "a half-written line", "bytes": cut})])

    def reopen(self) -> bool:
        """Goes on in a new file when the one in use was moved away or deleted. True when it did. Never raises: where no
        file can be opened the old one is written on."""
        try:
            if self.path is None or _same(self.path, self.file):
                return False
            file, chain, _ = _open(self.path)
        except (OSError, Mistakes) as e:
            structlog.get_logger().error("records_not_reopened", reason=getattr(e, "strerror", "") or type(e).__name__)
            return False
        self.write({"event": "records_ended", "time": round(time.time(), 3)})
        last = self._chain.decode()
        self.close()
        self.file, self._chain = file, chain.encode()
        self.write({"event": "records_begun", "time": round(time.time(), 3), "after": last})
        return True

    def mend(self) -> None:
        """To be called every second. Tries again what keeps us from writing, and leaves a file that was moved or deleted
        though no signal came: what is written there is lost as soon as that is compressed. Never raises."""
        if self.broken:
            with contextlib.suppress(FirewallError):
                self.check()
        away = False
        if self.path is not None:
            try:
                away = not _same(self.path, self.file)
            except OSError:
                away = True
        self._away = self._away + 1 if away else 0
        if self._away % 60 == AWAY and self.reopen():
            structlog.get_logger().warning("records_moved", action="a new file is begun without a signal")

    def check(self) -> None:
        """Raises `FirewallError` audit_unavailable while records cannot be written. What is owed comes first, and
        `records_recovered` when all of it is written: who tries in vain leaves nothing."""
        if self.broken:
            try:
                while self._owed:
                    self._write(self._owed[:1])
                    del self._owed[0]
                    self._paid += 1
                self._write([orjson.dumps({"event": "records_recovered", "after": self.broken, "owed": self._paid,
                                           "lost": self._lost})])
                self.broken, self._paid, self._lost = "", 0, 0
            except OSError as e:
                raise FirewallError("audit_unavailable", "The request cannot be recorded, so it was not handled.",
                                    fault="ours", status=503, detail=f"records: {e.strerror}",
                                    retry_after=5.0) from None

    def write(self, record: dict[str, Any]) -> None:
        """One record, as `extend`."""
        self.extend([orjson.dumps(record)])

    def extend(self, records: list[bytes]) -> None:
        """Writes records (JSON objects), in one piece where that can be. Never raises. What cannot be written is owed, and
        written first when that is possible again."""
        if worked := not self.broken:
            try:
                while records:
                    records = records[self._write(records):]
                return
            except OSError as e:
                self.broken = e.strerror or type(e).__name__
        room = OWED - len(self._owed)
        self._owed += records[:room]
        self._lost += len(records[room:])
        if worked:
            structlog.get_logger().error("records_unwritable", reason=self.broken)

    def _write(self, records: list[bytes]) -> int:
        """Chains as many records as go into one write, at least one, and writes them; returns how many. Nothing of them is
        left in a file that did not take all.

        A pipe takes up to PIPE_BUF bytes as one piece, among those of other writers; a file, which has one writer, any.
        """
        parts: list[bytes] = []
        chain, count, size = self._chain, 0, 0
        for record in records:
            size += len(record) + len(self._by) + LINK
            if count and size > self._most:
                break
            if self._by:
                record = record[:-1] + self._by + b"}"
            chain = hashlib.sha256(chain + record).hexdigest().encode()
            parts += (record[:-1], CHAIN, chain, END)
            count += 1
        block = b"".join(parts)
        if (wrote := self.file.write(block)) != len(block):         # a full disk takes the beginning
            if wrote and self.file.seekable():
                self.file.truncate(self.file.tell() - wrote)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._chain = chain
        return count

    def close(self) -> None:
        if self.path is not None:
            self.file.close()


def verify(path: Path) -> int:
    """Counts the records of a file whose chain holds.

    Raises:
        Mistakes: see `follow`.
    """
    return follow(path).count


@dataclass(frozen=True, slots=True)
class Links:
    """A file whose chain holds: how many records, the chain value it goes on from (empty: it begins a chain), its last
    one, and whether it was ended for a file that goes on from it."""

    count: int = 0
    after: str = ""
    last: str = START
    ended: bool = False


def follow(path: Path) -> Links:
    """Follows the chain of one file, compressed by gzip or not, in one reading and a line's memory.

    Raises:
        Mistakes: it cannot be read, is no file of records, or: the first line that was edited, cut, swapped or inserted.
    """
    chains: dict[bytes, str] = {}           # by writer: a file has one, standard output any number
    number, line, chain, after = 0, b"", START, ""
    try:
        with path.open("rb") as file:
            zipped = file.peek(2)[:2] == b"\x1f\x8b"
            for number, line in enumerate(gzip.GzipFile(fileobj=file) if zipped else file, 1):
                body, sep, end = line.rpartition(b',"chain":"')
                if not sep and not chains:
                    raise Mistakes([f"{path}: not a file of chained records (what was compressed by another program than "
                                    "gzip has to be unpacked first)"])
                writer = body[-16:] if body[-16:-9] == b',"by":"' else b""
                chain = hashlib.sha256(chains.get(writer, START).encode() + body + b"}").hexdigest()
                if not sep or end != b'%b"}\n' % chain.encode():       # nothing may stand behind the chain either
                    raise Mistakes([f"{path}:{number}: the chain breaks here: a record was edited, removed or inserted"])
                if number < 3 and line.startswith(b'{"event":"records_begun",'):     # 2: behind `records_recovered`
                    after = orjson.loads(line).get("after", "")
                chains[writer] = chain
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise Mistakes([f"{path}: damaged behind line {number}: gzip cannot unpack it ({type(e).__name__})"]) from None
    except orjson.JSONDecodeError:
        raise Mistakes([f"{path}:{number}: no record, though the chain holds: somebody wrote it by hand"]) from None
    except IsADirectoryError:
        raise Mistakes([f"{path}: a folder; name its files, from the oldest to the newest"]) from None
    except OSError as e:
        raise Mistakes([f"{path}: {(e.strerror or type(e).__name__).lower()}"]) from None
    return Links(number, after, chain, line.startswith(b'{"event":"records_ended",'))


def beside(path: Path, suffix: str) -> Path:
    """`records.jsonl` -> `records-w1.jsonl`; what is no file (/dev/null, a terminal) has one name only."""
    if path.exists() and not path.is_file():
        return path
    return path.with_name(f"{path.stem}{suffix}{path.suffix}")


def _open(path: Path) -> tuple[IO[bytes], str, int]:
    """A file nobody else writes to, opened for appending, with its last chain value and the bytes cut from its end."""
    for name in (path, *(beside(path, f"-next{n or ''}") for n in range(8))):
        file = name.open("ab", buffering=0)
        try:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file, START, 0
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file, *_tail(name)
        except BlockingIOError:
            file.close()
        except BaseException:
            file.close()
            raise
    raise OSError(errno.EBUSY, "other processes write to it")


def _same(path: Path, file: IO[bytes]) -> bool:
    """Whether an open file still has its name (or the name it took instead)."""
    try:
        return os.path.samestat(os.stat(getattr(file, "name", path)), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _tail(path: Path) -> tuple[str, int]:
    """The last chain value of a file; a half-written last line (a crash) is cut off, and the chain goes on. Returns
    how many bytes were cut, too."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        size = BLOCK
        while True:                     # the last lines, not the file: it may hold a gigabyte
            start = max(0, end - size)
            file.seek(start)
            tail = file.read()
            whole = tail[:tail.rfind(b"\n") + 1]
            if not start or whole.count(b"\n") > 1:
                break
            size *= 2
        if cut := len(tail) - len(whole):
            file.truncate(end - cut)
    if not whole:
        return START, cut
    chain = whole[:-1].rpartition(b"\n")[2].rpartition(b',"chain":"')[2]
    if len(chain) != 66:
        raise Mistakes(["not a file of chained records; name another one"])
    return chain[:64].decode(), cut


class Log:
    """Standard error, past Python's buffer, which would keep what was not taken. Never raises: a log whose reader went
    away (`2>&1 | tee` at a Ctrl-C, a restarted shipper) must not end what only wanted to say something."""

    def msg(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(2, line + b"\n")

    debug = info = warning = error = critical = msg


def configure_logging(level: str = "info") -> None:
    """The operator's log: JSON lines on standard error, and nothing of ours ever puts content into it."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso"),
                    structlog.processors.JSONRenderer(serializer=_json)],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper(), logging.INFO)),
        logger_factory=lambda *_: Log(), cache_logger_on_first_use=True)


def _json(event: dict[str, Any], **_: Any) -> bytes:
    """A file's name may hold bytes that are no text, which orjson refuses."""
    try:
        return orjson.dumps(event)
    except TypeError:
        return json.dumps(event, default=str).encode()
