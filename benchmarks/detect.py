"""Detection over labelled sets: one JSON object a file, with every figure of score.py, per category and per policy."""

from __future__ import annotations

import hashlib
import time
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import loaders, score
from benchmarks.judged import Judged, Progress, Way, collect
from benchmarks.rows import HERE, BadRows, Row, draws, name, read

FEW = 5                 # a category with fewer rows is not listed


@cache
def _written() -> dict[str, list[dict[str, Any]]]:
    """What sets/anchors.toml knows of published sets."""
    return tomllib.loads((HERE / "sets" / "anchors.toml").read_text("utf-8"))


def anchors() -> list[dict[str, Any]]:
    """Published figures (sets/anchors.toml)."""
    return _written()["anchor"]


def anchor(set_name: str, layout: str = "") -> dict[str, Any] | None:
    """The published figures for a set, if there are any."""
    return next((a for a in anchors() if set_name in a["key"] or (layout and layout in a["key"])), None)


def seen(result: dict[str, Any]) -> dict[str, Any]:
    """What the training of the guard that was measured saw of the set (sets/anchors.toml); empty where nothing is known."""
    if (result.get("meta") or {}).get("guard") != "embedded":
        return {}
    return next((s for s in _written()["seen"] if result["file"] in s["key"]), {})


def named(where: str) -> tuple[str, list[Row]]:
    """`FILE.jsonl[.xz|.gz]`, `LAYOUT:PATH`, `LAYOUT:hub/name` or `LAYOUT:` -> (set name, rows). Raises `BadRows`."""
    layout, colon, rest = where.partition(":")
    if colon and layout in loaders.READERS:
        return layout, loaders.load(layout, rest)
    path = Path(where)
    if path.is_dir():
        raise BadRows(f"{where}: a folder; name files, e.g. {where.rstrip('/')}/*.jsonl")
    return name(path), read(path)


async def detect(way: Way, set_name: str, rows: Sequence[Row], *, limit: int = 0, seeds: int = 1,
                 repeat: bool = False, progress: Progress = lambda _: None) -> tuple[dict[str, Any], list[Judged]]:
    """Judges a set. Returns (its JSON object, the judged rows).

    Args:
        limit: rows to draw (0: all).
        seeds: draws. Disjoint shares of one sample where `limit` samples, and the figures are those of all of them
            together; repeats of the whole set where `repeat`, and the figures are those of the first. `by_seed` has
            each one's.
    """
    began, cpu = time.monotonic(), way.cpu()
    runs = [await collect(way, part, progress) for part in draws(rows, limit, seeds, repeat)]
    seconds = time.monotonic() - began
    sampled = bool(limit and limit < len(rows))
    judged = [j for run in runs for j in run] if sampled else runs[0]
    out = summary(way.way, set_name, judged, seconds / (1 if sampled else len(runs)))
    if len(runs) > 1:
        out["by_seed"] = [seeded(run) for run in runs]
    cost = (way.cpu() - cpu) / max(1, sum(map(len, runs))) * 1e3
    return out | {"sampled": sampled, "of": len(rows), "cpu_ms": round(cost, 2)}, judged


def seeded(judged: Sequence[Judged]) -> dict[str, Any]:
    """One draw's figures, without intervals."""
    f = _figures(judged, 0, draws=0)
    return {"rows": f["rows"], "F1": f["f1"]["value"], "recall": f["recall"]["value"], "FPR": f["fpr"]["value"],
            "AUROC": f["auroc"]["value"]}


