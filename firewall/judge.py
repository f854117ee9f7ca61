"""python -m firewall.judge: JSON lines in, verdicts out. The guard alone, for batches, sweeps and what-if runs.

One object a line on standard input:

    {"id", "direction": "input"|"output", "messages": [{"role", "content"}...],
     "answer": text | [{"channel", "text"}...], "whole": true, "policies": [{"id", "text"}...]}

`messages` may be left out of an output, `answer` out of an input, `whole` everywhere; without `policies` the configured
ones are used. Lines are read strictly, for what is not read would not be judged, and a verdict on nothing is allow:
another key, type or direction is an error, and so are a key that stands twice in one object, no messages, no policies and
two rules under one id. Where no policy applies to the direction, nobody is asked, as when serving. No line is taken for more
of one before it, whatever their texts.
One object a line on standard output, in order of completion:

    {"id", "decision", "rules", "score", "scores": {rule: score}, "depth", "tokens", "ms"}  or  {"id", "error": code}

Every line has an answer; the codes are `bad_line: why`, `bad_policy`, `guard_crashed: exception` and those of `GuardDown`.

The first line out is {"ready": true, "guard", "fingerprint", "policies": digest}. It ends at end of input. Nothing else
is printed, and no text of a case is ever repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from firewall import config as settings
from firewall.case import Case, Message, Said
from firewall.config import Config
from firewall.errors import GuardDown, Mistakes
from firewall.guards.build import build
from firewall.guards.guard import Guard
from firewall.guards.said import said as once
from firewall.policy import Direction, Policy, PolicySet, load
from firewall.process import open_streams, refused
from firewall.verdict import Verdict, decide

PATIENCE = 600.0        # seconds: a batch waits where a request would not
KEPT = 4096             # ad hoc policy sets remembered
KEYS = {"id", "direction", "messages", "answer", "whole", "policies"}


class BadLine(ValueError):
    """A line that cannot be judged. Its words are ours, never the line's."""


def _rows(value: Any, name: str, *keys: str) -> list[dict[str, str]]:
    """A list of objects with these keys, all texts. Raises `BadLine`."""
    if not isinstance(value, list) or not all(
            isinstance(v, dict) and v.keys() == set(keys) and all(isinstance(v[k], str) for k in keys) for v in value):
        raise BadLine(f"{name} must be a list of objects with the texts {' and '.join(keys)}")
    return value


def read(row: Any) -> tuple[Direction, tuple[Message, ...], tuple[Said, ...], bool, list[dict[str, str]] | None]:
    """One line's object -> (direction, messages, answer, whole, policies). Raises `BadLine`."""
    if not isinstance(row, dict) or row.keys() - KEYS:
        raise BadLine(f"a line is an object with the keys {', '.join(sorted(KEYS))}")
    direction, whole, given = row.get("direction"), row.get("whole", True), row.get("policies")
    if direction not in ("input", "output"):
        raise BadLine("direction must be input or output")
    if not isinstance(whole, bool):
        raise BadLine("whole must be true or false")
    answer = row.get("answer")
    if direction == "input" and (row.get("messages", []) == [] or answer):
        raise BadLine("an input has messages, and no answer")
    if isinstance(answer, str):
        answer = [{"channel": "choice/0/text", "text": answer}] if answer else []
    elif answer is None and direction == "input":
        answer = []
    said = tuple(Said(a["channel"], a["text"]) for a in _rows(answer, "answer", "channel", "text"))
    told = tuple(Message(m["role"], m["content"], f"messages/{i}/content")
                 for i, m in enumerate(_rows(row.get("messages", []), "messages", "role", "content")))
    if given is not None and not _rows(given, "policies", "id", "text"):
        raise BadLine("policies must be left out, or one at least")
    return direction, told, said, whole, given


