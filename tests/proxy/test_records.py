"""Records: the chain, the crash, the full disk."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.commands import verified
from firewall.errors import FirewallError, Mistakes
from firewall.proxy import records as module
from firewall.proxy.records import Records, verify


class Disk:
    """A file that takes `room` more bytes."""

    def __init__(self, real, room: int) -> None:
        self.real, self.room = real, room

    def write(self, line: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        part = line[:self.room]
        self.room -= len(part)
        return self.real.write(part)

    def truncate(self, size: int) -> None:
        self.room += os.fstat(self.real.fileno()).st_size - size
        self.real.truncate(size)

    def __getattr__(self, name: str):
        return getattr(self.real, name)


def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "r"
    for start in (0, 3):
        records = Records(str(path))
        for i in range(start, start + 3):
            records.write({"event": "exchange", "n": i})
        records.close()
    assert verify(path) == 6


@given(cut=st.integers(1, 400))
def test_a_crash_in_any_byte_is_recovered_and_said(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("r") / "r"
    records = Records(str(path))
    for i in range(5):
        records.write({"event": "exchange", "n": i})
    records.close()
    data = path.read_bytes()
    path.write_bytes(data[:max(0, len(data) - cut)])
    kept = path.read_bytes().count(b"\n")
    half = not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    Records(str(path)).close()
    assert verify(path) == kept + half
    assert (b"records_recovered" in path.read_bytes()) == half


@pytest.mark.parametrize("room", [0, 1, 50, 130])
def test_a_full_disk_owes_and_pays(tmp_path: Path, room: int) -> None:
    path = tmp_path / "r"
    records = Records(str(path))
    records.write({"event": "exchange", "n": 0})
    real = records.file
    records.file = Disk(real, room)      # type: ignore[assignment]
    for i in range(1, 4):
        records.write({"event": "exchange", "n": i})
    assert records.broken
    with pytest.raises(FirewallError, match="audit_unavailable"):
        records.check()
    records.file = real
    records.check()
    assert not records.broken
    text = path.read_text()
    assert verify(path) == 5 and all(f'"n":{i}' in text for i in range(4)) and '"owed":' in text


@pytest.mark.parametrize("room", [0, 300, 700, 1500])
def test_trying_on_a_full_disk_writes_no_false_recovery(tmp_path: Path, room: int) -> None:
    """The room is enough for some lines: for `records_recovered`, but not for all that is owed."""
    path = tmp_path / "r"
    records = Records(str(path))
    real, records.file = records.file, Disk(records.file, room)      # type: ignore[assignment]
    for i in range(3):
        records.write({"event": "exchange", "n": i, "words": "w" * 900})
    size = path.stat().st_size
    for _ in range(3):
        with pytest.raises(FirewallError, match="audit_unavailable"):
            records.check()
    assert path.stat().st_size == size and b"records_recovered" not in path.read_bytes()
    records.file = real
    records.check()
    *rows, last = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert verify(path) == 4 and [row["n"] for row in rows] == [0, 1, 2]
    assert (last["event"], last["owed"], last["lost"]) == ("records_recovered", 3 - size // 900, 0)        # a line is 1 kB


def test_what_cannot_be_owed_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OWED", 2)
    path = tmp_path / "r"
    records = Records(str(path))
    real, records.file = records.file, Disk(records.file, 0)      # type: ignore[assignment]
    for i in range(5):
        records.write({"n": i})
    records.file = real
    records.check()
    assert '"lost":3' in path.read_text() and verify(path) == 3


def rows(numbers: Iterable[int]) -> list[bytes]:
    return [b'{"event":"exchange","n":%d}' % n for n in numbers]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.lists(st.integers(0, 700), min_size=1, max_size=5))
def test_many_at_once_are_all_written_or_all_owed(tmp_path_factory: pytest.TempPathFactory, sizes: list[int],
                                                  rooms: list[int]) -> None:
    """However full the disk is meanwhile: whole lines in order, a chain that holds, and what was owed is paid."""
    path = tmp_path_factory.mktemp("r") / "r"
    records = Records(str(path))
    real, number = records.file, 0
    for size, room in zip(sizes, [*rooms, *[0] * len(sizes)], strict=False):
        records.file = Disk(real, room)         # type: ignore[assignment]
        before, chain, broken = path.read_bytes(), records._chain, records.broken
        records.extend(rows(range(number, number + size)))
        number += size
        if records.broken:
            assert path.read_bytes() == before and records._chain == chain and len(records._owed) >= size
        else:
            assert path.read_bytes().count(b"\n") == before.count(b"\n") + size and not broken
        verify(path)
    records.file = real
    records.check()
    records.close()
    said = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [row["n"] for row in said if row["event"] == "exchange"] == list(range(number))
    assert verify(path) == len(said)


def test_what_is_too_much_of_many_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OWED", 5)
    records = Records(str(tmp_path / "r"))
    real, records.file = records.file, Disk(records.file, 100)      # type: ignore[assignment]
    for _ in range(3):
        records.extend(rows(range(3)))
    records.file = real
    records.check()
    assert '"owed":5,"lost":4' in (tmp_path / "r").read_text() and verify(tmp_path / "r") == 6


class Pipe:
    """Standard output: keeps each write, and takes no more than the first `at`."""

    def __init__(self, at: int) -> None:
        self.at, self.writes = at, []

    def write(self, block: bytes) -> int:
        if len(self.writes) == self.at:
            raise OSError(11, "Resource temporarily unavailable")
        self.writes.append(block)
        return len(block)

    def seekable(self) -> bool:
        return False


@given(st.lists(st.integers(0, 5000), max_size=30), st.integers(0, 12))
def test_a_pipe_gets_whole_lines_in_pieces_that_stay_whole(sizes: list[int], at: int) -> None:
    """POSIX: of several writers, what is no longer than PIPE_BUF stays in one piece. A longer line goes alone."""
    records = Records("-")
    pipe = records.file = Pipe(at)              # type: ignore[assignment]
    records.extend([b'{"n":%d,"x":"%b"}' % (n, b"x" * size) for n, size in enumerate(sizes)])
    assert all(block.endswith(b"\n") and (len(block) <= 4096 or block.count(b"\n") == 1) for block in pipe.writes)
    assert all(len(a) + b.index(b"\n") + 1 > 4096 for a, b in pairwise(pipe.writes))
    assert bool(records.broken) == bool(records._owed)
    pipe.at = -1
    records.check()
    lines = b"".join(pipe.writes).splitlines()
    assert [row["n"] for row in map(json.loads, lines) if "n" in row] == list(range(len(sizes)))
    chain = module.START.encode()
    for line in lines:
        body, _, end = line.rpartition(module.CHAIN)
        chain = hashlib.sha256(chain + body + b"}").hexdigest().encode()
        assert end == chain + b'"}'


def test_another_file_is_not_appended_to(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("something else\n")
    with pytest.raises(Mistakes, match="chained records"):
        Records(str(tmp_path / "r"))


def test_n13_a_moved_file_is_ended_and_the_next_says_where_it_goes_on(tmp_path: Path) -> None:
    path, old = tmp_path / "r", tmp_path / "r.1"
    records = Records(str(path))
    records.write({"event": "exchange", "n": 1})
    assert not records.reopen() and verify(path) == 1          # it was not moved
    path.rename(old)
    records.write({"event": "exchange", "n": 2})
    assert records.reopen()
    records.write({"event": "exchange", "n": 3})
    path.unlink()                                               # deleted, and created as logrotate does
    path.touch()
    assert records.reopen() and records.reopen() is False
    records.close()
    assert verify(old) == 3 and verify(path) == 1
    assert b"records_ended" in old.read_bytes().splitlines()[-1]
    assert module.follow(old).after == "" and len(module.follow(path).after) == 64 != module.follow(old).last


def test_n13_the_next_file_names_the_last_line_of_the_one_before(tmp_path: Path) -> None:
    path, old = tmp_path / "r", tmp_path / "r.1"
    records = Records(str(path))
    records.write({"event": "exchange", "n": 1})
    path.rename(old)
    records.reopen()
    records.close()
    assert module.follow(path).after == module.follow(old).last
    whole = old.read_bytes().splitlines(keepends=True)
    old.write_bytes(b"".join(whole[:-1]))                       # a cut at the end
    assert verify(old) == 1 and module.follow(path).after != module.follow(old).last


@pytest.mark.parametrize("create", [True, False])
def test_a_moved_file_is_left_though_nobody_signalled(tmp_path: Path, create: bool) -> None:
    """Not at once: logrotate makes the new file itself, a moment after it moved the old one."""
    path = tmp_path / "r"
    records = Records(str(path))
    records.write({"event": "exchange"})
    path.rename(moved := tmp_path / "r.1")
    if create:
        path.touch()
    for _ in range(module.AWAY - 1):
        records.mend()
    records.write({"event": "exchange"})
    assert verify(moved) == 2 and path.exists() == create
    records.mend()
    records.write({"event": "exchange"})
    assert verify(moved) == 3 and json.loads(moved.read_bytes().splitlines()[-1])["event"] == "records_ended"
    assert verify(path) == 2 and json.loads(path.read_bytes().splitlines()[0])["event"] == "records_begun"
    for _ in range(100):
        records.mend()
    assert verify(path) == 2 and len(list(tmp_path.iterdir())) == 2


def test_n13_where_nothing_can_be_opened_the_old_file_is_written_on(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    records = Records(str(folder / "r"))
    records.write({"event": "exchange"})
    folder.rename(tmp_path / "b")
    assert records.reopen() is False and not records.broken
    records.write({"event": "exchange"})
    records.close()
    assert verify(tmp_path / "b" / "r") == 2
    assert Records("-").reopen() is False


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "r"
    old, new = Records(str(path)), Records(str(path))
    for i in range(3):
        old.write({"event": "exchange", "n": i})
        new.write({"event": "exchange", "n": i})
    old.close()
    third = Records(str(path))
    third.write({"event": "exchange"})
    new.close()
    third.close()
    assert verify(path) == 4 and verify(tmp_path / "r-next") == 3


def test_the_files_of_a_rotation_are_verified_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r"
    records = Records(str(path))
    files = []
    for n in range(3):
        records.write({"event": "exchange", "n": n})
        files.append(path.rename(tmp_path / f"r.{n}"))
        records.reopen()
    records.close()
    assert verified([*files, path]) == 0
    said = capsys.readouterr().out
    assert said.count("chain intact") == 4 and said.count("goes on from") == 3 and said.count("begins a chain") == 1
    for wrong, named in (([files[0], files[2]], "r.2: does not go on from"), ([files[1], files[0], path], "r.0: begins a")):
        with pytest.raises(Mistakes, match=named):
            verified(wrong)
    lines = files[1].read_bytes().splitlines(keepends=True)
    files[1].write_bytes(b"".join(lines[:-1]))
    with pytest.raises(Mistakes, match="r.2: does not go on from"):
        verified(files)


def test_nothing_may_stand_behind_the_chain(tmp_path: Path) -> None:
    """N03: a JSON reader would take the last of two equal keys."""
    path = tmp_path / "r"
    records = Records(str(path))
    for n in range(3):
        records.write({"event": "exchange", "n": n, "decision": "block"})
    records.close()
    lines = path.read_bytes().splitlines(keepends=True)
    for line in (lines[1][:-3] + b'","decision":"allow","x":""}\n', lines[1][:-3] + b'" }\n', lines[1][:-1] + b" \n"):
        path.write_bytes(b"".join([lines[0], line, lines[2]]))
        with pytest.raises(Mistakes, match="r:2: the chain breaks"):
            verify(path)


@pytest.mark.parametrize("half", [b"", b'{"event":"exch', b"x" * 200_000])
def test_only_the_end_of_a_long_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bytes) -> None:
    monkeypatch.setattr(module, "BLOCK", 64)
    path = tmp_path / "r"
    for size in (10, 5000, 1):
        records = Records(str(path))
        records.write({"event": "exchange", "long": "y" * size})
        records.close()
    with path.open("ab") as file:
        file.write(half)
    Records(str(path)).close()
    assert verify(path) == 3 + bool(half) and (b"records_recovered" in path.read_bytes()) == bool(half)


STDOUT = """
import sys
from firewall.proxy.records import Records
r = Records("-", int(sys.argv[1]))
for n in range(3): r.write({"event": "exchange", "n": n})
"""


def test_several_writers_on_one_standard_output(tmp_path: Path) -> None:
    """Workers and later starts (`>>`): each has its chain; a line that is missing, moved or edited shows."""
    path = tmp_path / "out"
    for _ in range(2):
        with path.open("ab") as file:
            both = [subprocess.Popen([sys.executable, "-c", STDOUT, str(n)], stdout=file) for n in (0, 1)]
            assert [p.wait(20) for p in both] == [0, 0]
    assert verify(path) == 12
    lines = path.read_bytes().splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if b'"n":1' in line)
    edited = [*lines[:first], lines[first].replace(b'"n":1', b'"n":7'), *lines[first + 1:]]
    for bad in (lines[:first] + lines[first + 1:], edited):
        path.write_bytes(b"".join(bad))
        with pytest.raises(Mistakes, match="the chain breaks"):
            verify(path)


def test_names_that_a_rotation_does_not_use(tmp_path: Path) -> None:
    one, two = Records(str(tmp_path / "r.jsonl"), 2), Records(str(tmp_path / "r.jsonl"), 2)
    null = Records("/dev/null", 3)
    null.write({"event": "exchange"})
    for records in (one, two, null):
        records.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r-w2-next.jsonl", "r-w2.jsonl"]


def rotation(tmp_path: Path, files: int) -> list[Path]:
    """The files of one rotation, the oldest first; the last is the one in use."""
    path = tmp_path / "r"
    records = Records(str(path))
    kept = []
    for n in range(files - 1):
        records.write({"event": "exchange", "n": n})
        kept.append(path.rename(tmp_path / f"r.{n}"))
        records.reopen()
    records.write({"event": "exchange", "n": files})
    records.close()
    return [*kept, path]


def zipped(path: Path) -> Path:
    out = path.with_name(f"{path.name}.gz")
    out.write_bytes(gzip.compress(path.read_bytes()))
    return out


def test_compressed_files_are_read_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the documented logrotate leaves: the oldest compressed, the last two not."""
    oldest, middle, newest = rotation(tmp_path, 3)
    oldest = zipped(oldest)
    assert verified([oldest, middle, newest]) == 0 and capsys.readouterr().out.count("goes on from") == 2
    assert verify(oldest) == 2
    whole = oldest.read_bytes()
    for broken in (whole[:-12], whole[:20] + bytes([whole[20] ^ 255]) + whole[21:], whole[:-6] + b"123456"):
        oldest.write_bytes(broken)
        with pytest.raises(Mistakes, match="r.0.gz: damaged|r.0.gz:1: the chain breaks|r.0.gz: not a file"):
            verify(oldest)
    edited = tmp_path / "edited"
    edited.write_bytes(middle.read_bytes().replace(b'"n":1', b'"n":7'))
    with pytest.raises(Mistakes, match="edited.gz:2: the chain breaks"):
        verify(zipped(edited))


