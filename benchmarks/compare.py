"""What changed between two runs, with intervals.

Sets that both runs judged on the same rows, and streams of the same cases, are compared one by one: the difference of
two figures is bootstrapped over rows, both runs drawn together (paired), which is far sharper than comparing two
intervals. Figures without rows (speed) are compared as ratios.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import score
from benchmarks.tables import Grid, number

FIGURES = {"F1": score.f1, "recall": score.recall, "FPR": score.fpr}
DRAWS = 1000
Difference = tuple[float, float, float]     # B - A, and its 95 % interval
Measure = Callable[[np.ndarray], float | None]


def between(a: Measure, b: Measure, n: int, seed: int = 0) -> Difference | None:
    """Paired bootstrap of b - a over n rows; both are functions of row numbers. None where either has no value."""
    all_rows = np.arange(n)
    x, y = a(all_rows), b(all_rows)
    if x is None or y is None:
        return None
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(DRAWS):
        pick = rng.integers(0, n, n)
        if (p := a(pick)) is not None and (q := b(pick)) is not None:
            drawn.append(q - p)
    low, high = np.percentile(drawn, [2.5, 97.5]) if drawn else (y - x, y - x)
    return float(y - x), float(low), float(high)


def paired(a: dict[str, Any], b: dict[str, Any], seed: int = 0) -> dict[str, Difference] | None:
    """Figure -> difference; None unless both judged the same rows."""
    x, y = a.get("detail") or {}, b.get("detail") or {}
    if not x or x.get("ids") != y.get("ids") or x.get("labels") != y.get("labels"):
        return None
    labels = np.array([c == "1" for c in x["labels"]])
    hits = [np.array([(c == "1") if c != "e" else not u for c, u in zip(d["outcomes"], labels, strict=True)])
            for d in (x, y)]
    out = {name: between(lambda i, f=f: f(labels[i], hits[0][i]), lambda i, f=f: f(labels[i], hits[1][i]),
                         len(labels), seed) for name, f in FIGURES.items()}
    if x.get("scores") and y.get("scores"):
        scores = [score.worst(labels, [c == "e" for c in d["outcomes"]], d["scores"]) for d in (x, y)]
        out["AUROC"] = between(lambda i: score.auroc(labels[i], scores[0][i]),
                               lambda i: score.auroc(labels[i], scores[1][i]), len(labels), seed)
    return {name: d for name, d in out.items() if d is not None}


def detections(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> Grid:
    """One line a set and figure."""
    rows = []
    other = {(r["file"], r["way"]): r for r in b}
    for one in a:
        two = other.get((one["file"], one["way"]))
        if two is None:
            continue
        found = paired(one, two) or {}
        for name in ("F1", "recall", "FPR", "AUROC"):
            if one[name] is None or two[name] is None:
                continue
            d = found.get(name) or _apart(one, two, name)
            rows.append((one["file"], name, number(one[name]), number(two[name]), _say(d), _word(d, name == "FPR")))
    return Grid("What changed: detection", ("set", "figure", "A", "B", "B - A", ""), tuple(rows),
                "Differences by paired bootstrap where both judged the same rows, else from both intervals.")


def streamed(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> Grid:
    """Streams of the same cases, paired: leak, misses, false cuts."""
    rows = []
    for one, two in _matching(a, b):
        x, y = ({c["id"]: c for c in r["cases"]} for r in (one, two))
        for title, key, bad in (("leak, mean characters", "leak", True), ("blocked, violating", "blocked", True),
                                ("blocked, benign", "blocked", False)):
            ids = [i for i in x if i in y and (x[i]["onset"] is not None) == bad]
            if not ids:
                continue
            p, q = (np.array([float(side[i][key]) for i in ids]) for side in (x, y))
            d = between(lambda i, p=p: float(p[i].mean()), lambda i, q=q: float(q[i].mean()), len(ids))
            assert d is not None
            rows.append((title, number(float(p.mean())), number(float(q.mean())), _say(d),
                         _word(d, title != "blocked, violating")))
    return Grid("What changed: streams", ("figure", "A", "B", "B - A", ""), tuple(rows), "Paired bootstrap over cases.")


def _apart(one: dict[str, Any], two: dict[str, Any], name: str) -> Difference:
    d, half = two[name] - one[name], _half(one, name) + _half(two, name)
    return d, d - half, d + half


def _half(r: dict[str, Any], name: str) -> float:
    figure = r["intervals"].get(name.lower()) or {}
    return 0.0 if figure.get("low") is None else (figure["high"] - figure["low"]) / 2


def _say(d: Difference) -> str:
    return f"{d[0]:+.3f} [{d[1]:+.3f}, {d[2]:+.3f}]"


def _word(d: Difference, less: bool) -> str:
    """`less`: a lower figure is better."""
    if d[1] <= 0 <= d[2]:
        return "same"
    return "better" if (d[0] > 0) != less else "worse"


def _matching(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    other = {(r["kind"], r.get("file")): r for r in b}
    return [(r, other[r["kind"], r.get("file")]) for r in a
            if (r["kind"], r.get("file")) in other and (r["kind"] != "streams" or r.get("cases"))]


FLAT = {
    "streams": ("stall_share", "guard_calls_per_token", "guard_tokens_per_token", "equal_to_whole"),
    "controls": ("right_minus_wrong",), "capacity": ("rows_per_second",),
}


def flat(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> Grid:
    """Figures without rows: both values and their ratio."""
    rows = []
    for one, two in _matching(a, b):
        title = f"{one['kind']} {one['file']}" if one["kind"] == "controls" else one["kind"]
        pairs = [(f"{title}: {k}", one.get(k), two.get(k)) for k in FLAT.get(one["kind"], ())]
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
    return Grid("What changed: the rest", ("figure", "A", "B", "B / A"), tuple(rows))


def grids(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> list[Grid]:
    """Everything that can be compared between two runs."""
    kinds = [[[r for r in side if r["kind"] == kind] for side in (a, b)] for kind in ("detect", "streams")]
    return [g for g in (detections(*kinds[0]), streamed(*kinds[1]), flat(a, b)) if g.rows]
