"""firewall.toml as lines of text: where a key stands, what is said about it, and which known word is near to another."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

FAMILIES = ("openai", "anthropic", "gemini", "ollama")
SHIPPED = Path(__file__).parent / "shipped"
_HEADER = re.compile(r"\s*\[+([^\[\]=]+)\]+\s*(?:#.*)?$")
_SPACE = re.compile(r"[\s\"']+")


def number(text: str, key: str, section: str) -> int:
    """The line of a key, or of a section where one is empty, however it is spelled: `[ guard ] # words`, `guard.kind = 1`;
    1 where it is not found."""
    wanted = ".".join(word for word in (section, key) if word)
    inside = ""
    for at, line in enumerate(text.splitlines(), 1):
        if match := _HEADER.match(line):
            found = inside = _SPACE.sub("", match[1])
        else:
            found = _SPACE.sub("", f"{inside}.{line.partition('=')[0]}").removeprefix(".")
        if found == wanted:
            return at
    return 1


def explain(key: str) -> str:
    """The comment lines and default of a key (`guard.deadline` or `deadline`). Raises KeyError with near keys."""
    if (words := key.split("."))[0] == "upstream" and len(words) == 3 and words[1] in FAMILIES:
        key = f"upstream.{words[2]}"        # `upstream.anthropic.url` is as `upstream.url`
    found: list[str] = []
    reason: list[str] = []
    keys: list[str] = []
    section, after_key = "", False
    for line in (SHIPPED / "firewall.toml").read_text("utf-8").splitlines():
        if line.startswith("["):
            section, reason = line.strip("[]"), []
        elif line.startswith("# "):
            reason = [line[2:]] if after_key else [*reason, line[2:]]
            after_key = False
        elif "=" in line:
            after_key = True
            name = line.split("=")[0].strip()
            keys += [f"{section}.{name}", name]
            if key in (f"{section}.{name}", name):
                found.append("\n".join([f"{section}.{line}", *(f"  {r}" for r in reason)]))
        else:
            reason = []
    if not found:
        raise KeyError(f"no key {key!r}{near(key, keys)}")
    return "\n".join(found)


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    found = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {found[0]!r}?" if found else ""
