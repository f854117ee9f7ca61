from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import gate

RESULTS = [{"kind": "detect", "file": "quick", "way": "front door", "F1": 0.8, "unreadable": 0},
           {"kind": "transparency", "equal": 9, "runs": 10}]


def test_bars_hold_or_fail() -> None:
    _, good = gate.check(RESULTS, [{"kind": "detect", "set": "quick", "figure": "F1", "min": 0.7}])
    assert good
    grid, good = gate.check(RESULTS, [{"kind": "detect", "figure": "F1", "min": 0.9},
                                      {"kind": "transparency", "figure": "equal / runs", "min": 1.0}])
    assert not good and [r[3] for r in grid.rows] == ["FAILS", "FAILS"]
    assert not gate.check(RESULTS, [{"kind": "detect", "figure": "unreadable", "max": -1}])[1]


def test_what_was_not_measured_fails_unless_optional() -> None:
    bar = {"kind": "speed", "figure": "peers.firewall.exchange_us", "max": 1}
    assert not gate.check(RESULTS, [bar])[1]
    assert gate.check(RESULTS, [bar | {"optional": True}])[1]


def test_shipped_bars_are_bars() -> None:
    found = gate.bars()
    assert len(found) >= 8 and any(not b.get("optional") for b in found)


def test_a_bar_without_a_bound_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "bars.toml"
    path.write_text('[[bar]]\nkind = "detect"\nfigure = "F1"\n')
    with pytest.raises(ValueError, match="needs kind, figure and min or max"):
        gate.bars(path)
