"""What must not reach training: the same text twice, test rows, one class drowning the other, endless rows.

Overlap with test files is found twice over: any shared run of 13 words (the rule of GPT-3's paper, arXiv 2005.14165,
appendix C) and MinHash over 5-word shingles above a Jaccard similarity (Broder 1997), which catches light rewording.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trainer import sources
from trainer.data import Example, key
from trainer.errors import MissingExtra
from trainer.recipe import Source

_WORD = re.compile(r"\w+")
GRAM, SHINGLE, PERMUTATIONS = 13, 5, 64


def grams(text: str, n: int) -> set[str]:
    """Runs of `n` words, lower case; a shorter text is one gram of all its words, if it has at least three."""
    found = _WORD.findall(text.lower())
    if len(found) < n:
        return {" ".join(found)} if len(found) >= 3 else set()
    return {" ".join(found[i:i + n]) for i in range(len(found) - n + 1)}


def unique(examples: Iterable[Example]) -> tuple[list[Example], int]:
    """Drops rows with the same words, direction and policies; of contradictory labels neither stays. (kept, dropped)"""
    seen: dict[tuple[str, str, str], Example] = {}
    clash: set[tuple[str, str, str]] = set()
    total = 0
    for e in examples:
        total += 1
        context = "\n".join(m.text for m in e.case.messages) if e.case.direction == "output" else ""
        same = (key(context + e.words), e.case.direction, e.case.policies.digest)
        if same in seen and seen[same].unsafe != e.unsafe:
            clash.add(same)
        seen.setdefault(same, e)
    kept = [e for same, e in seen.items() if same not in clash]
    return kept, total - len(kept)


def shorter(examples: Sequence[Example], longest: int) -> tuple[list[Example], int]:
    kept = [e for e in examples if len(e.words) <= longest]
    return kept, len(examples) - len(kept)


def balanced(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], int]:
    """Drops rows of the larger class at random until it holds at most `share` of all. 0 leaves everything."""
    if not share:
        return list(examples), 0
    count = Counter(e.unsafe for e in examples)
    large = count[True] > count[False]
    most = int(count[not large] * share / (1 - share))
    pool = [i for i, e in enumerate(examples) if e.unsafe == large]
    random.Random(f"{seed}/balance").shuffle(pool)
    drop = set(pool[most:]) if most else set()
    return [e for i, e in enumerate(examples) if i not in drop], len(drop)


def test_texts(files: Iterable[str]) -> list[str]:
    """Every message of every row of the test files: shared schema, or any JSON lines with text fields."""
    out = []
    for name in files:
        for _, row in sources.rows(Source(path=name)):
            out += _texts(row.get("messages", row))
    return out


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [t for k, v in value.items() if k not in ("role", "id", "label") for t in _texts(v)]
    return [t for v in value for t in _texts(v)] if isinstance(value, list) else []


class Refuse:
    """The words of test files, ready to be compared with. Raises `MissingExtra` without datasketch."""

    def __init__(self, texts: Iterable[str], similarity: float = 0.7) -> None:
        try:
            from datasketch import MinHashLSH
        except ImportError as e:
            raise MissingExtra("datasketch") from e
        self.grams: set[int] = set()
        # the index only proposes, and should rather propose too much: the similarity itself is computed
        self.near = MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS, weights=(0.1, 0.9))
        self.similarity, self.shingles = similarity, dict[str, frozenset[int]]()
        for i, text in enumerate(dict.fromkeys(texts)):
            self.grams.update(map(hash, grams(text, GRAM)))
            shingles = grams(text, SHINGLE)
            if shingles:
                self.near.insert(str(i), _minhash(shingles), check_duplication=False)
                self.shingles[str(i)] = frozenset(map(hash, shingles))

    def why(self, text: str) -> str:
        """"" | "13-gram" | "minhash": why a text may not be trained on."""
        if any(hash(g) in self.grams for g in grams(text, GRAM)):
            return "13-gram"
        shingles = grams(text, SHINGLE)
        own = frozenset(map(hash, shingles))
        alike = any(len(own & theirs) >= self.similarity * len(own | theirs) for theirs in (
            self.shingles[i] for i in (self.near.query(_minhash(shingles)) if shingles else ())))
        return "minhash" if alike else ""


def _minhash(shingles: set[str]) -> Any:
    from datasketch import MinHash

    made = MinHash(num_perm=PERMUTATIONS, seed=1)
    made.update_batch([s.encode("utf-8", "surrogatepass") for s in shingles])
    return made


def refused(examples: Sequence[Example], files: Sequence[str], similarity: float) -> tuple[list[Example],
                                                                                          Counter[str]]:
    """Drops examples any of whose words overlap a test file. (kept, reasons)"""
    if not files:
        return list(examples), Counter()
    wall = Refuse(test_texts(files), similarity)
    kept, reasons, known = [], Counter[str](), dict[str, str]()
    for e in examples:
        for text in [t for _, t in e.case.trial()] + [m.text for m in e.case.messages]:
            if text not in known:
                known[text] = wall.why(text)
            if known[text]:
                reasons[known[text]] += 1
                break
        else:
            kept.append(e)
    return kept, reasons


def report(examples: Sequence[Example]) -> dict[str, Any]:
    """Counts by source, class, direction and kind: what the model card says about the data."""
    by: dict[str, dict[str, Any]] = {}
    for e in examples:
        row = by.setdefault(e.source, {"rows": 0, "unsafe": 0, "licence": e.licence, "kinds": Counter()})
        row["rows"] += 1
        row["unsafe"] += e.unsafe
        row["kinds"][e.kind] += 1
    return {"rows": len(examples), "unsafe": sum(e.unsafe for e in examples), "sources": by}


def save_report(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
