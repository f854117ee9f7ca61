"""What-if: which past exchanges would be decided differently under edited policies.

`replay RECORD --policies NEW/` reads either

- a captured set (the schema of rows.py): every row is judged under the policies of before and of after; or
- a record file of the firewall. Records hold no content, by law; so their exchanges are joined by id with a captured
  set (`--captured FILE`, rows whose id is the exchange's), which an operator keeps only if they chose to. A prompt row
  holds the request, a response row the request and the answer. What was decided then of each side is taken from the
  record, and an exchange's decision is the most severe of the sides compared. Exchanges without captured content are
  counted, not guessed, and so are sides of which only one is known, the decision of then or the content.

The guard alone is asked (guard only). Texts are never printed, only ids and rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.alone import Direct
from benchmarks.judged import SIDE, Judged, Progress, questions, shipped
from benchmarks.rows import BadRows, Row, objects, read, row
from benchmarks.tables import Grid
from firewall.verdict import RANK

LISTED = 40
Outcome = tuple[str, tuple[str, ...]]       # decision, rules


@dataclass(frozen=True, slots=True)
class Past:
    """What was decided of one side of an exchange. `monitored`: violations were only flagged, whatever their policies."""

    decision: str
    rules: tuple[str, ...] = ()
    monitored: bool = False

    def under(self, judged: Judged) -> Outcome:
        """What would have been done then, had the guard said this."""
        flagged = self.monitored and judged.decision in ("block", "redact")
        return ("flag" if flagged else judged.decision), judged.rules


Then = dict[tuple[str, str], Past | None]   # (exchange, side) -> what is known; None: cannot be compared


def past(path: Path, captured: Path | None) -> tuple[list[Row], Then, int]:
    """(rows to judge, one a side; what was decided then, where there are records; exchanges without content).

    Raises:
        BadRows: neither records nor a set, or records without `--captured`.
    """
    lines = [value for _, value in objects(path)]
    exchanges = {v["id"]: v for v in lines if v.get("event") == "exchange"}
    if not exchanges:
        return [row(v, f"{path.name}:{n}") for n, v in enumerate(lines, 1)] if lines else read(path), {}, 0
    if captured is None:
        raise BadRows(f"{path}: records hold no content; give --captured FILE with rows whose id is the exchange's id "
                      "(kept only where you chose to), or replay a captured set itself")
    content = {r.id: r for r in sorted(read(captured), key=lambda r: r.task)}       # a response row holds both sides
    rows: list[Row] = []
    then: Then = {}
    for id, record in exchanges.items():
        held = sides(content[id]) if id in content else {}
        for side in SIDE.values() if held else ():
            was, part = decided(record, side), held.get(side)
            if was is not None and part is not None:
                rows.append(part)
            if was is not None or part is not None:
                then[id, side] = was if part is not None else None
    return rows, then, len(exchanges.keys() - content.keys())


def sides(one: Row) -> dict[str, Row]:
    """Side -> the row that puts it on trial, of what a captured row holds."""
    if one.task == "prompt":
        return {"input": one}
    return {"output": one} | ({"input": replace(one, task="prompt", messages=one.asked)} if one.asked else {})


def decided(record: dict[str, Any], side: str) -> Past | None:
    """What a record says of one side; None where nobody judged it, or a guard's failure decided.

    A record names the rules of both sides together: they are this side's unless it was allowed.
    """
    decision = record.get(side, record["decision"])
    if decision not in RANK or decision == "error" or record.get("errors"):
        return None
    monitored = record.get("ending") == "answered" or (
        record.get("release") == "watch" and (side == "output" or decision == "flag"))
    return Past(decision, tuple(record.get("rules") or ()) if decision != "allow" else (), monitored)


async def what_if(way: Direct, rows: Sequence[Row], then: Then, after: Path, before: Path | None = None,
                  progress: Progress = lambda _: None) -> dict[str, Any]:
    """Judges rows under `after`, and under `before` where the decision of then is not known."""
    rows = [replace(r, policy=None) for r in rows]
    known = {id(r): p for r in rows if (p := then.get((r.id, SIDE[r.task])))}
    old = {key: (p.decision, p.rules) for key, p in known.items()}
    old |= {key: (j.decision, j.rules) for key, j in
            (await _judged(way, [r for r in rows if id(r) not in known], shipped(before), progress)).items()}
    new = {key: known[key].under(j) if key in known else (j.decision, j.rules)
           for key, j in (await _judged(way, rows, shipped(after), progress)).items()}
    exchanges: dict[Any, list[Row]] = {}
    for r in rows:
        exchanges.setdefault(r.id if id(r) in known else id(r), []).append(r)
    changed, kinds, errors = [], Counter[str](), 0
    for parts in exchanges.values():
        (was, why), (now, because) = (worst([side[id(r)] for r in parts]) for side in (old, new))
        errors += now == "error"
        if now != was:
            kinds[f"{was} -> {now}"] += 1
            changed.append({"id": parts[0].id, "before": was, "after": now, "rules_before": list(why),
                            "rules_after": list(because), "label": "unsafe" if parts[0].unsafe else "safe"})
    rules = Counter(r for c in changed for r in (*c["rules_before"], *c["rules_after"]))
    return {"rows": len(exchanges), "changed": len(changed), "kinds": dict(kinds.most_common()), "errors": errors,
            "not_compared": sum(p is None for p in then.values()), "by_rule": dict(rules.most_common(20)),
            "exchanges": changed}


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The most severe decision, and all rules."""
    return max((d for d, _ in outcomes), key=RANK.__getitem__), tuple(sorted({r for _, rules in outcomes for r in rules}))


async def _judged(way: Direct, rows: Sequence[Row], policies: dict[str, str], progress: Progress) -> dict[int, Judged]:
    """id() of a row -> judged."""
    out = {}
    async for judged in way.ask(questions(rows, policies)):
        out[id(judged.row)] = judged
        progress(1)
    return out


def grid(r: dict[str, Any]) -> Grid:
    rows = [(c["id"], c["before"], c["after"], " ".join(c["rules_before"]) or "–", " ".join(c["rules_after"]) or "–")
            for c in r["exchanges"][:LISTED]]
    kinds = ", ".join(f"{n} {k}" for k, n in r["kinds"].items()) or "nothing"
    more = f"; {r['changed'] - LISTED} more in the JSON" if r["changed"] > LISTED else ""
    gone = f"; {r['without_content']} exchanges without content were left out" if r.get("without_content") else ""
    apart = (f"; {r['not_compared']} sides could not be compared: not judged then, or not captured"
             if r.get("not_compared") else "")
    return Grid(f"{r['changed']} of {r['rows']} exchanges would be decided differently",
                ("id", "then", "now", "because of then", "because of now"), tuple(rows), f"{kinds}{more}{gone}{apart}")
