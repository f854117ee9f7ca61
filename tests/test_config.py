"""The configuration: defaults equal the shipped file, every mistake at once, precedence."""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import structlog

from firewall import config, lines
from firewall.__main__ import main
from firewall.errors import Mistakes


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "firewall.toml"
    path.write_text(text)
    return path


def test_the_shipped_file_holds_every_key_at_its_default():
    text = (config.SHIPPED / "firewall.toml").read_text()
    data = tomllib.loads(text)
    for name, kind in config.SECTIONS.items():
        assert set(data[name]) == {f.name.replace("_", "-") for f in fields(kind)}, name
    shipped = config.load(config.SHIPPED / "firewall.toml", {})
    for name in config.SECTIONS:
        assert getattr(shipped, name) == getattr(config.Config(), name)


def test_every_key_is_explained():
    for name, kind in config.SECTIONS.items():
        for f in fields(kind):
            said = lines.explain(f"{name}.{f.name.replace('_', '-')}")
            assert len(said.splitlines()) >= 1 and said.startswith(name)
    with pytest.raises(KeyError, match="deadline"):
        lines.explain("deadlin")


def test_all_mistakes_at_once_with_line_and_nearest_key(tmp_path):
    path = write(tmp_path, '[server]\nlisten = "nowhere"\nworkerz = 2\n[guard]\ndeadline = -1\nkind = "remote"\n'
                           '[strem]\n[upstream]\nurl = "ftp://x"\nkey = "sk-live"\n[upstream.openay]\nurl = "http://a"\n')
    with pytest.raises(Mistakes) as e:
        config.load(path, {})
    text = str(e.value)
    assert len(e.value.lines) == 8
    for part in (":2: server.listen", ":3: unknown key server.workerz; did you mean 'workers'", "guard.deadline",
                 "guard.kind: needs an address", "did you mean 'stream'", "http:// or https://", "env:NAME", "openay"):
        assert part in text
    assert "sk-live" not in text


def test_flags_win_over_environment_over_file(tmp_path):
    path = write(tmp_path, '[server]\nlisten = "127.0.0.1:1"\nadmin = "127.0.0.1:2"\nworkers = 3\n')
    got = config.load(path, {"FIREWALL_LISTEN": "127.0.0.1:5", "FIREWALL_WORKERS": "4"},
                      {"server.listen": "127.0.0.1:6", "server.admin": None})
    assert (got.server.listen, got.server.admin, got.server.workers) == ("127.0.0.1:6", "127.0.0.1:2", 4)
    with pytest.raises(Mistakes, match=r"FIREWALL_WORKERS \(server.workers\): must be a whole number"):
        config.load(path, {"FIREWALL_WORKERS": "many"})


def test_a_family_inherits_from_upstream(tmp_path):
    path = write(tmp_path, '[upstream]\nurl = "https://a"\nidle-timeout = 7\n[upstream.anthropic]\nurl = "https://b"\n')
    got = config.load(path, {})
    assert got.upstreams["anthropic"].url == "https://b" and got.upstreams["anthropic"].idle_timeout == 7.0


def test_policies_are_relative_to_the_file(tmp_path):
    got = config.load(write(tmp_path, '[policies]\nfolder = "mine"\n'), {})
    assert got.policies.folder == str(tmp_path / "mine")


def test_policies_are_beside_the_link_to_a_file(tmp_path):
    """A ConfigMap: every file is a link into a folder that an update replaces."""
    (tmp_path / "..data").mkdir()
    write(tmp_path / "..data", '[policies]\nfolder = "mine"\n')
    (tmp_path / "firewall.toml").symlink_to("..data/firewall.toml")
    assert config.load(tmp_path / "firewall.toml", {}).policies.folder == str(tmp_path / "mine")


def test_secret_and_address():
    assert config.secret("env:A", {"A": "k"}) == "k" and config.secret("", {}) == ""
    with pytest.raises(Mistakes, match="NAME is not set"):
        config.secret("env:NAME", {})
    assert config.address("[::1]:80") == ("::1", 80)


def test_a_missing_or_broken_file(tmp_path):
    with pytest.raises(Mistakes) as e:
        config.load(tmp_path / "none.toml", {})
    assert e.value.lines == [f"{tmp_path / 'none.toml'}: no such file"]
    with pytest.raises(Mistakes, match="not TOML"):
        config.load(write(tmp_path, "[server\n"), {})


