"""python -m benchmarks: run, policy, streams, transparency, speed, costs, all, flame, gate, compare, replay, report."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

try:
    import psutil as psutil
except ModuleNotFoundError:
    print("benchmarks: 'psutil' is not installed. Measuring needs it: pip install '.[bench]'", file=sys.stderr)
    sys.exit(2)

from benchmarks import (
    compare,
    control,
    detect,
    docs,
    everything,
    flame,
    gate,
    overhead,
    replay,
    report,
    store,
    suite,
    tables,
)
from benchmarks.load import Broken
from benchmarks.loaders import READERS
from benchmarks.meta import meta
from benchmarks.rows import BadRows
from benchmarks.suite import Choice, Shown
from benchmarks.system import NotStarted
from firewall.errors import Mistakes

TEACH = f"""
examples:
  python -m benchmarks run quick                              our own sets, offline, under three minutes
  python -m benchmarks run data/*.jsonl.xz --json out.json    any files in the row schema, through the front door
  python -m benchmarks run toxicchat:toxic-chat.csv           a published layout from a file ...
  python -m benchmarks run xstest: --limit 200 --seeds 3      ... or from its hub (needs `pip install datasets`)
  python -m benchmarks run data/x.jsonl --direct              the guard alone, no HTTP (tables say so)
  python -m benchmarks policy                                 does the guard read the policy? crossed controls
  python -m benchmarks streams                                leak, delay, false cuts, added latency
  python -m benchmarks speed --peers firewall,aiohttp,nginx   cost of the data plane beside the field
  python -m benchmarks all --json-dir out                     everything; then rewrites the tables in docs/
  python -m benchmarks report out --html page.html            one page with plots
  python -m benchmarks compare A.json B.json                  what changed, with intervals
  python -m benchmarks gate                                   exit 1 when a figure falls under benchmarks/bars.toml
  python -m benchmarks replay records.jsonl --captured set.jsonl --policies NEW/    what if the policies were these?

layouts: {', '.join(sorted(READERS))}
"""


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(add_help=False)
    out.add_argument("--json", metavar="FILE", type=Path, help="write results here, one JSON object a set or run")
    out.add_argument("--html", metavar="FILE", type=Path, help="also write the page with plots")
    guarded = argparse.ArgumentParser(add_help=False)
    guarded.add_argument("--guard", default="embedded", metavar="KIND",
                         help="embedded | vllm | transformers | remote:URL | webhook:URL | scripted (default embedded)")
    guarded.add_argument("--policies", metavar="DIR", type=Path, help="policies for rows without their own (shipped)")
    guarded.add_argument("--config", metavar="FILE", type=Path, help="firewall.toml whose [guard] is used")
    guarded.add_argument("--concurrency", type=int, default=8, help="requests in flight a lane (default 8)")
    guarded.add_argument("--lanes", type=int, default=0, help="firewalls that share the rows (default: one a core)")
    guarded.add_argument("--core", type=int, help="pin the process under test to this core")
    top = argparse.ArgumentParser(prog="python -m benchmarks", epilog=TEACH, description="Measures what a user gets: "
                                  "real HTTP through the real firewall, with a scripted upstream behind it.",
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = commands.add_parser("run", parents=[out, guarded], help="detection over sets, or `quick`")
    run.add_argument("sets", nargs="+", metavar="SET", help="quick, FILE.jsonl[.xz|.gz], LAYOUT:PATH, LAYOUT:HUB/NAME")
    run.add_argument("--direct", action="store_true", help="ask the guard alone instead of going through the door")
    run.add_argument("--stream", action="store_true", help="replay answers as streams instead of whole")
    run.add_argument("--limit", type=int, default=0, help="at most so many rows a set, sampled (default all)")
    run.add_argument("--seeds", type=int, default=0,
                     help="draws of a sample (default 3); without sampling: repeats, for guards that draw (default 1)")

    policy = commands.add_parser("policy", parents=[out, guarded], help="crossed controls: does the guard read?")
    policy.add_argument("sets", nargs="*", metavar="SET", help="sets with policies (default: our crossed set)")
    policy.add_argument("--limit", type=int, default=600, help="rows a set and control (default 600)")

    streams = commands.add_parser("streams", parents=[out, guarded], help="leak, delay, false cuts, stall")
    streams.add_argument("file", nargs="?", type=Path, help="a set of streams (default: ours)")
    streams.add_argument("--cadence", type=float, default=0.05, help="seconds between tokens (default 0.05)")
    streams.add_argument("--at-once", type=int, default=4, help="streams at the same time (default 4)")
    streams.add_argument("--limit", type=int, default=0)

    clear = commands.add_parser("transparency", parents=[out], help="byte equality direct against through")
    clear.add_argument("folder", nargs="?", type=Path, help="recorded streams (default: our own)")

    speed = commands.add_parser("speed", parents=[out, guarded], help="cost of the data plane beside the field")
    speed.add_argument("--peers", default=",".join(overhead.NAMES), help=f"default {','.join(overhead.NAMES)}")
    speed.add_argument("--rounds", type=int, default=3)
    speed.add_argument("--requests", type=int, default=2000)
    speed.add_argument("--streams", default="1000", help="streams at once, comma separated (default 1000)")
    speed.add_argument("--most", type=int, default=2000, help="streams tried once with firewall and nginx; 0: not")
    speed.add_argument("--seconds", type=float, default=5.0, help="of each streams run")
    commands.add_parser("costs", parents=[out, guarded], help="cost against policies, words and turns")

    every = commands.add_parser("all", parents=[guarded], help="the full run; rewrites the tables in docs/")
    every.add_argument("--json-dir", type=Path, required=True, metavar="DIR")
    every.add_argument("--data", type=Path, metavar="DIR", help="folder of test sets in the row schema")
    every.add_argument("--fixtures", type=Path, metavar="DIR", help="folder of recorded streams")
    every.add_argument("--limit", type=int, default=300, help="rows a set (default 300; 0 all)")
    every.add_argument("--seeds", type=int, default=0, help="draws of each sample (default 3)")
    every.add_argument("--only", default="", help=f"of {','.join(everything.PARTS)},flame; or units: detect:hatecheck")
    every.add_argument("--fresh", action="store_true", help="measure again what the folder already holds")
    every.add_argument("--peers", default=",".join(overhead.NAMES))
    every.add_argument("--no-docs", action="store_true", help="leave docs/ alone")

    burning = commands.add_parser("flame", help="a flame graph of the data plane (needs py-spy)")
    burning.add_argument("load", choices=flame.LOADS)
    burning.add_argument("svg", type=Path)

    gated = commands.add_parser("gate", parents=[guarded], help="exit 1 when a figure falls under its bar")
    gated.add_argument("results", nargs="?", type=Path, help="results to check (default: runs the quick sets now)")
    gated.add_argument("--bars", type=Path, default=detect.HERE / "bars.toml")

    comparing = commands.add_parser("compare", help="what changed between two runs")
    comparing.add_argument("a", type=Path)
    comparing.add_argument("b", type=Path)

    again = commands.add_parser("replay", parents=[out, guarded], help="what if: edited policies on past exchanges")
    again.add_argument("record", type=Path, help="a record file, or a captured set")
    again.add_argument("--captured", type=Path, help="content of the record's exchanges: rows with their ids")
    again.add_argument("--before", type=Path, metavar="DIR", help="policies of then (default: the configured ones)")

    telling = commands.add_parser("report", help="tables and the page from saved results")
    telling.add_argument("results", type=Path, help="a file or folder of results")
    telling.add_argument("--html", metavar="FILE", type=Path)
    telling.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="what changed from A to B")
    telling.add_argument("--docs", action="store_true", help="rewrite the measured tables in docs/")
    return top


def chosen(args: argparse.Namespace) -> Choice:
    """Raises `BadRows` for what cannot be meant."""
    if args.config is not None and not args.config.is_file():
        raise BadRows(f"--config {args.config}: no such file")
    if getattr(args, "limit", 0) < 0:
        raise BadRows(f"--limit {args.limit}: a number of rows; 0 takes all")
    seeds = getattr(args, "seeds", 0)
    return Choice(args.guard, args.policies, args.config, getattr(args, "direct", False),
                  getattr(args, "stream", False), getattr(args, "limit", 0), seeds or 3, seeds > 1, args.concurrency,
                  args.lanes, args.core)


def show(results: Sequence[dict[str, Any]], console: Console) -> None:
    """The tables of results."""
    for kind, grid in (("detect", tables.detection), ("controls", tables.controls)):
        if found := store.of(results, kind):
            console.print(grid(found).rich())
    for kind, one in (("streams", tables.streams), ("transparency", tables.transparency), ("speed", tables.speed),
                      ("costs", tables.cost_rows), ("replay", replay.grid)):
        for r in store.of(results, kind):
            console.print(one(r).rich())
            if kind == "speed":
                console.print(tables.extras(r).rich())
    for r in store.of(results, "capacity"):
        console.print(f"replay through the proxy, zero-cost guard: {r['rows_per_second']:.0f} rows/s")


async def measured(args: argparse.Namespace, shown: Shown) -> list[dict[str, Any]]:
    """Runs one command that measures."""
    if args.command == "transparency":
        return [await suite.transparent(args.folder, Choice("scripted"), shown)]
    choice = chosen(args)
    if args.command == "run":
        if args.sets == ["quick"]:
            return await suite.quick(choice, shown)
        return await suite.sets([detect.named(s) for s in args.sets], choice, shown)
    if args.command == "policy":
        named = [detect.named(s) for s in args.sets] or [("crossed", control.crossed())]
        async with choice.alone() as way:
            return [r for name, rows in named
                    for r in await suite.crossed(way, name, rows, choice, shown, args.limit)]
    if args.command == "streams":
        return [await suite.stream(choice, shown, path=args.file, cadence=args.cadence, concurrency=args.at_once,
                                   limit=args.limit)]
    if args.command == "speed":
        return [await suite.fast(choice, shown, args.peers.split(","), rounds=args.rounds, requests=args.requests,
                                 counts=[int(n) for n in args.streams.split(",") if n], most=args.most,
                                 seconds=args.seconds)]
    if args.command == "costs":
        return [await suite.cost(choice, shown)]
    if args.policies is None:
        raise BadRows("replay: give --policies DIR, the edited policies")
    rows, then, lost = replay.past(args.record, args.captured)
    async with choice.alone() as way:
        with shown.bar("replay", len(rows) * (1 if then else 2)) as step:
            found = await replay.what_if(way, rows, then, args.policies, args.before, step)
    return [{"kind": "replay", **found, "without_content": lost, "meta": meta(args.guard)}]


async def full(args: argparse.Namespace, shown: Shown, console: Console) -> None:
    """`all`: each unit is shown and saved as it is done; then the page and the documents are written."""
    only = [p for p in args.only.split(",") if p]
    async for part in everything.everything(args.json_dir, chosen(args), shown, data=args.data, fixtures=args.fixtures,
                                            only=only, names=args.peers.split(","), fresh=args.fresh):
        show(part, console)
    results = store.load(args.json_dir)
    report.write(args.json_dir / "report.html", results)
    if args.no_docs:
        return
    if not only or "flame" in only:
        try:
            for load in flame.LOADS:
                shown.say(f"flame: {load}")
                await flame.flame(load, docs.DOCS / f"flame-{load}.svg")
        except BadRows as e:
            console.print(str(e))
    console.print(f"docs: wrote {', '.join(docs.write(results))}")


def held(args: argparse.Namespace, shown: Shown, console: Console) -> int:
    """`gate`."""
    results = store.load(args.results) if args.results else uvloop.run(suite.quick(chosen(args), shown))
    if not args.results:
        show(results, console)
    grid, good = gate.check(results, gate.bars(args.bars))
    console.print(grid.rich())
    return 0 if good else 1


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["--compare"]:
        given[0] = "compare"
    args = parser().parse_args(given)
    for name in (signal.SIGTERM, signal.SIGHUP):        # like Ctrl-C: what was started is ended, too
        signal.signal(name, signal.default_int_handler)
    console, shown = Console(), Shown(Console(stderr=True))
    if not console.is_terminal:
        console = Console(width=150)
    try:
        if args.command == "compare" or getattr(args, "compare", None):
            a, b = (store.load(p) for p in ((args.a, args.b) if args.command == "compare" else args.compare))
            for changed in compare.grids(a, b):
                console.print(changed.rich())
            if args.command == "compare":
                return 0
        if args.command == "gate":
            return held(args, shown, console)
        if args.command == "all":
            uvloop.run(full(args, shown, console))
            return 0
        if args.command == "flame":
            uvloop.run(flame.flame(args.load, args.svg))
            return 0
        if args.command == "report":
            results = store.load(args.results)
            against = store.load(args.compare[0]) if args.compare else ()
            show(results, console)
            if args.html:
                report.write(args.html, results, against)
            if args.docs:
                docs.write(results)
            return 0
        results = uvloop.run(measured(args, shown))
        show(results, console)
        if args.json:
            store.save(args.json, results)
        if args.html:
            report.write(args.html, results)
        return 0
    except (BadRows, Broken, NotStarted, store.BadResults, ValueError) as e:
        print(f"benchmarks: {e}", file=sys.stderr)
    except Mistakes as e:
        print("benchmarks:", *e.lines, sep="\n  ", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 2


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
