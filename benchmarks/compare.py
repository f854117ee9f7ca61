"""What changed between two runs, with intervals.

Sets that both runs judged on the same rows are compared row by row: the difference of two figures is bootstrapped over
rows, both runs drawn together (paired), which is far sharper than comparing two intervals. Figures without rows (speed,
streams) are compared as ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import score
from benchmarks.tables import Grid, number

FIGURES = {"F1": score.f1, "recall": score.recall, "FPR": score.fpr}
DRAWS = 1000


def paired(a: dict[str, Any], b: dict[str, Any], seed: int = 0) -> dict[str, tuple[float, float, float]] | None:
    """Figure -> (difference b - a, low, high), 95 %; None unless both judged the same rows."""
    x, y = a.get("detail") or {}, b.get("detail") or {}
    if not x or x.get("ids") != y.get("ids") or x.get("labels") != y.get("labels"):
        return None
    labels = np.array([c == "1" for c in x["labels"]])
    hits = [np.array([(c == "1") if c != "e" else not u for c, u in zip(d["outcomes"], labels, strict=True)])
            for d in (x, y)]
    rng = np.random.default_rng(seed)
    picks = [rng.integers(0, len(labels), len(labels)) for _ in range(DRAWS)]
    out = {}
    for name, f in FIGURES.items():
        base = [f(labels, h) for h in hits]
        if None in base:
            continue
        drawn = [q - p for i in picks
                 if (p := f(labels[i], hits[0][i])) is not None and (q := f(labels[i], hits[1][i])) is not None]
        low, high = np.percentile(drawn, [2.5, 97.5])
        out[name] = (float(base[1] - base[0]), float(low), float(high))     # type: ignore[operator]
    return out


def detections(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> Grid:
    """One line a set and figure."""
    rows = []
    other = {(r["file"], r["way"]): r for r in b}
    for one in a:
        two = other.get((one["file"], one["way"]))
        if two is None:
            continue
        found = paired(one, two)
        for name in ("F1", "recall", "FPR", "AUROC"):
            if one[name] is None or two[name] is None:
                continue
            if found and name in found:
                d, low, high = found[name]
                word = "same" if low <= 0 <= high else ("better" if (d > 0) != (name == "FPR") else "worse")
                rows.append((one["file"], name, number(one[name]), number(two[name]),
                             f"{d:+.3f} [{low:+.3f}, {high:+.3f}]", word))
            else:
                d, half = two[name] - one[name], _half(one, name) + _half(two, name)
                word = "same" if abs(d) <= half else ("better" if (d > 0) != (name == "FPR") else "worse")
                rows.append((one["file"], name, number(one[name]), number(two[name]),
                             f"{d:+.3f} [{d - half:+.3f}, {d + half:+.3f}]", word))
    return Grid("What changed: detection", ("set", "figure", "A", "B", "B - A", ""), tuple(rows),
                "Differences by paired bootstrap where both judged the same rows (not AUROC), else from both "
                "intervals.")


def _half(r: dict[str, Any], name: str) -> float:
    figure = r["intervals"].get(name.lower()) or {}
    if figure.get("low") is None:
        return 0.0
    return (figure["high"] - figure["low"]) / 2


FLAT = {
    "streams": ("missed", "late", "false_cuts", "stall_share", "guard_calls_per_token", "equal_to_whole"),
    "capacity": ("rows_per_second",),
}


def flat(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> Grid:
    """Speed and streams: both values and their ratio."""
    rows = []
    for one in a:
        two = next((r for r in b if r["kind"] == one["kind"]), None)
        if two is None:
            continue
        pairs = [(f"{one['kind']}: {k}", one.get(k), two.get(k)) for k in FLAT.get(one["kind"], ())]
        if one["kind"] == "speed":
            for peer, row in one["peers"].items():
                new = two["peers"].get(peer, {})
                pairs += [(f"{peer}: {k}", row.get(k), new.get(k)) for k in
                          ("exchange_us", "added_p50_ms", "added_first_ms", "long_us")]
                pairs += [(f"{peer}: token_us @{n}", s["token_us"], new.get("streams", {}).get(n, {}).get("token_us"))
                          for n, s in row.get("streams", {}).items()]
        for name, x, y in pairs:
            if x is not None and y is not None:
                rows.append((name, number(x), number(y), f"{y / x:.2f} x" if x else "–"))
    return Grid("What changed: streams and speed", ("figure", "A", "B", "B / A"), tuple(rows))
