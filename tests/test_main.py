"""The command line: flags count on either side of a command, and the last one said wins."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firewall.__main__ import COMMANDS, main, parser, settings


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


@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_a_reasoning_guard_without_a_model_says_what_to_write(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--guard", kind, "check", "hello"]) == 2
    assert 'the folder of a checkpoint: model = "FOLDER" under [guard]' in capsys.readouterr().err


def test_the_help_of_check_says_every_exit_status() -> None:
    assert "exit 0 allow, redact or flag, 1 block, 2 no verdict" in " ".join(parser().format_help().split())


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


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PY": sys.executable}
    return subprocess.run(line, shell=True, cwd=folder, env=environ, capture_output=True, text=True, timeout=30)


def test_closed_standard_streams_hand_their_numbers_to_nobody(tmp_path: Path) -> None:
    """`>&-`: a socket would get the records, and `2>&-` the records the log."""
    code = ("import os, sys; from firewall.process import open_streams; closed = open_streams(); r, w = os.pipe(); "
            "print('log', file=sys.stderr); print(closed, r > 2, [os.readlink(f'/proc/self/fd/{n}') for n in closed])")
    (tmp_path / "t.py").write_text(code)
    done = shell("$PY t.py <&- 2>&-", tmp_path)
    assert (done.returncode, done.stdout) == (0, "[0, 2] True ['/dev/null', '/dev/null']\n")
    assert shell("$PY t.py", tmp_path).stdout == "[] True []\n"
    done = shell("$PY -m firewall --upstream http://127.0.0.1:1 --guard scripted >&-", tmp_path)
    assert done.returncode == 2 and "standard output is closed" in done.stderr and "Traceback" not in done.stderr
    done = shell("$PY -m firewall --guard scripted check - <&-", tmp_path)      # words nobody read are not allowed
    assert done.returncode and not done.stdout


def test_a_sighup_while_it_starts_ends_nothing(tmp_path: Path) -> None:
    """logrotate's, or a `systemctl reload` right after a restart: systemd would take that end for a clean one."""
    os.mkfifo(config := tmp_path / "firewall.toml")
    process = subprocess.Popen([sys.executable, "-m", "firewall", "--config", str(config)], stderr=subprocess.PIPE)
    with config.open("w") as to:            # it reads now
        process.send_signal(signal.SIGHUP)
        to.write("no TOML")
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 2 and b"not TOML" in said


def ended(*argv: str, out: str = "", given: str = "", module: str = "firewall") -> tuple[int, str]:
    """(exit status, standard error) of a command whose output goes into a file, or into a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with open(out, "w") if out else open(writing, "w", closefd=False) as to:
            done = subprocess.run([sys.executable, "-m", module, *argv, "--guard", "scripted"], input=given, stdout=to,
                                  stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize("argv", [("check", "hi"), ("policies", "list")])
def test_what_nobody_reads_and_what_has_no_room_is_exit_2(argv: tuple[str, ...]) -> None:
    assert ended(*argv) == (2, "")
    if Path("/dev/full").exists():
        assert ended(*argv, out="/dev/full") == (2, "firewall: No space left on device\n")


def test_the_judge_stops_at_the_first_line_that_nobody_reads() -> None:
    line = json.dumps({"id": 1, "direction": "input", "messages": [{"role": "user", "content": "hi"}]})
    assert ended(given=f"{line}\n" * 50, module="firewall.judge") == (2, "")
    if Path("/dev/full").exists():
        got = ended(given=f"{line}\n" * 50, module="firewall.judge", out="/dev/full")
        assert got == (2, "firewall.judge: No space left on device\n")


def test_what_the_system_refuses_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")
    monkeypatch.setattr("tempfile.mkdtemp", full)
    file = tmp_path / "firewall.toml"
    file.write_text('[server]\nworkers = 2\nlisten = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\n')
    assert main(["--config", str(file), "--upstream", "http://h", "--guard", "scripted"]) == 2
    assert capsys.readouterr().err == "firewall: No usable temporary directory found\n"
    monkeypatch.setattr("shutil.copytree", full)
    assert main(["init", str(tmp_path / "new")]) == 2


@pytest.mark.parametrize(("argv", "said"), [
    (["--upsteam", "https://api.openai.com"], "unknown flag --upsteam; did you mean '--upstream'?"),
    (["--polices=x", "check", "a"], "unknown flag --polices; did you mean '--policies'?")])
def test_a_mistyped_flag_is_named_and_not_its_value(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2 and said in capsys.readouterr().err
    told = parser().format_help().partition("COMMAND\n")[2]
    assert [*COMMANDS] == [line.split()[0] for line in told.splitlines() if line[:5].strip() and line.startswith("    ")]
