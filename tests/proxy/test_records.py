"""Records: the chain, the crash, the full disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_another_file_is_not_appended_to(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("something else\n")
    with pytest.raises(Mistakes, match="chained records"):
        Records(str(tmp_path / "r"))
