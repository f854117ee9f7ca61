"""`policies list` and `policies test`: mistakes are sentences with exit 2, and 1 says only what it is meant to say."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from firewall import commands
from firewall.__main__ import main
from firewall.guards.scripted import ScriptedGuard

BAD = {"direction": "input", "text": "a kumquat", "expect": ["fruit/1"]}
GOOD = {"direction": "output", "text": "a pear", "prompt": "which?", "expect": []}


def write(folder: Path, *cases: Any, name: str = "fruit", head: str = "") -> Path:
    """A folder with one more policy, and its cases: objects, or lines as they are."""
    (folder / f"{name}.md").write_text(f"---\n{head}\n---\n- No fruit.\n" if head else "- No fruit.\n", "utf-8")
    if cases:
        lines = [c if isinstance(c, bytes) else json.dumps(c, ensure_ascii=False).encode() for c in cases]
        (folder / f"{name}.cases.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return folder


def run(folder: Path, *words: str, guard: str = "scripted") -> int:
    return main(["policies", *words, "--policies", str(folder), "--guard", guard])


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedGuard:
    guard = ScriptedGuard({"kumquat": "fruit/1"})
    monkeypatch.setattr(commands, "build", lambda config, policies: guard)
    return guard


def test_a_title_is_no_markup_and_a_pipe_is_as_wide_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, title = "a-rather-long-name-of-a-policy-about-fruit", "No [/x] [bold]fruit[/bold] :pear: " + "and so on " * 15
    assert run(write(tmp_path, GOOD, name=name, head=f'title: "{title}"'), "list") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if name in line)
    assert title.strip() in row


@pytest.mark.parametrize(("case", "said"), [
    ({**BAD, "text": 5}, "not a case (TypeError: text and prompt are texts"), ({**BAD, "text": None}, "not a case"),
    ({**GOOD, "prompt": ["x"]}, "not a case"), ({**BAD, "expect": "fruit/1"}, "expect is a list of rule ids"),
    ({**BAD, "expect": [["fruit/1"]]}, "unknown rule ['fruit/1']"), ({**BAD, "direction": []}, "direction must be"),
    (b"\xff\xfe", "cannot be read as UTF-8 text"), (b"5", "not a case"), (b'"x"', "not a case"),
    (b"[" * 100_000, "not a case (RecursionError"), (b'{"direction": "input", "expect": []}', "it lacks text"),
    (b"[1]", "one object a line"),
    (b'{"direction": "input", "text": "\\ud800", "expect": []}', "not a case (UnicodeEncodeError")])
@pytest.mark.parametrize("what", ["list", "test"])
def test_a_broken_case_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, case: Any,
                                              said: str) -> None:
    write(tmp_path, BAD, case)
    assert run(tmp_path, what) == 2
    err = capsys.readouterr().err
    assert said in err and f"fruit.cases.jsonl:{1 if 'UTF-8' in said else 2}: " in err


@pytest.mark.parametrize("words", [["test"], ["show", "fruit"], ["list"]])
def test_a_policy_that_is_no_text_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    (tmp_path / "fruit.md").write_bytes(b"- No \xff.\n")
    assert run(tmp_path, *words) == 2 and "fruit.md:1: cannot be read as UTF-8" in capsys.readouterr().err
    assert run(tmp_path, "show", "pears") == 2 and "no policy 'pears'" in capsys.readouterr().err


def test_a_case_may_hold_any_character_and_begin_with_a_mark(tmp_path: Path, scripted: ScriptedGuard) -> None:
    write(tmp_path, b"\xef\xbb\xbf" + json.dumps(BAD).encode(), {**BAD, "text": "one\u2028a kumquat\x85"}, GOOD)
    assert run(tmp_path, "test") == 0


def test_results_that_cannot_be_written_are_said_before_the_work(
        tmp_path: Path, scripted: ScriptedGuard, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, BAD, GOOD)
    scripted.rules.clear()                      # a run would exit 1
    assert run(tmp_path, "test", "--json", "/nonexist/x.json") == 2
    assert "--json /nonexist/x.json: cannot be written (No such" in capsys.readouterr().err and not scripted.asked
    out = tmp_path / "x.json"
    assert run(tmp_path, "test", "--json", str(out)) == 1
    assert json.loads(out.read_text())["all"] == {"caught": 0, "violating": 1, "passed": 1, "innocent": 1, "cited": 0}
    scripted.mode = "dead"
    assert run(tmp_path, "test", "--json", str(out)) == 2 and json.loads(out.read_text())["all"]["violating"] == 1


@pytest.mark.parametrize(("cases", "none"), [((), "violating"), ((GOOD,), "violating"), ((BAD,), "innocent")])
def test_nothing_to_test_is_no_success(tmp_path: Path, scripted: ScriptedGuard, capsys: pytest.CaptureFixture[str],
                                       cases: tuple[Any, ...], none: str) -> None:
    assert run(write(tmp_path, *cases), "test") == 2
    assert f"no {none} case to test; write some into fruit.cases.jsonl" in capsys.readouterr().err


def test_policies_without_cases_are_named(tmp_path: Path, scripted: ScriptedGuard,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    write(write(tmp_path, BAD, GOOD), name="pears")
    (tmp_path / "pear.cases.jsonl").write_text(json.dumps(BAD))
    assert run(tmp_path, "test") == 0
    said = capsys.readouterr()
    assert "beside no policy, so not tested: pear.cases.jsonl\n" in said.err
    assert "without cases, so not tested: pears" in said.err and "pears" not in said.out
    assert run(tmp_path / "none", "test") == 2 and "none: no such folder" in capsys.readouterr().err


def test_a_guard_that_is_down_is_exit_2_and_the_policy_is_named(
        tmp_path: Path, scripted: ScriptedGuard, capsys: pytest.CaptureFixture[str]) -> None:
    scripted.mode = "dead"
    assert run(write(tmp_path, BAD, GOOD), "test") == 2
    assert "no verdict on a case of fruit: " in capsys.readouterr().err


def test_standard_input_that_is_no_text_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                                      tmp_path: Path) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), "utf-8"))
    assert main(["check", "-", "--policies", str(write(tmp_path)), "--guard", "scripted"]) == 2
    assert "the text is not UTF-8" in capsys.readouterr().err


def test_a_side_that_the_policy_does_not_apply_to_is_judged_as_when_serving(
        tmp_path: Path, scripted: ScriptedGuard, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {**BAD, "direction": "output"}, {**GOOD, "direction": "input", "text": "a kumquat"},
          head="applies-to: output")
    assert run(tmp_path, "test") == 0       # the innocent one passes: nobody judges it
    write(tmp_path, GOOD, BAD, head="applies-to: output")
    for what in ("test", "list"):
        assert run(tmp_path, what) == 2
        assert "fruit.cases.jsonl:2: an input cannot violate fruit" in capsys.readouterr().err


def test_a_detector_that_does_not_exist_is_named_before_the_work(
        tmp_path: Path, scripted: ScriptedGuard, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, BAD, GOOD, head="detect: [emial]")
    assert run(tmp_path, "test") == 2
    assert "'emial'" in capsys.readouterr().err and not scripted.asked


def test_where_no_policy_applies_nobody_is_asked_and_it_is_said(
        tmp_path: Path, scripted: ScriptedGuard, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {**BAD, "direction": "output"}, {**GOOD, "direction": "input"}, head="applies-to: output")
    argv = ["check", "a kumquat", "--policies", str(tmp_path), "--guard", "scripted"]
    assert main(argv) == 0
    got = json.loads(capsys.readouterr().out)
    assert (got["decision"], got["reason"]) == ("allow", "not judged: no active policy applies to input")
    assert run(tmp_path, "test") == 0 and scripted.asked == 1
    assert main([*argv, "--direction", "output"]) == 1
    assert main([*argv, "--prompt", "which?"]) == 2
    assert "it goes with --direction output" in capsys.readouterr().err


def test_a_depth_that_the_guard_does_not_have_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "firewall.toml").write_text("")
    assert main(["check", "hi", "--config", str(tmp_path / "firewall.toml"), "--depth", "reason"]) == 2
    assert "guard.depth: kind embedded has no use for it" in capsys.readouterr().err
