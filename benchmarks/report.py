"""One self-contained HTML page: the tables and the plots, no external asset, light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import compare, replay, tables
from benchmarks.plots import Dot, chart, forest
from benchmarks.store import of
from benchmarks.tables import Grid

STYLE = """
:root{--bg:#fcfcfa;--ink:#1d2329;--soft:#5c6670;--rule:#dfe3e6;--card:#fff;--c0:#0b6bcb;--c1:#d1495b;--c2:#2e8b57;
--c3:#e08e0b;--c4:#7b5ea7;--c5:#12999b;--c6:#8a6d3b;--c7:#667}
@media(prefers-color-scheme:dark){:root{--bg:#14181c;--ink:#e6e9ec;--soft:#9aa5af;--rule:#2c343b;--card:#1b2026;
--c0:#5aa9f2;--c1:#f2808f;--c2:#5fcf95;--c3:#f5b94c;--c4:#b69be0;--c5:#4fd0d2;--c6:#cfae74;--c7:#aab}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,"DejaVu Sans",sans-serif}
main{max-width:1320px;margin:0 auto;padding:32px 24px 64px}h1{font-size:27px;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:19px;margin:44px 0 6px;letter-spacing:-.005em}h3{font-size:15px;margin:0 0 6px}
.meta,.note{color:var(--soft);font-size:13px}
.meta code{font-size:12px}.meta summary{font-size:13px;font-weight:400}.note{margin:6px 0 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:22px 0 0}
.tile,.card{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:14px 16px}
.tile b{display:block;font-size:24px;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.25}
.tile span{color:var(--soft);font-size:12.5px;line-height:1.35;display:block}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(430px,1fr));gap:16px;margin:14px 0}
.wide{overflow-x:auto;margin:10px 0}table{border-collapse:collapse;font-size:12.5px;font-variant-numeric:tabular-nums}
th,td{padding:4px 8px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th{color:var(--soft);font-weight:600;vertical-align:bottom}th:first-child,td:first-child{padding-left:0}.t{text-align:left}
tbody tr:hover{background:color-mix(in srgb,var(--c0) 7%,transparent)}
figure{margin:0}svg{width:100%;height:auto;display:block}.grid{stroke:var(--rule)}.chance{stroke:var(--soft);
stroke-dasharray:4 4;opacity:.6}.tick{fill:var(--soft);font-size:11px}.label{fill:var(--ink);font-size:12px}
.mark{fill:var(--card);stroke-width:1.8}
details{margin:10px 0}summary{cursor:pointer;font-weight:600;font-size:14px}summary i{color:var(--soft);font-weight:400;
font-size:12.5px;margin-left:6px}
.line{fill:none;stroke-width:2;stroke-linejoin:round}figcaption{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:12px;
color:var(--soft);padding-left:58px}figcaption i{display:inline-block;width:12px;height:3px;border-radius:2px;
margin-right:6px;vertical-align:middle}
""" + "".join(f".line.c{n},.mark.c{n}{{stroke:var(--c{n})}}.dot.c{n}{{fill:var(--c{n})}}i.c{n}{{background:var(--c{n})}}"
              for n in range(8))


def page(results: Sequence[dict[str, Any]], against: Sequence[dict[str, Any]] = ()) -> str:
    """The whole page. `against` adds what changed since those results."""
    out = [f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
           f"<title>Firewall benchmarks</title><style>{STYLE}</style><main><h1>Firewall benchmarks</h1>",
           _meta(results), _tiles(results)]
    if against:
        out += [f"<h2>{html.escape(g.title)}</h2>{g.html()}" for g in compare.grids(against, results)]
    if found := of(results, "detect"):
        out.append(f"<h2>Detection</h2>{_cards(*_detected(found))}{tables.detection(found).html()}")
        curves, cards = {tables.marked(r): r["roc"] for r in found if r.get("roc")}, []
        panels = math.ceil(len(curves) / 6)
        for n in range(panels):
            part = dict(list(curves.items())[n::panels])
            cards.append(_card("ROC" + (f", {n + 1} of {panels}" if panels > 1 else ""), chart(
                part, "false-positive rate", "recall", y_max=1.0, diagonal=True, dots=False)))
        out.append(_cards(*cards))
        out += [_folded(g) for g in (tables.categories(found), tables.fired(found), tables.policies(found)) if g.rows]
    if found := of(results, "controls"):
        out.append(f"<h2>Does it read the policy?</h2>{_cards(*_controlled(found))}")
        out.append(_folded(tables.controls(found)))
    for r in of(results, "streams"):
        out.append(_section(f"Streams at {1 / r['cadence_s']:.0f} tokens a second", tables.streams(r)))
        leak = chart({"violating streams": r["leak_curve"]}, "violating characters", "share of streams", y_max=1.0,
                     steps=True)
        out.append(_cards(_card("Leak: violating characters that left before the block", leak),
                          _card("Where the block fell", _blocks(r))))
    for r in of(results, "transparency"):
        out.append(_section("Transparency", tables.transparency(r)))
    for r in of(results, "speed"):
        out.append(f"<h2>Speed</h2>{_cards(*_spent(r))}{tables.speed(r).html()}")
        rows = r.get("concurrency", {})
        out.append(_cards(
            _card("Latency against concurrency (p50)", chart({k: [[v[0], v[1]] for v in p] for k, p in rows.items()},
                                                             "connections", "ms", log_x=True, log_y=True)),
            _card("Latency against concurrency (p99)", chart({k: [[v[0], v[2]] for v in p] for k, p in rows.items()},
                                                             "connections", "ms", log_x=True, log_y=True))))
        out.append(tables.extras(r).html())
    for r in of(results, "costs"):
        out.append("<h2>What grows with what</h2>")
        cards = []
        for curve, label in (("policies", "policies"), ("policy_words", "words in one policy"), ("turns", "turns")):
            waits = {k: [[p[0], p[2]] for p in c[curve]] for k, c in r["curves"].items()}
            cards.append(_card(f"Waiting against {label}", chart(waits, label, "p50 ms")))
        cards.append(_card("Plumbing against policies", chart({"scripted guard": [[p[0], p[1]] for p in
                                                              r["curves"].get("scripted", {}).get("policies", [])]},
                                                              "policies", "CPU us an exchange")))
        out += [_cards(*cards), _folded(tables.cost_rows(r))]
    for r in of(results, "replay"):
        out.append(_section("What if", replay.grid(r)))
    return "".join(out) + "</main></html>\n"


def write(path: Path, results: Sequence[dict[str, Any]], against: Sequence[dict[str, Any]] = ()) -> None:
    path.write_text(page(results, against), "utf-8")


def _section(title: str, grid: Grid) -> str:
    return f"<h2>{html.escape(title)}</h2>{grid.html()}"


def _detected(found: Sequence[dict[str, Any]]) -> list[str]:
    """F1 and AUROC of every set beside what they must be read against; innocent sets by their false positives."""
    def dots(key: str, name: str, kept: Sequence[dict[str, Any]], marks: Any) -> list[Dot]:
        return [Dot(tables.marked(r), r[key], r["intervals"][name]["low"], r["intervals"][name]["high"], marks(r))
                for r in kept if r[key] is not None]
    both = [r for r in found if r["AUROC"] is not None]
    innocent = [r for r in found if not r["unsafe"]]
    guilty = [r for r in found if r["unsafe"] == r["rows"]]
    cards = [("F1, sets with both labels", forest(dots("F1", "f1", both, _beside), "F1, 95 % interval")),
             ("AUROC, sets with both labels", forest(dots("AUROC", "auroc", both, lambda r: {}), "AUROC, 95 % interval"))]
    if innocent:
        cards.append(("False positives, innocent sets", forest(dots("FPR", "fpr", innocent, lambda r: {}),
                                                               "share stopped")))
    if guilty:
        cards.append(("Recall, sets that are all unsafe", forest(dots("recall", "recall", guilty, lambda r: {}),
                                                                 "share stopped")))
    return [_card(title, body) for title, body in cards if "<svg" in body]


def _beside(r: dict[str, Any]) -> dict[str, float | None]:
    a = r.get("anchor") or {}
    f1 = "figure" not in a
    return {"floor: all unsafe": r["floor"], "best published": a["best"] / 100 if "best" in a and f1 else None,
            "RSafe": a["rsafe"] / 100 if "rsafe" in a and f1 else None}


def _controlled(found: Sequence[dict[str, Any]]) -> list[str]:
    """AUROC and flips under each control, a card a set."""
    out = []
    for r in found:
        dots = [Dot(name, c["auroc"]["value"], c["auroc"]["low"], c["auroc"]["high"], {"share of decisions flipped":
                                                                                       c["flips"]})
                for name, c in r["controls"].items() if c["auroc"]["value"] is not None]
        out.append(_card(r["file"], forest(dots, "AUROC, 95 % interval", value="AUROC")))
    return out


def _spent(r: dict[str, Any]) -> list[str]:
    """CPU of each proxy: an exchange, and a token at the first number of streams."""
    whole = [Dot(name, p["exchange_us"]) for name, p in r["peers"].items() if p.get("exchange_us")]
    tokens = [(n, [Dot(name, p["streams"][n]["token_us"]) for name, p in r["peers"].items()
                   if p.get("streams", {}).get(n, {}).get("token_us")])
              for n in list(dict.fromkeys(n for p in r["peers"].values() for n in p.get("streams", {})))[:1]]
    cards = [("CPU a whole exchange", "microseconds", whole)]
    cards += [(f"CPU a token, {n} streams", "microseconds", dots) for n, dots in tokens]
    return [_card(title, forest(dots, x, x_max=max(d.value for d in dots), bars=True)) for title, x, dots in cards if dots]


def _folded(grid: Grid) -> str:
    """A long table behind its title."""
    return f"<details><summary>{html.escape(grid.title)} <i>{len(grid.rows)} lines</i></summary>{grid.html()}</details>"


def _card(title: str, body: str) -> str:
    return f"<div class=card><h3>{html.escape(title)}</h3>{body}</div>"


def _cards(*cards: str) -> str:
    return f"<div class=cards>{''.join(cards)}</div>" if cards else ""


def _meta(results: Sequence[dict[str, Any]]) -> str:
    """The machine and the days; folded, one line a command."""
    machines: dict[str, None] = {}
    commands: dict[tuple[str, str], str] = {}
    for r in results:
        m = r.get("meta") or {}
        machines.setdefault(f"{m.get('machine', '')}, Python {m.get('python', '')}")
        commands.setdefault((m.get("command", ""), m.get("guard") or "-"),
                            f"{m.get('date', '')[:16].replace('T', ' ')} UTC, commit {m.get('commit') or '?'}")
    lines = [f"{when}, guard {html.escape(guard)}: <code>{html.escape(command)}</code>"
             for (command, guard), when in commands.items()]
    days = sorted({(r.get("meta") or {}).get("date", "")[:10] for r in results})
    head = f"{html.escape(' and '.join(machines))}<br>{' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
    return (f"<p class=meta>{head}</p><details class=meta><summary>Commits and commands <i>{len(commands)}</i></summary>"
            f"<p>{'<br>'.join(lines)}</p></details>")


def _tiles(results: Sequence[dict[str, Any]]) -> str:
    """The few figures one asks for first."""
    tiles: list[tuple[str, str]] = []
    for r in of(results, "detect"):
        if r["file"] == "quick":
            tiles += [(tables.number(r["F1"]), f"F1 on our quick set (floor {r['floor']:.2f})"),
                      (f"{100 * (r['FPR'] or 0):.1f} %", "innocent rows stopped, quick set")]
    for r in of(results, "controls"):
        if r["file"] == "crossed" and "right_minus_wrong" in r:
            tiles.append((f"{r['right_minus_wrong']:+.3f}", "AUROC lost when policies are swapped (crossed set)"))
    for r in of(results, "streams"):
        tiles += [(tables.number(r["leak_chars"]["mean"], 1), "violating characters leaked a stream, mean"),
                  (f"{100 * (r['false_cuts'] or 0):.1f} %", "innocent streams cut")]
    for r in of(results, "speed"):
        if f := r["peers"].get("firewall"):
            tiles += [(f"{f['exchange_us']:.0f} us", "CPU a whole exchange, zero-cost guard"),
                      *((f"{s['token_us']:.1f} us", f"CPU a token at {n} streams")
                        for n, s in list(f.get("streams", {}).items())[:1]),
                      (f"{f['added_p50_ms']:.2f} ms", "added to the median answer")]
    for r in of(results, "capacity"):
        tiles.append((f"{r['rows_per_second']:.0f}/s", "rows replayed through the proxy"))
    return "<div class=tiles>" + "".join(f"<div class=tile><b>{html.escape(a)}</b><span>{html.escape(b)}</span></div>"
                                         for a, b in tiles) + "</div>"


def _blocks(r: dict[str, Any]) -> str:
    """Characters after the onset at which each violating stream was decided, sorted."""
    caught = sorted(c["decided"] - c["onset"] for c in r["cases"] if c["onset"] is not None and c["blocked"])
    points = [[k + 1, max(0, d)] for k, d in enumerate(caught)]
    return chart({"characters after the onset": points}, "blocked streams, sorted", "characters")
