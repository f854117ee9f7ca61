"""Long innocent texts that every machine has: the standard library's sources and help, and this repository's own papers.

People paste documents into prompts: source files, licences, manuals. Half of them teach what such text looks like, the other
half is natural traffic to calibrate on, all windows of a text together, as it is served.

The library is that of the Python that trains (PSF licence); what is taken is drawn by name.
"""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path

from trainer.encoder.data import Book, Item, texts

ROOT = Path(__file__).parents[2]
PAPERS = ("LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "setup.cfg", "firewall.toml", "docs/*.md", "docs/decisions/*.md")
WINDOWS = 8             # of one document: the first and others at random
LONGEST = 12_000        # characters


def documents(book: Book, count: int) -> tuple[list[Item], list[Item]]:
    """(items to train on, items to calibrate on), about `count` in all; none violates a shipped policy. Authors' addresses
    stand in sources, so nothing is said of `personal-data`."""
    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"), key=lambda p: _key(p.name))
    found = [p.read_text("utf-8", "replace") for p in (*_papers(), *library[:count])]
    from pydoc_data import topics

    found += [text for name, text in sorted(topics.topics.items(), key=lambda t: _key(t[0]))[:count // 3]]
    clean = tuple(p for p in book.shipped if p != "personal-data")
    items = [Item("documents", _key(text), got, 0, (), clean) for text in found
             if len(text) > 600 and (got := texts(text[:LONGEST], limit=WINDOWS))]
    return [i for i in items if int(i.key[8:16], 16) % 2], [i for i in items if not int(i.key[8:16], 16) % 2]


def _papers() -> list[Path]:
    return [path for pattern in PAPERS for path in sorted(ROOT.glob(pattern))]


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
