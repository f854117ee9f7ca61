"""Results -> tables. One grid serves the terminal (rich), the documents (Markdown) and the page (HTML)."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from benchmarks.detect import seen

DEV = " (dev)"
NUMBER = re.compile(r"[-+]?[\d.]+(\s|$)|–|[\d.]+ /")


@dataclass(frozen=True, slots=True)
class Grid:
    """A titled table of strings. `note` is printed below; `brief` names the columns that a terminal has room for."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    brief: tuple[int, ...] = ()

    def rich(self) -> Table:
        table = Table(title=escape(self.title), caption=escape(self.note) or None, caption_justify="left",
                      title_justify="left")
        shown = self.brief or tuple(range(len(self.columns)))
        for n in shown:
            table.add_column(self.columns[n], justify="right" if n else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(escape(row[n]) for n in shown))
        return table

    def markdown(self) -> str:
        lines = ["| " + " | ".join(self.columns) + " |", "|" + "---|" + "---:|" * (len(self.columns) - 1)]
        lines += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in self.rows]
        return "\n".join(lines) + (f"\n\n{self.note}" if self.note else "")

    def html(self) -> str:
        words = [all(not NUMBER.match(row[n]) for row in self.rows) for n in range(len(self.columns))]
        left = [" class=t" if word or not n else "" for n, word in enumerate(words)]
        head = "".join(f"<th{k}>{html.escape(c)}</th>" for c, k in zip(self.columns, left, strict=True))
        cells = ["".join(f"<td{k}>{html.escape(c)}</td>" for c, k in zip(row, left, strict=True)) for row in self.rows]
        body = "".join(f"<tr>{one}</tr>" for one in cells)
        note = f"<p class=note>{html.escape(self.note)}</p>" if self.note else ""
        return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"


