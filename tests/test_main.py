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


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "now").symlink_to("one")
    assert settings(parser().parse_args(["--policies", "now"])).policies.folder == str(tmp_path / "now")


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


def test_a_key_that_is_not_set_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "a key")
    monkeypatch.delenv("NO_KEY", raising=False)
    file = tmp_path / "firewall.toml"
    file.write_text('[server]\nclient-keys = ["NO_TEAM", "A_KEY", "NO_KEY"]\n[upstream]\nurl = "http://h"\n'
                    'key = "env:NO_KEY"\n[upstream.gemini]\nurl = "http://g"\nkey = "env:NO_GEMINI"\n')
    assert main(["--config", str(file)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5 and [line for line in said if "A_KEY is no key" in line]
    assert sorted(line.split()[2] for line in said[1:]) == ["A_KEY", "NO_GEMINI", "NO_KEY", "NO_TEAM"]