class Judge:
    """Answers lines. Equal policies are one object, so that a guard's own memory of rules works."""

    def __init__(self, guard: Guard, policies: PolicySet) -> None:
        self.guard, self.policies = guard, policies
        self._sets: dict[bytes, PolicySet] = {}

    def active(self, given: list[dict[str, str]] | None) -> PolicySet:
        """The policies of one line. Raises `Mistakes`, and `BadLine` where one id means two things."""
        if given is None:
            return self.policies
        key = orjson.dumps(given)
        found = self._sets.get(key)
        if found is None:
            if len(self._sets) >= KEPT:
                self._sets.clear()
            found = PolicySet.of(Policy.from_text(p["id"], p["text"]) for p in given)
            if len(found.owner) < sum(1 + len(p.rules) for p in found):
                raise BadLine("policies must have ids of their own, and their rules too")
            self._sets[key] = found
        return found

    async def line(self, data: bytes) -> dict[str, Any]:
        """One line -> its answer, never an exception."""
        id: Any = None
        began = time.perf_counter()
        try:
            row = orjson.loads(data)
            id = row.get("id") if isinstance(row, dict) else None
            try:
                once(data)
            except ValueError:
                raise BadLine("a key stands twice in one object, or it is nested too deeply") from None
            direction, messages, said, whole, given = read(row)
            policies = self.active(given).side(direction)
            case = Case(direction, policies, messages, said, whole, boundary=secrets.token_hex(8))
            began = time.perf_counter()
            verdict = (self.guard.known(case) or await self.guard.judge(case)) if policies else Verdict("none")
            decision = decide((verdict,), policies)
            return {"id": id, "decision": decision.action, "rules": list(decision.rules), "score": verdict.score,
                    "scores": {f.rule: f.score for f in verdict.findings}, "depth": verdict.depth,
                    "tokens": verdict.tokens, "ms": round((time.perf_counter() - began) * 1e3, 3)}
        except BadLine as e:
            return {"id": id, "error": f"bad_line: {e}"}
        except orjson.JSONDecodeError:
            return {"id": id, "error": "bad_line: not JSON"}
        except Mistakes:
            return {"id": id, "error": "bad_policy"}
        except GuardDown as e:
            return {"id": id, "error": e.code, "ms": round((time.perf_counter() - began) * 1e3, 3)}
        except Exception as e:          # its words may repeat the text: only its kind is told
            return {"id": id, "error": f"guard_crashed: {type(e).__name__}"}


async def work(judge: Judge, concurrency: int) -> None:
    """Reads, judges at most `concurrency` at a time, writes. Raises OSError at the first line that cannot be written."""
    loop = asyncio.get_running_loop()
    out = sys.stdout.buffer
    slots = asyncio.Semaphore(concurrency)

    def say(value: dict[str, Any]) -> None:
        out.write(orjson.dumps(value) + b"\n")
        out.flush()

    async def one(data: bytes) -> None:
        try:
            say(await judge.line(data))
        finally:
            slots.release()

    say({"ready": True, "guard": judge.guard.name, "fingerprint": judge.guard.fingerprint,
         "policies": judge.policies.digest})
    try:
        async with asyncio.TaskGroup() as tasks:
            while data := await loop.run_in_executor(None, sys.stdin.buffer.readline):
                if data.strip():
                    await slots.acquire()
                    tasks.create_task(one(data))
    except ExceptionGroup as e:
        raise e.exceptions[0] from None


async def run(config: Config, concurrency: int) -> int:
    """Builds the configured guard, serves the lines, closes it."""
    policies = load(config.policy_folder, config.policies.enable, config.policies.disable, config.stream.release)
    config = replace(config, guard=replace(config.guard, deadline=PATIENCE, memory=0, queue=16,
                                           concurrency=max(2 * concurrency, config.guard.concurrency)))
    guard = build(config, policies)
    await guard.start()
    try:
        await work(Judge(guard, policies), concurrency)
    finally:
        await guard.close()
    return 0


def _count(text: str) -> int:
    """A number of cases. Raises below 1: nothing would ever be judged."""
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return count


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m firewall.judge", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", type=Path)
    parser.add_argument("--policies", metavar="DIR")
    parser.add_argument("--guard", metavar="KIND", help="embedded | vllm | transformers | remote:URL | webhook:URL")
    parser.add_argument("--concurrency", type=_count, metavar="N", default=8, help="cases judged at once (default 8)")
    open_streams()
    args = parser.parse_args(argv)
    try:
        config = settings.load(args.config, flags={"policies.folder": args.policies, "guard.kind": args.guard})
        return asyncio.run(run(config, args.concurrency))
    except Mistakes as e:
        print("firewall.judge:", *e.lines, sep="\n  ", file=sys.stderr)
    except GuardDown as e:
        print(f"firewall.judge: {e.detail}", file=sys.stderr)
    except OSError as e:
        return refused("firewall.judge", e)
    except KeyboardInterrupt:
        return 130
    return 2


if __name__ == "__main__":
    sys.exit(main())
