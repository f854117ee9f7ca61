"""The ledger: one write a turn, nothing lost, nobody held up by another's record."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from firewall.errors import FirewallError
from firewall.exchange import Exchange
from firewall.proxy.ledger import Ledger
from firewall.proxy.records import Records, verify


class Counted:
    """A file that counts what is written to it."""

    def __init__(self, real: Any) -> None:
        self.real, self.writes = real, 0

    def write(self, block: bytes) -> int:
        self.writes += 1
        return self.real.write(block)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def opened(path: Path) -> tuple[Ledger, Counted]:
    records = Records(str(path))
    records.file = file = Counted(records.file)     # type: ignore[assignment]
    return Ledger(records), file


def exchanges(count: int) -> list[Exchange]:
    return [Exchange("r", "w") for _ in range(count)]


def ids(path: Path) -> list[str]:
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert verify(path) == len(rows)
    return [row["id"] for row in rows if row["event"] == "exchange"]


def test_a_turn_is_one_write_at_its_end(tmp_path: Path) -> None:
    ledger, file = opened(tmp_path / "r")
    made = exchanges(5)

    async def main() -> None:
        for x in made[:3]:
            ledger.add(x)
        assert not file.writes
        await asyncio.sleep(0)
        assert file.writes == 1 and ids(tmp_path / "r") == [x.id for x in made[:3]]
        for x in made[3:]:
            ledger.add(x)
        await asyncio.sleep(0)
        assert file.writes == 2
    asyncio.run(main())
    assert ids(tmp_path / "r") == [x.id for x in made]


def test_waiting_takes_nothing_from_the_time_it_took(tmp_path: Path) -> None:
    ledger, _ = opened(tmp_path / "r")

    async def main() -> None:
        ledger.add(Exchange("r", "w"))
        time.sleep(0.03)
        await asyncio.sleep(0)
    asyncio.run(main())
    assert json.loads((tmp_path / "r").read_bytes())["ms"] < 20


def test_who_reads_or_closes_need_not_wait(tmp_path: Path) -> None:
    ledger, file = opened(tmp_path / "r")

    async def main() -> None:
        ledger.add(Exchange("r", "w"))
        ledger.flush()
        assert len(ids(tmp_path / "r")) == 1
        ledger.add(Exchange("r", "w"))
        ledger.close()
        assert len(ids(tmp_path / "r")) == 2
        await asyncio.sleep(0)
        assert file.writes == 2
    asyncio.run(main())


def test_without_a_loop_nothing_waits(tmp_path: Path) -> None:
    ledger, _ = opened(tmp_path / "r")
    for n, x in enumerate(exchanges(3), 1):
        ledger.add(x)
        assert len(ids(tmp_path / "r")) == n


def test_a_record_that_cannot_be_built_takes_no_other_along(tmp_path: Path) -> None:
    ledger, _ = opened(tmp_path / "r")
    ledger.explain = True
    made = exchanges(3)
    made[1].reasons = ("half a character: \ud800",)
    with structlog.testing.capture_logs() as logs:
        for x in made:
            ledger.add(x)
    assert ids(tmp_path / "r") == [made[0].id, made[2].id]
    assert [(row["event"], row["id"]) for row in logs] == [("internal", made[1].id)]


@pytest.mark.parametrize("room", [0, 1, 300])
def test_a_turn_that_cannot_be_written_is_owed_in_order(tmp_path: Path, room: int) -> None:
    ledger, file = opened(tmp_path / "r")
    records, real, made = ledger.records, file.real, exchanges(4)

    class Full:
        def write(self, block: bytes) -> int:
            return real.write(block[:room])

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)
    records.file = Full()       # type: ignore[assignment]

    async def main() -> None:
        for x in made[:3]:
            ledger.add(x)
        await asyncio.sleep(0)
        assert records.broken and not ids(tmp_path / "r")
        with pytest.raises(FirewallError, match="audit_unavailable"):
            records.check()
        ledger.add(made[3])
        records.file = real
        records.check()
    asyncio.run(main())
    ledger.close()
    assert ids(tmp_path / "r") == [x.id for x in made]
    assert '"owed":3,"lost":0' in (tmp_path / "r").read_text()
