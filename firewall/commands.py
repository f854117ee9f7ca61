"""The command line's work that is not serving: check, policies, init, records."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from firewall.case import Case, Message, Said
from firewall.config import SHIPPED, Config
from firewall.errors import GuardDown, Mistakes
from firewall.folder import files, written
from firewall.guards.build import build, check
from firewall.guards.guard import Guard
from firewall.policy import Direction, Policy, PolicySet, load, parse
from firewall.template import policies as as_read
from firewall.verdict import decide

WIDE = 10_000           # columns of what is no terminal


def run(args: argparse.Namespace, settings: Callable[[argparse.Namespace], Config] | None) -> int:
    if args.command == "init":
        return init(args.folder)
    if args.command == "records":
        return verified(args.files)
    assert settings is not None
    config = settings(args)
    if args.command == "check":
        return asyncio.run(judge(config, args))
    if args.what == "list":
        return show_list(config)
    if args.what == "show":
        return show_one(config, args.id)
    return asyncio.run(test(config, args.ids, args.json))


def verified(files: Sequence[Path]) -> int:
    """Checks the chain of each file, and that each goes on from the one before. Raises `Mistakes` at the first break."""
    from firewall.proxy.records import Links, follow
    before, name = Links(), Path()
    for file in files:
        now = follow(file)
        if before.count and now.after and now.after != before.last:
            raise Mistakes([f"{file}: does not go on from {name}: a file between them is missing, or they are in another "
                            "order; name them from the oldest to the newest"])
        if before.ended and not now.after or before.after and now.count and not now.after:
            what = "begins a chain of its own" if now.count else "holds no records"
            raise Mistakes([f"{file}: {what}, so nothing links it to {name}: they are in another order (name them from the "
                            "oldest to the newest) or of two workers, or a file was removed, or moved while the firewall "
                            "was stopped"])
        if not now.count:
            print(f"{file}: holds no records")
        else:
            print(f"{file}: {now.count} records, chain intact",
                  f"  goes on from {now.after}" if now.after else "  begins a chain", f"  ends with {now.last}", sep="\n")
            before, name = now, file
    if not before.count:
        raise Mistakes(["nothing was verified: no records"])
    return 0


def active(config: Config) -> PolicySet:
    found = load(config.policy_folder, config.policies.enable, config.policies.disable, config.stream.release)
    check(found)
    return found


async def judge(config: Config, args: argparse.Namespace) -> int:
    """Judges one text and prints one JSON object. Exit 0 allow, redact or flag, 1 block, 2 no verdict."""
    try:
        text = sys.stdin.read() if args.text == "-" else args.text
        f"{text}{args.prompt}".encode()
    except UnicodeError:
        raise Mistakes(["the text is not UTF-8"]) from None
    if args.prompt and args.direction == "input":
        raise Mistakes(["--prompt is the user turn that an answer is for: it goes with --direction output"])
    policies = active(config).side(args.direction)
    guard = build(config, policies)
    if not policies:                # as when serving: nobody is asked
        print(json.dumps({"decision": "allow", "rules": [], "score": 0.0, "depth": config.guard.depth, "ms": 0.0,
                          "guard": guard.name, "reason": f"not judged: no active policy applies to {args.direction}"}))
        return 0
    await guard.start()
    began = time.perf_counter()
    try:
        said = (Said("choice/0/text", text),) if args.direction == "output" else ()
        messages = (Message("user", args.prompt if said else text, "messages/0/content"),) \
            if args.prompt or not said else ()
        case = Case(args.direction, policies, messages, said)
        verdict = await guard.judge(case)
        decision = decide((verdict,), policies)
        out = {"decision": decision.action, "rules": list(decision.rules), "score": round(verdict.score, 4),
               "depth": verdict.depth, "ms": round((time.perf_counter() - began) * 1e3, 1), "guard": verdict.guard,
               "reason": verdict.reason}
    except GuardDown as e:
        print(json.dumps({"decision": "error", "rules": [], "score": None, "depth": config.guard.depth,
                          "ms": round((time.perf_counter() - began) * 1e3, 1), "guard": guard.name,
                          "reason": e.detail}))
        return 2
    finally:
        await guard.close()
    print(json.dumps(out, ensure_ascii=False))
    return 1 if decision.action == "block" else 0


def show_list(config: Config) -> int:
    on = active(config)
    table = Table(title=f"policies of {config.policy_folder}, digest {on.digest}")
    for column in ("id", "on", "applies to", "action", "rules", "cases", "title"):
        table.add_column(column, no_wrap=column == "id")
    wrong: list[str] = []
    for p, cases in _read(config.policy_folder, (), wrong):
        table.add_row(p.id, "yes" if p.id in on.owner else "-", p.applies_to, p.action, str(len(p.rules)), str(len(cases)),
                      p.title)
    if wrong:
        raise Mistakes(wrong)
    _print(table)
    return 0


def show_one(config: Config, id: str) -> int:
    wrong: list[str] = []
    found = _read(config.policy_folder, [id], wrong, cases=False)
    if wrong:
        raise Mistakes(wrong)
    print(as_read([p for p, _ in found]))
    return 0


def _print(table: Table) -> None:
    """A table as it stands: titles are no markup, and what goes into a pipe or a file is as wide as it is."""
    console = Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else WIDE)
    with console.capture() as page:
        console.print(table)
    print(page.get(), end="")           # rich's own print would end with exit 1 where nobody reads on


@dataclass(frozen=True, slots=True)
class Example:
    """One case beside a policy: `expect` holds the rules it violates, empty when innocent."""

    direction: Direction
    text: str
    prompt: str
    expect: tuple[str, ...]


async def test(config: Config, ids: list[str], out: Path | None) -> int:
    """Runs every policy's cases with only that policy active. Exit 0 when at least 90 % are right each way, 1 when not.

    Raises:
        Mistakes: in the files, or there is nothing to test. GuardDown: at the first case without a verdict.
    """
    wrong: list[str] = []
    sets = [(replace(p, enabled=True), cases) for p, cases in _read(config.policy_folder, ids, wrong)]
    every = [c for _, cases in sets for c in cases]
    for kind, none in (("violating", not any(c.expect for c in every)), ("innocent", all(c.expect for c in every))):
        if none and not wrong:
            wrong.append(f"{config.policy_folder}: no {kind} case to test; write some into "
                         f"{sets[0][0].id if len(sets) == 1 else '<id>'}.cases.jsonl, see policies/README.md")
    if out:
        try:
            out.open("a").close()       # before the work, and without losing what an earlier run wrote
        except OSError as e:
            wrong.append(f"--json {out}: cannot be written ({e.strerror})")
    if wrong:
        raise Mistakes(wrong)
    stems = {path.stem for path in files(config.policy_folder)}
    if stray := [path.name for path in sorted(config.policy_folder.glob("*.cases.jsonl"))
                 if path.name.removesuffix(".cases.jsonl") not in stems]:
        print(f"beside no policy, so not tested: {', '.join(stray)}", file=sys.stderr)
    if bare := [p.id for p, cases in sets if not cases]:
        print(f"without cases, so not tested: {', '.join(bare)}", file=sys.stderr)
    sets = [(p, cases) for p, cases in sets if cases]
    tested = PolicySet.of(p for p, _ in sets)
    check(tested)
    guard = build(config, tested)
    await guard.start()
    rows: list[dict[str, Any]] = []
    console = Console(stderr=True)
    try:
        for policy, cases in track(sets, "judging", console=console, disable=not console.is_terminal):
            rows.append(await _score(guard, policy, cases))
    finally:
        await guard.close()
    total = {k: sum(r[k] for r in rows) for k in ("caught", "violating", "passed", "innocent", "cited")}
    table = Table(title=f"policies test, guard {guard.name}")
    for column in ("policy", "violating caught", "innocent passed", "right rule cited"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for r in [*rows, {"policy": "all", **total}]:
        table.add_row(r["policy"], _share(r["caught"], r["violating"]), _share(r["passed"], r["innocent"]),
                      _share(r["cited"], r["caught"]))
    _print(table)
    if out:
        out.write_text(json.dumps({"guard": guard.name, "fingerprint": guard.fingerprint, "untested": bare, "policies": rows,
                                   "all": total}, indent=1), "utf-8")
    good = total["caught"] >= 0.9 * total["violating"] and total["passed"] >= 0.9 * total["innocent"]
    if not good:
        print("under 90 % in one direction: see the table; edit the rules or the cases, or use a deeper guard",
              file=sys.stderr)
    return 0 if good else 1


async def _score(guard: Guard, policy: Policy, cases: list[Example]) -> dict[str, Any]:
    alone = PolicySet((policy,))
    row: dict[str, Any] = {"policy": policy.id, "caught": 0, "violating": 0, "passed": 0, "innocent": 0, "cited": 0}
    for c in cases:
        output = c.direction == "output"
        active = alone.side(c.direction)            # none where the policy does not apply, as when serving
        messages = (Message("user", c.prompt if output else c.text, "messages/0/content"),) \
            if c.prompt or not output else ()
        said = (Said("choice/0/text", c.text),) if output else ()
        try:
            verdicts = [await guard.judge(Case(c.direction, active, messages, said))] if active else []
        except GuardDown as e:
            raise GuardDown(e.code, f"no verdict on a case of {policy.id}: {e.detail}") from None
        hit = decide(verdicts, active)
        row["violating" if c.expect else "innocent"] += 1
        if c.expect:
            row["caught"] += hit.action != "allow"
            row["cited"] += bool(set(hit.rules) & set(c.expect))
        else:
            row["passed"] += hit.action == "allow"
    return row


def _read(folder: Path, ids: Sequence[str], wrong: list[str], cases: bool = True) -> list[tuple[Policy, list[Example]]]:
    """The named policies of a folder, or all, each with its cases. What is wrong in them is added to `wrong`. Raises
    `Mistakes` where the folder cannot be read."""
    paths = [folder / f"{id}.md" for id in dict.fromkeys(ids)] or files(folder)
    found = []
    if not paths:
        wrong.append(f"{folder}: no policy file (*.md) here")
    for path in paths:
        try:
            policy = parse(written(path), path.stem, str(path))
            found.append((policy, _cases(path.with_suffix(".cases.jsonl"), policy) if cases else []))
        except FileNotFoundError:
            wrong.append(f"no policy {path.stem!r} in {folder}; see `python -m firewall policies list`")
        except Mistakes as e:
            wrong += e.lines
    return found


def _cases(path: Path, policy: Policy) -> list[Example]:
    """The cases file of a policy, none where there is none. Raises `Mistakes` with file and line."""
    if not path.exists():
        return []
    known, out, wrong = {r.id for r in policy.rules} | {policy.id}, [], []
    try:
        lines = path.read_text("utf-8-sig").split("\n")         # not splitlines: JSON may hold U+2028
    except (OSError, UnicodeDecodeError) as e:
        raise Mistakes([f"{path}:1: cannot be read as UTF-8 text ({type(e).__name__})"]) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("one object a line")
            if lacks := {"direction", "text", "expect"} - row.keys():
                raise ValueError(f"it lacks {', '.join(sorted(lacks))}")
            text, prompt, expect = row["text"], row.get("prompt") or "", row["expect"]
            if not (isinstance(text, str) and isinstance(prompt, str) and isinstance(expect, list)):
                raise TypeError("text and prompt are texts, expect is a list of rule ids")
            f"{text}{prompt}".encode()                          # half a surrogate pair is no text
            example = Example(row["direction"], text, prompt, tuple(expect))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            wrong.append(f"{path}:{number}: not a case ({type(e).__name__}: {e}); see policies/README.md")
            continue
        if example.direction not in ("input", "output"):
            wrong.append(f"{path}:{number}: direction must be input or output")
        elif expect and policy.applies_to not in (example.direction, "both"):
            wrong.append(f"{path}:{number}: an {example.direction} cannot violate {policy.id}, which has `applies-to: "
                         f"{policy.applies_to}`; empty `expect`, or change one of the two")
        wrong += [f"{path}:{number}: unknown rule {r!r}" for r in expect if not isinstance(r, str) or r not in known]
        out.append(example)
    if wrong:
        raise Mistakes(wrong)
    return out


def _share(part: int, whole: int) -> str:
    return f"{part}/{whole}  {100 * part / whole:5.1f} %" if whole else "-"


def init(target: Path) -> int:
    """Writes firewall.toml and policies/ into a folder; nothing that exists is overwritten."""
    config, policies = target / "firewall.toml", target / "policies"
    taken = [str(p) for p in (config, policies) if p.exists()]
    if taken:
        raise Mistakes([f"{p} exists; init does not overwrite" for p in taken])
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise Mistakes([f"{target}: cannot be made ({e.strerror}); name another folder"]) from None
    text = (SHIPPED / "firewall.toml").read_text("utf-8")
    config.write_text(text.replace('\nfolder = ""', '\nfolder = "policies"'), "utf-8")
    shutil.copytree(SHIPPED / "policies", policies)
    print(f"wrote {config} and {policies}/\n"
          f"next: set [upstream] url, edit the policies, then\n  cd {target} && python -m firewall")
    return 0