def summary(way: str, set_name: str, judged: Sequence[Judged], seconds: float, seed: int = 0) -> dict[str, Any]:
    """The JSON object of one set. Flat figures first (F1, recall, FPR, AUROC, floor, ...), intervals below them."""
    figures = _figures(judged, seed)
    scores = _scores(judged)
    errors: dict[str, int] = defaultdict(int)
    for j in judged:
        if j.decision == "error":
            errors[j.error or "unknown"] += 1
    return {
        "file": set_name, "way": way, "rows": figures["rows"], "unsafe": figures["unsafe"],
        "F1": figures["f1"]["value"], "precision": figures["precision"]["value"], "recall": figures["recall"]["value"],
        "FPR": figures["fpr"]["value"], "AUROC": figures["auroc"]["value"], "AUPRC": figures["auprc"]["value"],
        "recall_at_fpr1": figures["recall_at_fpr1"]["value"], "recall_at_fpr5": figures["recall_at_fpr5"]["value"],
        "floor": figures["floor"], "unreadable": figures["unreadable"], "errors": dict(errors),
        "latency": score.percentiles([j.ms for j in judged]),
        "guard_ms": score.percentiles([j.guard_ms for j in judged]),
        "seconds": round(seconds, 2), "rows_per_second": round(len(judged) / seconds, 1) if seconds else None,
        "seed": seed, "intervals": {k: v for k, v in figures.items() if isinstance(v, dict)},
        "detail": detail(judged), "anchor": anchor(set_name),
        "roc": score.points([j.row.unsafe for j in judged], scores) if scores else [],
        "categories": breakdown(judged, lambda j: j.row.categories, seed),
        "policies": fired(judged) if any(j.row.policy is None for j in judged)
        else breakdown(judged, lambda j: (_title(j.row.policy),), seed),
    }


def detail(judged: Sequence[Judged]) -> dict[str, Any]:
    """What a paired comparison of two runs needs, no content: labels and outcomes, one character a row, and scores."""
    scores = _scores(judged)
    ids = hashlib.sha256("\n".join(j.row.id for j in judged).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return {"ids": ids, "labels": "".join("01"[j.row.unsafe] for j in judged),
            "outcomes": "".join("e" if j.decision == "error" else "01"[j.detected] for j in judged),
            "scores": [round(v, 4) for v in scores] if scores else []}


def _figures(judged: Sequence[Judged], seed: int, draws: int = score.DRAWS) -> dict[str, Any]:
    return score.scored([j.row.unsafe for j in judged], [j.detected for j in judged],
                        [j.decision == "error" for j in judged], _scores(judged), seed, draws)


def _scores(judged: Sequence[Judged]) -> list[float] | None:
    """Scores, or None unless every readable row has one."""
    if any(j.score is None and j.decision != "error" for j in judged):
        return None
    return [j.score or 0.0 for j in judged]


def breakdown(judged: Sequence[Judged], key: Any, seed: int = 0) -> dict[str, Any]:
    """Label, or rule owner -> rows, unsafe, recall, FPR; most rows first, at most sixty."""
    parts: dict[str, list[Judged]] = defaultdict(list)
    for j in judged:
        for k in key(j):
            parts[str(k)].append(j)
    out = {}
    for k, part in sorted(parts.items(), key=lambda kv: -len(kv[1]))[:60]:
        if len(part) >= FEW:
            f = _figures(part, seed, draws=0)
            out[k] = {"rows": f["rows"], "unsafe": f["unsafe"], "recall": f["recall"]["value"],
                      "FPR": f["fpr"]["value"]}
    return out


def fired(judged: Sequence[Judged]) -> dict[str, Any]:
    """Configured policy -> rows it fired on, and how many of them are unsafe. Rows with policies of their own are left
    out."""
    out: dict[str, dict[str, int]] = {}
    for j in judged:
        if j.row.policy is not None:
            continue
        for id in {r.partition("/")[0] for r in j.rules}:
            row = out.setdefault(id, {"fired": 0, "unsafe": 0})
            row["fired"] += 1
            row["unsafe"] += j.row.unsafe
    return dict(sorted(out.items(), key=lambda kv: -kv[1]["fired"]))


def _title(text: str | None) -> str:
    return " ".join((text or "").split())[:60]
