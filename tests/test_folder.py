"""A folder of policies: what is read, and what a person would think is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from firewall import policy
from firewall.commands import _read
from firewall.errors import Mistakes
from firewall.folder import files
from firewall.policy import load, parse


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("- No fruit.\n")
    return folder


def test_what_is_no_policy_is_passed_over(tmp_path: Path) -> None:
    names = ("b.md", "a.md", "README.md", "readme.markdown", ".#a.md", ".hidden.MD", "a.cases.jsonl", "a.md~", "a.md.bak",
             "notes.txt", "old/c.md")
    assert [p.name for p in files(write(tmp_path, *names))] == ["a.md", "b.md"]
    assert sorted(load(tmp_path).owner) == ["a", "a/1", "b", "b/1"]


@pytest.mark.parametrize("name", ["x.MD", "x.Md", "x.markdown", "x.mdown", "x.mkd", "x.md.txt", "x.MD.TXT"])
def test_what_looks_like_a_policy_and_would_not_be_read_is_a_mistake(tmp_path: Path, name: str) -> None:
    write(tmp_path, "a.md", name)
    with pytest.raises(Mistakes) as e:
        load(tmp_path)
    assert e.value.lines == [f"{tmp_path / name}:1: would not be read; rename it to 'x.md'"]
    with pytest.raises(Mistakes):
        _read(tmp_path, (), [])


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in (tmp_path / "none", write(tmp_path, "file") / "file"):
        with pytest.raises(Mistakes, match="no such folder"):
            files(missing)

    def forbidden(_: Path) -> None:
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(Mistakes) as e:
        load(tmp_path)
    assert e.value.lines == [f"{tmp_path}: cannot be listed (Permission denied)"]


def test_a_file_too_long_to_be_prepared_in_time_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "LONGEST", 20)
    assert parse("- " + "a" * 18, "a", "a.md").rules
    with pytest.raises(Mistakes, match="a.md:1: 21 characters; 20 are the most"):
        parse("- " + "a" * 19, "a", "a.md")