@pytest.mark.parametrize("put", [Path.mkdir, lambda p: p.symlink_to("nowhere")], ids=["folder", "dangling"])
def test_what_stands_in_the_files_place_is_not_passed_over(tmp_path, monkeypatch, put):
    monkeypatch.chdir(tmp_path)
    assert config.load(None, {}).source == "shipped defaults"
    put(tmp_path / "firewall.toml")
    with pytest.raises(Mistakes, match="firewall.toml: cannot be read"):
        config.load(None, {})


def test_a_byte_order_mark_is_no_key(tmp_path):
    assert config.load(write(tmp_path, "\ufeff[server]\nworkers = 3\n"), {}).server.workers == 3


def test_families_follow_flags_and_no_key_goes_to_another_address(tmp_path):
    file = tmp_path / "f.toml"
    file.write_text('[upstream]\nurl = "http://a"\nkey = "env:A"\nconnect-timeout = 9.0\n'
                    '[upstream.anthropic]\nmax-idle = 3\n[upstream.gemini]\nurl = "http://g"\n'
                    '[upstream.ollama]\nurl = "http://o"\nkey = "env:O"\n')
    got = config.load(file, {"FIREWALL_UPSTREAM": "http://e"}, {"upstream.url": "http://b"})
    assert got.upstreams["anthropic"].url == "http://b" and got.upstreams["anthropic"].key == "env:A"
    assert got.upstreams["anthropic"].max_idle == 3 and got.upstreams["gemini"].connect_timeout == 9.0
    assert got.upstreams["gemini"].key == "" and got.upstreams["ollama"].key == "env:O"


@pytest.mark.parametrize(("value", "said"), [(" sk-a\n", "sk-a"), ("sk-a", "sk-a")])
def test_the_end_of_a_mounted_secret_is_not_part_of_it(value, said):
    assert config.secret("env:K", {"K": value}) == said


@pytest.mark.parametrize("value", ["", "\n", "sk\nx: y", "sk a", "sk-\u00e9", "sk\x00"])
def test_what_no_header_can_hold_is_no_key(value):
    with pytest.raises(Mistakes) as mistake:
        config.secret("env:K", {"K": value})
    assert "K" in str(mistake.value.lines) and (not value.strip() or value.strip() not in str(mistake.value.lines))


@pytest.mark.parametrize("line", ["[policies]\nreload = 0", "[guard]\nconcurrency = 0", "[server]\nworkers = 0",
                                  "[stream]\ntotal = 0", "[stream]\nwhole = 0", "[limits]\nbody = 0", "[guard]\nthreads = 0",
                                  "[upstream.openai]\nhead-timeout = 0"])
def test_a_zero_that_would_stop_or_spin_everything_is_a_mistake(tmp_path, line):
    (tmp_path / "f.toml").write_text(line)
    with pytest.raises(Mistakes, match=r"f.toml:2: .*: must be more than 0"):
        config.load(tmp_path / "f.toml", {})


def test_a_zero_that_means_off_stays(tmp_path):
    off = "[guard]\nmemory = 0\nqueue = 0\n[limits]\nmemory = 0\ncandidates = 0\nbody-rate = 0\n[server]\ndrain-wait = 0\n"
    assert config.load(write(tmp_path, off), {}).guard.memory == 0


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1" + "0" * 400])
def test_what_is_no_number_is_a_mistake(tmp_path, value):
    with pytest.raises(Mistakes, match=r":2: guard.deadline: (must be a number|is too large)"):
        config.load(write(tmp_path, f"[guard]\ndeadline = {value}\n"), {})


@pytest.mark.parametrize("key", ["sk-live-1234", "env:sk-live-1234", "env:", "a b", "9ab"])
def test_a_key_in_place_of_its_variables_name_is_refused_once_and_not_repeated(tmp_path, key):
    text = f'[server]\nclient-keys = ["K", "{key}"]\n[upstream]\nurl = "http://h"\nkey = "{key}"\n'
    with pytest.raises(Mistakes) as e:
        config.load(write(tmp_path, text), {})
    assert len(e.value.lines) == 2 and all("does not belong in a file" in line for line in e.value.lines)
    assert ":2: server.client-keys: each must be the NAME" in e.value.lines[0] and "live" not in str(e.value)
    with pytest.raises(Mistakes, match="must be the NAME") as e:
        config.secret(key.removeprefix("env:") or "env:", {})
    assert "live" not in str(e.value)


