"""`gate`: exit 1 when a figure falls under the bars written in bars.toml.

A bar names a kind of result, optionally the set, the figure by its dotted path, and `min` or `max`. A bar whose result
was not measured is said, and fails unless it is marked `optional` (a full run measures more than the quick one).
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import HERE
from benchmarks.tables import Grid, number


def bars(path: Path = HERE / "bars.toml") -> list[dict[str, Any]]:
    """The bars of a file. Raises ValueError for one that bounds nothing."""
    found = tomllib.loads(path.read_text("utf-8"))["bar"]
    for bar in found:
        if not {"kind", "figure"} <= set(bar) or not {"min", "max"} & set(bar):
            raise ValueError(f"{path}: a bar needs kind, figure and min or max: {bar}")
    return found


def figure(result: dict[str, Any], path: str) -> Any:
    """`peers.firewall.exchange_us` -> value, or None. A ratio is `a / b`."""
    if " / " in path:
        a, b = (figure(result, p) for p in path.split(" / "))
        return a / b if a is not None and b else None
    value: Any = result
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def check(results: Sequence[dict[str, Any]], against: Sequence[dict[str, Any]]) -> tuple[Grid, bool]:
    """(table, whether every bar holds)."""
    rows, good = [], True
    for bar in against:
        matching = [r for r in results if r["kind"] == bar["kind"] and bar.get("set") in (None, r.get("file"))
                    and bar.get("way") in (None, r.get("way"))]
        values = [v for r in matching if (v := figure(r, bar["figure"])) is not None]
        name = " ".join(filter(None, (bar["kind"], bar.get("set"), bar["figure"])))
        want = " and ".join(f"{word} {bar[key]}" for key, word in (("min", "at least"), ("max", "at most"))
                            if key in bar)
        if not values:
            rows.append((name, "not measured", want, "skipped" if bar.get("optional") else "FAILS"))
            good &= bool(bar.get("optional"))
            continue
        for value in values:
            holds = bar.get("min", value) <= value <= bar.get("max", value)
            rows.append((name, number(float(value)), want, "holds" if holds else "FAILS"))
            good &= holds
    return Grid("Bars", ("figure", "is", "should be", ""), tuple(rows)), good
