"""The line protocol of the guard alone."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from firewall.guards.scripted import ScriptedGuard
from firewall.judge import Judge
from firewall.policy import Policy, PolicySet

SET = PolicySet.of([Policy.from_text("fruit", "- No fruit.")])


def judge(**options: Any) -> Judge:
    return Judge(ScriptedGuard({"kumquat": "fruit/1"}, **options), SET)


async def said(one: Judge, **row: Any) -> dict[str, Any]:
    return await one.line(json.dumps({"id": 1, "direction": "input", **row}).encode())


async def test_configured_and_given_policies() -> None:
    one = judge()
    messages = [{"role": "user", "content": "a kumquat"}]
    got = await said(one, messages=messages)
    assert (got["decision"], got["rules"], got["score"], got["id"]) == ("block", ["fruit/1"], 1.0, 1)
    given = [{"id": "other", "text": "- Something else."}]
    assert (await said(one, messages=messages, policies=given))["decision"] == "allow"
    assert one.active(given) is one.active(list(given))


async def test_answers_as_text_or_runs() -> None:
    one = judge()
    assert (await said(one, direction="output", answer="kumquat"))["decision"] == "block"
    runs = [{"channel": "choice/0/text", "text": "kum"}, {"channel": "choice/0/text", "text": "quat"}]
    assert (await said(one, direction="output", answer=runs))["decision"] == "block"


async def test_bad_lines_and_dead_guards_are_answers_too() -> None:
    assert (await judge().line(b"{"))["error"].startswith("bad_line")
    assert (await said(judge(), messages=[{"role": "user"}]))["error"].startswith("bad_line")
    assert (await said(judge(), messages=[], policies=[{"id": "x", "text": ""}]))["error"] == "bad_policy"
    got = await said(judge(mode="dead"), messages=[{"role": "user", "content": "x"}])
    assert got["error"] == "guard_unavailable" and "decision" not in got


def test_the_worker_reads_to_the_end_and_repeats_no_text() -> None:
    messages = [{"role": "user", "content": "CANARY"}]
    lines = "".join(json.dumps({"id": k, "direction": "input", "messages": messages}) + "\n" for k in range(5))
    done = subprocess.run([sys.executable, "-m", "firewall.judge", "--guard", "scripted"], input=lines, text=True,
                          capture_output=True, timeout=60)
    out = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and out[0]["ready"] and sorted(o["id"] for o in out[1:]) == [0, 1, 2, 3, 4]
    assert "CANARY" not in done.stdout + done.stderr