@pytest.mark.parametrize("value", [None, "two words"])
def test_a_key_that_reads_like_a_name_is_not_repeated(value):
    with pytest.raises(Mistakes, match="environment variable abc... ") as e:
        config.secret("env:abcdef0123456789", {} if value is None else {"abcdef0123456789": value})
    assert "abcdef" not in str(e.value)


@pytest.mark.parametrize(("text", "said"), [
    ('upstream = "http://h"\n', ":1: upstream is a section: write [upstream] on a line of its own"),
    ("[[guard]]\ndeadline = 1\n", ":1: guard is a section"),
    ('listen = "127.0.0.1:1"\n', ":1: listen stands outside a section; write it below [server]"),
    ("nothing = 1\n", ":1: nothing stands outside a section"),
    ("[gard]\n", ":1: unknown section [gard]; did you mean 'guard'?")])
def test_what_stands_at_the_top_is_told_apart(tmp_path, text, said):
    with pytest.raises(Mistakes) as e:
        config.load(write(tmp_path, text), {})
    assert len(e.value.lines) == 1 and said in e.value.lines[0]


def test_a_flag_is_named_as_it_was_written(tmp_path):
    with pytest.raises(Mistakes) as e:
        config.load(write(tmp_path, ""), {"FIREWALL_WORKERS": "2"}, {"server.workers": "x", "upstream.url": "h"})
    assert e.value.lines == ["--workers (server.workers): must be a whole number",
                             "--upstream (upstream.url): must start with http:// or https://"]


@pytest.mark.parametrize(("text", "said"), [
    ('model = "/m"\ndialect = "rsafe"\n', [":2: guard.model: kind embedded", ":3: guard.dialect: kind embedded"]),
    ('depth = "reason"\n', [":2: guard.depth: kind embedded has no use for it; set kind to vllm or transformers or remote"]),
    ('kind = "webhook:http://h"\ndepth = "reason"\n', [":3: guard.depth: kind webhook has no use for it"]),
    ('kind = "transformers"\nmodel = "/m"\nengine = ["--x"]\n', [":4: guard.engine: kind transformers has no use for it"]),
    ('kind = "embedded:foo"\n', [":2: guard.kind: nothing stands behind embedded"]),
    ('kind = "vllm:/m"\n', [":2: guard.kind: nothing stands behind vllm"])])
def test_what_the_guard_would_pass_over_is_a_mistake(tmp_path, text, said):
    with pytest.raises(Mistakes) as e:
        config.load(write(tmp_path, f"[guard]\n{text}"), {})
    assert len(e.value.lines) == len(said) and all(s in line for s, line in zip(said, e.value.lines, strict=True))


def test_a_guard_named_for_a_while_need_not_empty_the_file(tmp_path):
    file = write(tmp_path, '[guard]\nkind = "vllm"\nmodel = "/m"\ndepth = "reason"\n')
    assert config.load(file, {"FIREWALL_GUARD": "embedded"}).guard.kind == "embedded"
    assert config.load(write(tmp_path, '[guard]\nmodel = "/m"\n'), {}, {"guard.kind": "vllm"}).guard.model == "/m"
    with pytest.raises(Mistakes) as e:
        config.load(file, {}, {"guard.kind": "embedded", "guard.depth": "deliberate"})
    assert e.value.lines[0].startswith("guard.depth: kind embedded") and len(e.value.lines) == 1


def test_variables_that_set_nothing_are_named(tmp_path):
    file = write(tmp_path, '[server]\nclient-keys = ["FIREWALL_A"]\n[upstream]\nurl = "http://h"\nkey = "env:FIREWALL_B"\n')
    kubernetes = {"FIREWALL_PORT": "tcp://h:1", "FIREWALL_PORT_1_TCP_ADDR": "h", "FIREWALL_SERVICE_HOST": "h"}
    environ = {"FIREWALL_POLICY": "p", "FIREWALL_A": "k", "FIREWALL_B": "k", "FIREWALL_C": "", **kubernetes}
    assert config.strangers(config.load(file, environ), environ) == ["FIREWALL_POLICY; did you mean 'FIREWALL_POLICIES'?"]


