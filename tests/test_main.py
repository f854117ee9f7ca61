"""The command line: flags count on either side of a command, and the last one said wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from firewall.__main__ import main, parser, settings


@pytest.mark.parametrize("argv", [["--policies", "p", "--guard", "scripted", "serve", "--upstream", "http://u"],
                                  ["serve", "--policies", "p", "--upstream", "http://u", "--guard", "scripted"],
                                  ["--upstream", "http://u", "--policies", "p", "--guard", "scripted"],
                                  ["--upstream", "http://x", "--guard", "embedded", "serve", "--upstream", "http://u",
                                   "--guard", "scripted", "--policies", "p"]])
def test_flags_before_and_after_a_command(argv: list[str]) -> None:
    got = settings(parser().parse_args(argv))
    assert (got.upstream.url, got.guard.kind) == ("http://u", "scripted") and got.policies.folder.endswith("/p")


@pytest.mark.parametrize("argv", [["--policies", "/none", "check", "hello"], ["check", "--policies", "/none", "hello"],
                                  ["policies", "--policies", "/none", "list"],
                                  ["policies", "list", "--policies", "/none"], ["--policies", "/none", "policies", "list"]])
def test_every_place_of_a_flag_reaches_the_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2 and "/none: no such folder" in capsys.readouterr().err


def test_mistakes_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["records", "verify", str(tmp_path / "missing")]) == 2
    assert main(["init", str(tmp_path / "file" / "below")]) == 2
    said = capsys.readouterr().err
    assert "missing: no such file" in said and "below: cannot be made" in said and "Traceback" not in said
