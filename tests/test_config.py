"""The configuration: defaults equal the shipped file, every mistake at once, precedence."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from firewall import config
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
            said = config.explain(f"{name}.{f.name.replace('_', '-')}")
            assert len(said.splitlines()) >= 1 and said.startswith(name)
    with pytest.raises(KeyError, match="deadline"):
        config.explain("deadlin")


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
    with pytest.raises(Mistakes, match="must be a number"):
        config.load(path, {"FIREWALL_WORKERS": "many"})


def test_a_family_inherits_from_upstream(tmp_path):
    path = write(tmp_path, '[upstream]\nurl = "https://a"\nidle-timeout = 7\n[upstream.anthropic]\nurl = "https://b"\n')
    got = config.load(path, {})
    assert got.upstreams["anthropic"].url == "https://b" and got.upstreams["anthropic"].idle_timeout == 7.0


def test_policies_are_relative_to_the_file(tmp_path):
    got = config.load(write(tmp_path, '[policies]\nfolder = "mine"\n'), {})
    assert got.policies.folder == str(tmp_path / "mine")


def test_secret_and_address():
    assert config.secret("env:A", {"A": "k"}) == "k" and config.secret("", {}) == ""
    with pytest.raises(Mistakes, match="NAME is not set"):
        config.secret("env:NAME", {})
    assert config.address("[::1]:80") == ("::1", 80)


def test_a_missing_or_broken_file(tmp_path):
    with pytest.raises(Mistakes, match="cannot be read"):
        config.load(tmp_path / "none.toml", {})
    with pytest.raises(Mistakes, match="not TOML"):
        config.load(write(tmp_path, "[server\n"), {})


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


@pytest.mark.parametrize("line", ["[policies]\nreload = 0", "[guard]\nconcurrency = 0", "[server]\nworkers = 0"])
def test_a_zero_that_would_stop_or_spin_everything_is_a_mistake(tmp_path, line):
    (tmp_path / "f.toml").write_text(line)
    with pytest.raises(Mistakes, match="must be more than 0"):
        config.load(tmp_path / "f.toml", {})
