"""The line protocol of the guard alone."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from firewall.guards.patterns import Patterns
from firewall.guards.scripted import ScriptedGuard
from firewall.judge import Judge, main
from firewall.policy import Policy, PolicySet, parse

HELLO = [{"role": "user", "content": "hello"}]
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


async def test_no_line_is_taken_for_more_of_another() -> None:
    """Two partial answers of one length and ending: a detector that goes on where it stopped would miss the key."""
    policy = parse("---\naction: block\ndetect: [aws-key]\n---\n- Says a key.", "keys", "keys.md")
    one = Judge(Patterns(), PolicySet.of([policy]))
    tail = " and then nothing but plain words" * 20
    for key, decision in (("akiaiosfodnn7example", "allow"), ("AKIAIOSFODNN7EXAMPLE", "block")) * 2:
        assert (await said(one, direction="output", answer=f"My key is {key}{tail}", whole=False))["decision"] == decision
    guard = ScriptedGuard({}, record=True)
    for _ in range(2):
        await said(Judge(guard, SET), messages=HELLO)
    assert len({c.boundary for c in guard.seen} - {""}) == 2


@pytest.mark.parametrize(("row", "why"), [
    ({"direction": "Output", "answer": "kumquat"}, "direction must"), ({"direction": ["input"]}, "direction must"),
    ({"direction": None}, "direction must"), ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages must"),
    ({"messages": [{"role": "user"}]}, "messages must"), ({"messages": "kumquat"}, "messages must"), ({}, "an input has"),
    ({"messages": [{"role": "user", "content": "x", "name": "kumquat"}]}, "messages must"),
    ({"messages": {"role": "user", "content": "x"}}, "messages must"),
    ({"messages": HELLO, "answer": "kumquat"}, "an input has"),
    ({"direction": "output", "answer": [{"channel": "a", "text": None}]}, "answer must"),
    ({"direction": "output"}, "answer must"),
    ({"direction": "output", "answer": None}, "answer must"), ({"direction": "output", "anwser": "kumquat"}, "a line is"),
    ({"direction": "output", "answer": 5}, "answer must"), ({"messages": HELLO, "whole": "false"}, "whole must"),
    ({"messages": HELLO, "policies": [{"id": "x", "text": 5}]}, "policies must"),
    ({"messages": HELLO, "policies": []}, "policies must be left out"),
    ({"messages": HELLO, "policies": [{"id": 5, "text": "x"}]}, "policies must"), ({"messages": HELLO, "answer": None}, ""),
    ({"messages": []}, "an input has"), ({"direction": "output", "answer": "", "messages": []}, ""),
    ({"messages": HELLO, "policies": [{"id": "x", "text": "a"}, {"id": "x", "text": "kumquat"}]}, "policies must have ids"),
    ({"messages": HELLO, "policies": [{"id": "x", "text": "- a"}, {"id": "x/1", "text": "- b"}]}, "policies must have ids"),
    ({"direction": "output", "answer": ""}, "")])
async def test_what_would_not_be_judged_is_an_error(row: dict[str, Any], why: str) -> None:
    got = await said(judge(), **row)
    assert got["id"] == 1
    assert got["error"].startswith(f"bad_line: {why}") and "kumquat" not in got["error"] if why else "error" not in got


@pytest.mark.parametrize("keys", [
    '[{"role": "user", "content": "kumquat"}], "messages": [{"role": "user", "content": "hi"}]',
    '[{"role": "user", "content": "kumquat", "content": "hi"}]',
    '[{"role": "user", "content": "kumquat", "con\\u0074ent": "hi"}]'])
async def test_a_key_that_stands_twice_is_an_error(keys: str) -> None:
    got = await judge().line(f'{{"id": 1, "direction": "input", "messages": {keys}}}'.encode())
    assert got == {"id": 1, "error": "bad_line: a key stands twice in one object, or it is nested too deeply"}


async def test_whatever_breaks_is_an_answer() -> None:
    for data in (b"[]", b"5", b"null", b'{"id": 1, "direction"', b"\xff", b"[" * 5000):
        assert (await judge().line(data))["error"].startswith("bad_line: ")
    assert await said(judge(mode="crash"), messages=HELLO) == {"id": 1, "error": "guard_crashed: RuntimeError"}
    broken = judge()
    broken.guard.known = None       # type: ignore[assignment]
    assert (await said(broken, messages=HELLO))["error"] == "guard_crashed: TypeError"


async def test_bad_lines_and_dead_guards_are_answers_too() -> None:
    assert (await judge().line(b"{"))["error"].startswith("bad_line")
    assert (await said(judge(), messages=[{"role": "user"}]))["error"].startswith("bad_line")
    assert (await said(judge(), messages=HELLO, policies=[{"id": "x", "text": ""}]))["error"] == "bad_policy"
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


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_concurrency_at_which_nothing_would_be_judged_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(["--config", "/none", "--concurrency", count])
    assert e.value.code == 2 and "argument --concurrency" in capsys.readouterr().err


async def test_where_no_policy_applies_nobody_is_asked() -> None:
    policy = parse("---\napplies-to: output\n---\n- Says kumquat.", "fruit", "fruit.md")
    guard = ScriptedGuard({"kumquat": "fruit/1"})
    one = Judge(guard, PolicySet.of([policy]))
    assert (await said(one, messages=HELLO))["decision"] == "allow" and not guard.asked
    assert (await said(one, direction="output", answer="kumquat"))["decision"] == "block" and guard.asked
