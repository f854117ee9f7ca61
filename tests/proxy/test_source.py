"""The active policies: whatever happens in the folder, the last good set stays."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from firewall import commands
from firewall.errors import Mistakes
from firewall.proxy import source as module
from firewall.proxy.source import Source

GOOD = "---\nid: a\n---\n## Violates\n- `a/1` A rule.\n"


@pytest.fixture(autouse=True)
def rested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST", 0)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.md").write_text(GOOD)
    return Source(tmp_path / "p")


def test_an_edit_takes_effect_and_a_held_set_stays(source: Source) -> None:
    held = source.current
    (source.folder / "a.md").write_text(GOOD + "- `a/2` Another.\n")
    assert source.refresh() and source.current.digest != held.digest and len(list(held)) == 1
    assert not source.refresh()


@pytest.mark.parametrize("harm", [
    lambda f: (f / "a.md").write_text("---\naction: blok\n---\n- r\n"),
    lambda f: (f / "a.md").write_bytes(b"\xff\xfe\0"),
    lambda f: (f / "a.md").write_text(GOOD[:14]),
    lambda f: shutil.rmtree(f), lambda f: (f / "b.md").mkdir(),
    lambda f: os.symlink("nowhere", f / "c.md"), lambda f: (f / "b.md").write_text(GOOD),
    lambda f: (f / "a.md").unlink()], ids=["value", "bytes", "half", "gone", "folder", "dangling", "twice",
                                                           "empty"])
def test_j02_any_harm_keeps_the_last_good_set(source: Source, harm) -> None:
    """A crash of the reader would silence the watch for ever: mistakes are the only thing it may meet."""
    before = source.current
    harm(source.folder)
    source.refresh()
    assert source.current.digest == before.digest
    shutil.rmtree(source.folder, ignore_errors=True)
    source.folder.mkdir()
    (source.folder / "a.md").write_text(GOOD)
    source.refresh(force=True)
    assert not source.stale and source.current.digest == before.digest


def test_j02_a_file_that_is_being_written_is_left_alone(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a policy can be a policy (a rule cut in its middle): it is read when nobody wrote for a moment."""
    monkeypatch.setattr(module, "REST", 50_000_000)
    before = source.current.digest
    path = source.folder / "a.md"
    for end in range(30, len(GOOD) + 1, 4):
        path.write_text(GOOD[:end])
        assert not source.refresh() and source.current.digest == before and not source.stale
    path.write_text(GOOD + "- `a/2` Another.\n")
    time.sleep(0.06)
    assert source.refresh() and source.current.digest != before


def test_a_guard_that_cannot_work_with_a_set_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(GOOD)
    refuse: list[str] = []

    def check(_: object) -> None:
        if refuse:
            raise Mistakes(refuse)
    source = Source(tmp_path, check=check)
    refuse.append("unknown detector")
    (tmp_path / "a.md").write_text(GOOD + "- `a/2` Another.\n")
    assert not source.refresh() and source.stale == ("unknown detector",) and source.reloads == {"ok": 0, "failed": 1}


def test_j01_a_broken_folder_at_the_start_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("---\naction: blok\n---\n- r\n")
    with pytest.raises(Mistakes, match="a.md:2"):
        Source(tmp_path)


def test_a_new_set_is_prepared_before_it_counts(source: Source) -> None:
    before = source.current.digest
    met: list[tuple[str, str]] = []
    source.warm = lambda fresh: met.append((source.current.digest, fresh.digest))
    (source.folder / "a.md").write_text(GOOD + "- `a/2` Another.\n")
    assert source.refresh(force=True)
    assert met == [(before, source.current.digest)] and source.current.digest != before
    source.refresh(force=True)
    assert len(met) == 1, "the same set needs no second preparation"