def test_a_variable_that_sets_nothing_is_a_line_at_the_start(monkeypatch):
    monkeypatch.setenv("FIREWALL_WORKER", "2")
    monkeypatch.setattr("firewall.proxy.workers.serve_one", lambda _: 0)
    monkeypatch.setattr("firewall.proxy.records.configure_logging", lambda: None)
    with structlog.testing.capture_logs() as said:
        assert main(["--upstream", "http://h", "--guard", "scripted"]) == 0
    assert said == [{"event": "unknown_environment", "names": ["FIREWALL_WORKER; did you mean 'FIREWALL_WORKERS'?"],
                     "log_level": "warning"}]


def test_every_path_is_relative_to_the_file(tmp_path):
    etc = str(tmp_path / "etc")
    Path(etc, "weights").mkdir(parents=True)
    file = write(Path(etc), '[server]\ncertificate = "c.pem"\nprivate-key = "/k.pem"\n[upstream]\nca-file = "ca.pem"\n'
                 '[upstream.gemini]\nurl = "http://g"\n[upstream.ollama]\nca-file = "o.pem"\n[guard]\nkind = "vllm"\n'
                 'model = "weights"\n[records]\nfile = "r.jsonl"\n')
    got = config.load(file, {})
    assert (got.server.certificate, got.server.private_key) == (f"{etc}/c.pem", "/k.pem")
    assert [got.upstreams[k].ca_file for k in ("gemini", "ollama")] == [f"{etc}/ca.pem", f"{etc}/o.pem"]
    assert (got.guard.model, got.records.file) == (f"{etc}/weights", f"{etc}/r.jsonl")
    got = config.load(write(tmp_path, '[guard]\nkind = "remote:http://h"\nmodel = "org/name"\n[records]\nfile = "-"\n'), {})
    assert (got.guard.model, got.records.file) == ("org/name", "-")
    long = "a" * 300                                    # a name that is no path
    assert config.load(write(tmp_path, f'[guard]\nkind = "remote:http://h"\nmodel = "{long}"\n'), {}).guard.model == long


def test_paths_of_a_file_that_is_a_pipe_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside, outside = os.pipe()
    with open(outside, "w") as file:
        file.write('[records]\nfile = "r.jsonl"\n')
    assert config.load(Path(f"/dev/fd/{inside}"), {}).records.file == str(tmp_path / "r.jsonl")
    os.close(inside)


@pytest.mark.parametrize("head", ["[guard] # words", "[ guard ]", "  [guard]", '["guard"]', "[guard]"])
def test_a_line_is_found_however_it_is_written(tmp_path, head):
    with pytest.raises(Mistakes, match=":4: guard.deadline: must not"):
        config.load(write(tmp_path, f'[server]\nworkers = 1\n{head}\n  "deadline" = -1\n'), {})
    with pytest.raises(Mistakes, match=":2: guard.deadline: must not"):
        config.load(write(tmp_path, "server.workers = 1\nguard . deadline = -1\n"), {})


@pytest.mark.parametrize(("listen", "url", "own"), [
    ("127.0.0.1:8080", "http://127.0.0.1:8080", True), ("127.0.0.1:8080", "http://localhost:8080/v1", True),
    ("0.0.0.0:8080", "http://[::1]:8080", True), ("[::1]:80", "http://localhost", True),
    ("proxy:443", "https://proxy", True),
    ("127.0.0.1:8080", "http://127.0.0.1:8081", False), ("127.0.0.1:8080", "https://api.openai.com:8080", False),
    ("127.0.0.1:8080", "http://127.0.0.1:x", False)])
def test_an_upstream_that_is_the_firewall_itself_is_a_mistake(tmp_path, listen, url, own):
    flags = {"server.listen": listen, "upstream.url": url}
    if own:
        with pytest.raises(Mistakes, match=r"^upstream.url: .* where this firewall listens"):
            config.load(write(tmp_path, ""), {}, flags)
    else:
        config.load(write(tmp_path, ""), {}, flags)


def test_a_memory_limit_in_other_units_is_a_mistake(tmp_path):
    with pytest.raises(Mistakes, match=r"^limits.memory: is in bytes"):
        config.load(write(tmp_path, "[limits]\nmemory = 2048\n"), {})
    assert config.load(write(tmp_path, "[limits]\nmemory = 2_147_483_648\n"), {}).limits.memory == 1 << 31