def test_what_begins_a_chain_of_its_own_behind_another_is_reported(tmp_path: Path) -> None:
    old, new = rotation(tmp_path, 2)
    assert verified([old, new]) == 0
    with pytest.raises(Mistakes, match="r.0: begins a chain of its own, so nothing links it to .*r: they are in another"):
        verified([new, old])
    (tmp_path / "other").mkdir()
    other = rotation(tmp_path / "other", 1)
    assert verified([*other, *other]) == 0                      # two workers' files that no rotation has touched
    with pytest.raises(Mistakes, match="begins a chain"):       # the old one was ended for a file that goes on from it
        verified([old, *other])
    new.write_bytes(b"")
    with pytest.raises(Mistakes, match="r: holds no records, so nothing links it"):
        verified([old, new])


def test_where_the_link_was_owed_it_still_counts(tmp_path: Path) -> None:
    path, old = tmp_path / "r", tmp_path / "r.0"
    records = Records(str(path))
    records.write({"event": "exchange"})
    path.rename(old)
    real = records._write
    records._write = lambda rows: (_ for _ in ()).throw(OSError(28, "full")) if (      # type: ignore[method-assign]
        b"records_begun" in rows[0]) else real(rows)
    records.reopen()
    records._write = real               # type: ignore[method-assign]
    records.check()
    records.close()
    assert b"records_recovered" in path.read_bytes().splitlines()[1] and verified([old, path]) == 0