def number(value: Any, places: int = 3) -> str:
    """A figure, or a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.{places}f}"
    return str(value)


def between(figure: dict[str, Any] | None) -> str:
    """`.842 [.81, .87]`"""
    if not figure or figure["value"] is None:
        return "–"
    if figure["low"] is None:
        return number(figure["value"])
    return f"{figure['value']:.3f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def _anchor(a: dict[str, Any] | None) -> str:
    if not a:
        return "–"
    rsafe = f"; RSafe {a['rsafe']:.1f}" if "rsafe" in a else ""
    return f"{a['best']:.1f} {a['by']}{rsafe}" + (f" ({a['figure']})" if "figure" in a else "")


def marked(r: dict[str, Any]) -> str:
    """A set's name, with `(dev)` where the guard's training looked at it."""
    return r["file"] + (DEV if seen(r).get("development") else "")


def _dev(rows: Sequence[tuple[str, ...]]) -> str:
    """What the mark means, where a row has it."""
    return (" (dev): a development set, looked at while the guard was trained; its figures are no test."
            if any(row[0].endswith(DEV) for row in rows) else "")


def _known(results: Sequence[dict[str, Any]]) -> str:
    """What of these sets was in training."""
    parts = "; ".join(f"{r['file']}: {s['note']}" for r in results if "note" in (s := seen(r)))
    return f" Overlap with training: {parts}." if parts else ""


def _seeds(r: dict[str, Any]) -> str:
    """F1 of each draw."""
    if r["F1"] is None:
        return ""
    return " ".join(f"{one['F1']:.2f}".lstrip("0") if one["F1"] is not None else "–" for one in r.get("by_seed", ()))


def detection(results: Sequence[dict[str, Any]]) -> Grid:
    """One line a set."""
    rows = [(marked(r), r["way"], str(r["rows"]), number(100 * r["unsafe"] / max(1, r["rows"]), 0) + " %",
             between(r["intervals"]["f1"]), _seeds(r) or "–", number(r["floor"]), number(r["precision"]),
             between(r["intervals"]["recall"]), between(r["intervals"]["fpr"]), between(r["intervals"]["auroc"]),
             between(r["intervals"]["auprc"]), number(r["recall_at_fpr1"]), number(r["recall_at_fpr5"]),
             str(r["unreadable"]), number(r["latency"]["p50"], 1), number(r["latency"]["p99"], 1),
             number(r["rows_per_second"], 0), number(r.get("cpu_ms"), 1), _anchor(r.get("anchor")))
            for r in results]
    drawn = " Sampled sets: three disjoint draws, F1 of each." if any(r.get("by_seed") for r in results) else ""
    note = ("floor: F1 of calling every row unsafe. Brackets: 95 % bootstrap. Unreadable rows count as wrong. R@1, R@5: "
            "recall at a false-positive rate of 1 and 5 %. ms: of a request, several in flight. CPU: of the firewall, "
            f"guard included, a row.{drawn}{_dev(rows)}{_known(results)}")
    return Grid("Detection", ("set", "way", "rows", "unsafe", "F1", "F1 by seed", "floor", "precision", "recall", "FPR",
                              "AUROC", "AUPRC", "R@1", "R@5", "unread.", "p50 ms", "p99 ms", "rows/s",
                              "CPU ms", "published F1"), tuple(rows), note, brief=(0, 2, 4, 6, 8, 9, 10, 14, 15))


def categories(results: Sequence[dict[str, Any]], most: int = 25) -> Grid:
    """One line a set and label; at most so many a set."""
    rows = [(marked(r), k, str(v["rows"]), str(v["unsafe"]), number(v["recall"]), number(v["FPR"]))
            for r in results for k, v in list(r["categories"].items())[:most]]
    return Grid("Per category", ("set", "category", "rows", "unsafe", "recall", "FPR"), tuple(rows),
                f"Labels with fewer than five rows are not listed.{_dev(rows)}")


def policies(results: Sequence[dict[str, Any]], most: int = 12) -> Grid:
    """Sets with policies of their own, one line a policy; at most so many a set."""
    rows = [(marked(r), k, str(v["rows"]), str(v["unsafe"]), number(v["recall"]), number(v["FPR"]))
            for r in results for k, v in list(r["policies"].items())[:most] if "rows" in v]
    return Grid("Per policy of the set", ("set", "policy (first words)", "rows", "unsafe", "recall", "FPR"),
                tuple(rows), f"Policies with fewer than five rows are not listed.{_dev(rows)}")


def fired(results: Sequence[dict[str, Any]]) -> Grid:
    """Shipped policies over all sets without policies of their own: how often each fired, and on what."""
    total: dict[str, list[int]] = {}
    sets: dict[str, int] = {}
    for r in results:
        for k, v in r["policies"].items():
            if "fired" in v:
                mine = total.setdefault(k, [0, 0])
                mine[0] += v["fired"]
                mine[1] += v["unsafe"]
                sets[k] = sets.get(k, 0) + 1
    rows = [(k, str(n), str(bad), number(bad / n), str(sets[k]))
            for k, (n, bad) in sorted(total.items(), key=lambda kv: -kv[1][0]) if n]
    return Grid("Per shipped policy", ("policy", "fired on rows", "of them unsafe", "precision", "in sets"), tuple(rows),
                "A row may be stopped by several policies. Unsafe: by the label of the set, whatever its reason."
                + (" Development sets are included." if any(seen(r).get("development") for r in results) else ""))


def controls(results: Sequence[dict[str, Any]]) -> Grid:
    """Crossed controls, one line a set and control."""
    rows = []
    for r in results:
        for name, c in r["controls"].items():
            rows.append((marked(r), name, str(r["rows"]), between(c["auroc"]), between(c["f1"]), number(c["detected"]),
                         number(c["flips"]), number(c["released"]), number(c["moved"])))
    note = ("Guard only. flips: decisions that differ from those under the right policy; released: share of its "
            "detections that become allow. A guard that reads has AUROC near .5 under absent, wrong and permissive, "
            "and flips near 0 under shuffled and renamed.")
    note += _dev(rows) + _known(results)
    if lost := sum(c["unreadable"] for r in results for c in r["controls"].values()):
        note += f" Rows without a readable verdict: {lost}; they count as wrong, as flips, and as no release."
    return Grid("Does it read the policy?", ("set", "policy", "rows", "AUROC", "F1", "detected", "flips", "released",
                                             "score move"), tuple(rows), note)


def rules(r: dict[str, Any]) -> Grid:
    """Crossed set: AUROC of each rule over all scenarios."""
    rows = sorted(r["per_rule"].items(), key=lambda kv: -(kv[1] or 0.0))
    return Grid("Crossed set, per rule", ("rule", "AUROC over scenarios"), tuple((k, number(v)) for k, v in rows))


def streams(r: dict[str, Any]) -> Grid:
    """All stream figures, one a line."""
    leak, delay, first, late = r["leak_chars"], r["delay_chars"], r["ttft_added_ms"], r["frame_delay_ms"]

    def pct(v: float | None) -> str:
        return "–" if v is None else f"{100 * v:.1f} %"
    rows = [("streams (violating / benign)", f"{r['violating']} / {r['benign']}"),
            ("leak, violating characters: mean / p95 / max",
             f"{number(leak['mean'], 1)} / {number(leak['p95'], 0)} / {number(leak['max'], 0)}"),
            ("on time / late / early / missed",
             " / ".join(pct(r[k]) for k in ("on_time", "late", "early", "missed"))),
            ("blocked with a leak of at most 0 / 32 / 128 characters",
             " / ".join(pct(r[k]) for k in ("on_time", "leak_at_most_32", "leak_at_most_128"))),
            ("exact hit / within 32 / within 128 characters",
             " / ".join(pct(r[k]) for k in ("exact_hit", "within_32", "within_128"))),
            ("delay of detection, characters: p50 / p95", f"{number(delay['p50'], 0)} / {number(delay['p95'], 0)}"),
            ("false cuts of benign streams", pct(r["false_cuts"])),
            ("cut out (redacted) instead of blocked", str(r.get("masked", 0))),
            ("first text minus direct, ms: p50 / p99", f"{number(first['p50'], 1)} / {number(first['p99'], 1)}"),
            ("frame minus direct, ms: p50 / p99", f"{number(late['p50'], 1)} / {number(late['p99'], 1)}"),
            ("stall share", pct(r["stall_share"])),
            ("guard calls / guard tokens a streamed token",
             f"{number(r['guard_calls_per_token'], 2)} / {number(r['guard_tokens_per_token'], 1)}"),
            ("streamed verdict equals whole verdict", pct(r["equal_to_whole"])),
            ("passed streams verbatim", "yes" if r["verbatim"] else "NO"), ("errors", str(r["errors"]))]
    return Grid(f"Streams at {1 / r['cadence_s']:.0f} tokens/s", ("figure", "value"), tuple(rows))


def transparency(r: dict[str, Any]) -> Grid:
    kinds = ", ".join(f"{n} {d}" for d, n in r["dialects"].items())
    rows = [(kinds, str(r["runs"]), str(r["equal"]), str(len(r["differ"])), str(r["refused"]))]
    return Grid("Transparency", ("streams", "runs (streams x cuts)", "byte-equal", "differ", "refused"), tuple(rows),
                "; ".join([*r["differ"][:5], *(["refused: recordings with an event that is not JSON, answered with 502"]
                                               if r["refused"] else [])]))


def speed(r: dict[str, Any]) -> Grid:
    """One line a peer. A slow peer, measured with fewer streams, stands in the column of the first number."""
    peers = r["peers"]
    counts = sorted({int(n) for name, p in peers.items() for n in p.get("streams", {})
                     if len(peers) == 1 or name in ("firewall", "aiohttp", "nginx")}
                    or {int(n) for p in peers.values() for n in p.get("streams", {})})
    columns = ["proxy", "us/exchange", "us/32 kB prompt", "+p50 ms", "+p99 ms", "+first ms"]
    for n in counts:
        columns += [f"us/token @{n}", f"delivered @{n}", f"transit p99 ms @{n}", f"MB/1000 @{n}"]
    rows, fewer = [], []
    for name, p in peers.items():
        row = [name, *(number(p.get(k), d) for k, d in (("exchange_us", 1), ("long_us", 1), ("added_p50_ms", 3),
                                                       ("added_p99_ms", 3), ("added_first_ms", 3)))]
        had = p.get("streams", {})
        for k, n in enumerate(counts):
            s = had.get(str(n))
            if s is None and k == 0 and had:
                least = min(had, key=int)
                fewer.append(f"{name}: {least} streams")
                s = had[least]
            row += [number(s["token_us"], 1), f"{100 * s['delivered']:.1f} %", number(s["transit_p99_ms"], 1),
                    number(s["rss_mb_per_1000"] if str(n) in had else None, 1)] if s else ["–"] * 4
        rows.append(tuple(row))
    skipped = "; ".join(f"{k}: {v.splitlines()[0]}" for k, v in {**r["skipped"], **r["errors"]}.items())
    return Grid("Cost of the data plane", tuple(columns), tuple(rows),
                f"Medians of {r['rounds']} interleaved rounds; CPU of the process under test; streams at 20 tokens/s."
                + (f" Fewer, in the first columns: {', '.join(fewer)}." if fewer else "")
                + (f" Not measured: {skipped}." if skipped else ""))


def extras(r: dict[str, Any]) -> Grid:
    """Leaving clients and workers."""
    rows = []
    if gone := r.get("gone"):
        rows.append(("upstream closed after the client left, ms: p50 / max",
                     f"{number(gone['ms']['p50'], 1)} / {number(gone['ms']['max'], 1)}"))
    if w := r.get("workers"):
        rows += [("CPU us an exchange, 1 / 2 workers", f"{w['1']['exchange_us']} / {w['2']['exchange_us']}"),
                 ("gain of two workers by CPU: even / as the kernel spread connections",
                  f"{w['gain_even']} x / {w['gain_by_cpu']} x")]
    if lag := r.get("lag"):
        rows.append((f"answer of a refused request while the {lag.get('guard', 'embedded')} guard is saturated, ms: "
                     "p50 / p99",
                     f"{number(lag['p50'], 1)} / {number(lag['p99'], 1)}"))
    return Grid("Leaving and scaling", ("figure", "value"), tuple(rows))


def cost_rows(r: dict[str, Any]) -> Grid:
    """Cost against policies, words and turns."""
    rows = []
    for kind, curves in r["curves"].items():
        for curve, label in (("policies", "policies"), ("policy_words", "words in one policy"),
                             ("turns", "turns, 12 policies")):
            for x, us, ms in curves[curve]:
                rows.append((f"{x} {label}", kind, number(us, 0), number(ms, 2)))
    return Grid("Cost against what is asked", ("of", "guard", "CPU us an exchange", "p50 ms"), tuple(rows))
