"""Labels of the pool: every line reads or is named; what they say becomes asks; nothing is taught twice or by guess."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from trainer.encoder.data import Book
from trainer.encoder.labels import CODES, labels
from trainer.encoder.pool import FILE, pool, prompts

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data"
LABELS = ROOT / "trainer" / "examples" / "labels" / "wildguard-pool.txt"


@pytest.fixture(scope="module")
def book() -> Book:
    return Book.of(ROOT / "policies")


def write(folder: Path, said: list[str], told: str) -> Path:
    (folder / "train").mkdir()
    with lzma.open(folder / "train" / f"{FILE}.jsonl.xz", "wt") as file:
        file.writelines(json.dumps({"id": f"pool-{n:06d}", "messages": [{"role": "user", "content": p}]}) + "\n"
                        for n, p in enumerate(said))
    path = folder / "labels.txt"
    path.write_text(told)
    return path


def test_codes_become_asks(tmp_path: Path, book: Book) -> None:
    path = write(tmp_path, ["steal a car and hit him", "bake bread", "who knows", "not labelled"],
                 "# a remark\n0 nv\n1 -\n2 ?\n")
    bad, good = pool(prompts(tmp_path), path, book, 1, calm=5.0)
    assert [(a.policy, a.label) for a in bad.asks] == [("nonviolent-crime", 1), ("violence", 1)]
    assert "minors" in bad.clean and "malware" not in bad.clean         # a neighbour of what was hit is not certain
    assert not good.asks and good.clean == book.shipped


def test_innocent_prompts_are_kept_in_proportion(tmp_path: Path, book: Book) -> None:
    path = write(tmp_path, [f"prompt {n}" for n in range(40)], "".join(f"{n} {'d' if n < 4 else '-'}\n" for n in range(40)))
    items = pool(prompts(tmp_path), path, book, 1, calm=1.5)
    assert [bool(i.asks) for i in items].count(True) == 4 and len(items) == 10
    assert items == pool(prompts(tmp_path), path, book, 1, calm=1.5)


@pytest.mark.parametrize("line", ["1", " -", "1 z", "1 -n", "1 n v", " 1 n"])
def test_a_line_that_does_not_read_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "l").write_text(f"0 -\n{line}\n")
    with pytest.raises(ValueError, match=r"l:2: expected"):
        labels(tmp_path / "l")


def test_a_number_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "l").write_text("0 -\n0 n\n")
    with pytest.raises(ValueError, match="l:2: 0 is labelled twice"):
        labels(tmp_path / "l")


def test_our_labels_read_and_name_shipped_policies(book: Book) -> None:
    told = labels(LABELS)
    assert len(told) == 22974 and set(CODES.values()) <= set(book.shipped)
    assert 0.3 < sum(code == "-" for code in told.values()) / len(told) < 0.7


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_our_labels_fit_the_originals(book: Book) -> None:
    items = pool(prompts(SHARED), LABELS, book, 7, calm=100.0)
    assert len(items) > 18_000


def test_our_labels_of_labelled_sources_read() -> None:
    assert len(labels(LABELS.with_name("shared.txt"))) == 3080