def test_what_holds_no_records_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "words").write_text("[server]\nworkers = 2\n")
    (tmp_path / "xz").write_bytes(b"\xfd7zXZ\x00\x00")
    for name, said in (("", "a folder; name its files"), ("words", "not a file of chained records"),
                       ("xz", "not a file of chained"), ("missing", "no such file"), ("empty", "nothing was verified")):
        with pytest.raises(Mistakes, match=said):
            verified([tmp_path / name])
    assert verified([*rotation(tmp_path, 1), tmp_path / "empty"]) == 0
    assert "empty: holds no records" in capsys.readouterr().out


LOG = """
import os, structlog, sys
from firewall.proxy.records import Records, configure_logging
os.close(int(sys.argv[1]))
configure_logging()
log = structlog.get_logger()
for _ in range(3): log.info("said", path="caf\\udce9", text="x" * 9000)
r = Records("-")
for n in range(3): r.write({"event": "exchange", "n": n})
assert len(r._owed) == (0 if sys.argv[1] == "0" else 3)
"""


def test_a_log_nobody_reads_any_more_ends_nothing() -> None:
    """`2>&1 | tee log` at a Ctrl-C: hot reload, the drain and what is owed go on, and the exit status is ours."""
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", LOG, str(reading)], stdout=writing, stderr=writing,
                               pass_fds=[reading])
    os.close(writing)
    os.close(reading)
    assert process.wait(20) == 0


def test_a_log_line_is_json_whatever_a_file_is_called() -> None:
    done = subprocess.run([sys.executable, "-c", LOG, "0"], capture_output=True)
    assert done.returncode == 0 and [json.loads(line)["path"] for line in done.stderr.splitlines()] == ["caf\udce9"] * 3


def test_two_writers_of_a_named_pipe_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    both = os.open(path, os.O_RDWR)         # so that there is no end while a writer is not there yet
    lines = [orjson.dumps({"event": "exchange", "filler": "x" * 600})] * 12

    def write() -> None:
        records = Records(str(path))
        for _ in range(40):
            records.extend(lines)
        records.close()
    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    got = b""
    while got.count(b"\n") < 2 * 40 * 12:
        got += os.read(both, 1000)          # slowly: the pipe is full most of the time
    for writer in writers:
        writer.join()
    os.close(both)
    assert {orjson.loads(line)["event"] for line in got.splitlines()} == {"exchange"}