def test_a_link_to_another_folder_is_followed_though_the_files_are_as_old_and_as_long(tmp_path: Path) -> None:
    """What Nix, container layers and atomic deployments do."""
    for name, text in (("one", GOOD), ("two", GOOD.replace("rule", "role"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(text)
        os.utime(tmp_path / name / "a.md", (1, 1))
    (tmp_path / "now").symlink_to("one")
    source = Source(tmp_path / "now")
    before = source.current.digest
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "now")
    assert source.refresh() and source.current.digest != before


def test_stale_ends_when_what_was_in_the_way_is_gone(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to nowhere has a name only, a mode no content, and a moment without descriptors leaves no trace at all."""
    fresh = GOOD.replace("a/1", "b/1").replace("id: a", "id: b")
    (source.folder / "b.md").write_text(fresh)
    link = source.folder / "c.md"
    link.symlink_to("nowhere")
    assert not source.refresh() and source.stale
    link.unlink()
    assert source.refresh() and not source.stale and len(source.current) == 2

    read, refused = Path.read_text, True

    def closed(path: Path, *args: str) -> str:
        if refused and path.name == "d.md":
            raise PermissionError
        return read(path, *args)
    monkeypatch.setattr(Path, "read_text", closed)
    path = source.folder / "d.md"
    path.write_text(fresh.replace("b", "d"))
    assert not source.refresh() and "PermissionError" in source.stale[0]
    refused = False
    path.chmod(path.stat().st_mode ^ 0o040)
    assert source.refresh() and not source.stale and len(source.current) == 3

    path.write_text(path.read_text() + "- one more\n")
    refused = True
    assert not source.refresh() and source.stale
    refused, failed = False, source.reloads["failed"]
    assert not source.refresh() and source.stale, "nothing changed, and reading costs"
    monkeypatch.setattr(module, "AGAIN", 0.0)
    refused = True
    assert not source.refresh() and source.reloads["failed"] == failed, "the same trouble is told once"
    refused = False
    assert source.refresh() and not source.stale


def test_whatever_keeps_a_new_set_from_counting_is_said(source: Source) -> None:
    before = source.current.digest

    def broken(_: object) -> None:
        raise RuntimeError
    source.warm = broken
    (source.folder / "a.md").write_text(GOOD + "- `a/2` Another.\n")
    assert not source.refresh() and source.stale and source.current.digest == before


def test_a_worker_that_starts_while_an_edit_is_broken_begins_with_the_last_good_set(source: Source, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    broken = source.folder / "b.md"
    broken.write_text("| a | b |\n")
    with pytest.raises(Mistakes):
        Source(source.folder, kept=kept)
    broken.unlink()
    one = Source(source.folder, kept=kept)
    (source.folder / "a.md").write_text(GOOD + "- `a/2` Another.\n")
    assert one.refresh()
    broken.write_text("| a | b |\n")
    two = Source(source.folder, kept=kept)
    assert two.current == one.current and two.current.digest == one.current.digest and "b.md" in two.stale[0]
    assert not two.refresh() and two.stale and list(tmp_path.glob("kept*")) == [kept]
    broken.unlink()
    assert not two.refresh() and not two.stale and two.current.digest == one.current.digest


@pytest.mark.parametrize("name", ["b.MD", "notes.markdown", "c.md.txt"])
def test_a_file_that_the_next_start_would_refuse_is_stale_now(source: Source, name: str) -> None:
    path, before = source.folder / name, source.current.digest
    path.write_text(GOOD)
    assert not source.refresh() and name in source.stale[0] and source.current.digest == before
    path.unlink()
    assert not source.refresh() and not source.stale
    for other in ("README.md", "notes.txt", "a.md~", "a.cases.jsonl"):
        (source.folder / other).write_text("# words\n")
    assert not source.refresh() and source.reloads == {"ok": 1, "failed": 1}


def test_an_editors_lock_is_no_policy(source: Source) -> None:
    os.symlink("me@host.123:1", source.folder / ".#a.md")
    (source.folder / ".a.md").write_text("half")
    assert not source.refresh() and source.reloads == {"ok": 0, "failed": 0}
    assert not source.refresh(force=True) and not source.stale and source.reloads["ok"] == 1
    wrong: list[str] = []
    assert [p.id for p, _ in commands._read(source.folder, (), wrong)] == ["a"] and not wrong
