"""A policy file -> `Policy`; a folder -> `PolicySet`. Prose in Markdown is the source of truth.

A file is YAML front matter and Markdown. Each bullet under `## Violates` is a rule with an id, written
`` `weapons/2` `` at its start or given by its position. A file without sections is a policy too: its bullets are
rules, and prose without bullets is one rule. Files are read strictly and as a person reads them (`page`): every mistake of
a folder is reported at once with file, line and the nearest key that exists, and a set is replaced as a whole or not at
all. An ad hoc text is read more plainly, by `_sections` and `_bullets`: the guard was trained on that reading.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from firewall.errors import Mistakes
from firewall.folder import files, written
from firewall.page import GROUP, SECTIONS, Parts, Problem, misplaced, read

Direction = Literal["input", "output"]
Action = Literal["block", "redact", "flag"]
CHOICES: dict[str, tuple[str, ...]] = {
    "applies-to": ("input", "output", "both"), "action": ("block", "redact", "flag"),
    "on-guard-error": ("closed", "open"), "release": ("rolling", "whole", "watch"),
    "depth": ("snap", "reason", "deliberate"),
}
KEYS = ("id", "title", "applies-to", "action", "threshold", "on-guard-error", "release", "message", "tags", "detect",
        "depth", "enabled")
VALUES = {**CHOICES, "applies-to": ("input", "inputs", "prompts", "output", "outputs", "answers", "both"),
          "enabled": ("true", "false", "yes", "no", "on", "off"), "threshold": ()}       # that a person may write to a key
LONGEST = 100_000       # characters of a file: a guard prepares a set before it is in force, and later edits wait for that
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_RULE_ID = re.compile(r"[a-z0-9-]+/[A-Za-z0-9_-]+")
_RULE = re.compile(rf"`({_RULE_ID.pattern})`\s+(\S.*)", re.S)
_CODE = re.compile(r"([*_\[(]{0,3})(`+)([^`]+)\2\s*(.*)", re.S)                     # **`weapons/2`** words
_BARE = re.compile(r"[*_\[('\"´‘]{0,3}([\w-]+/[\w-]+)(?:[*_\])'\"´’:：]|\s[-–—]\s)")   # weapons/2: words
_AFTER = re.compile(r"(?:[:：]|[-–—.→]{1,3}(?=\s|$))?\s*")                           # between an id and its words
_BULLET = re.compile(r"(?:[-*+]|\d{1,3}[.)])\s+(\S.*)")
_TITLE = re.compile(r"^#[ \t].*$|^#{1,6}$", re.M)
_ABOVE = re.compile(r"(?:\s|<!--.*?-->)*+---[^\S\n]*\n", re.S)      # what a person may leave above front matter: nothing
_OTHER = re.compile(r"""(?:\s|<!--.*?-->)*+(?:\+\+\+[^\S\n]*\n|\{\s*["']?[\w-]+["']?\s*:)""", re.S)      # of other tools
_SET = re.compile(rf"[\s#>*_+`\"'-]*({'|'.join(KEYS).replace('-', '[-_ ]')})[*_`\"']*\s*[:=：]\s*(.*)", re.I)


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. `threshold` is a calibrated probability in (0, 1); 0.5 is the guard's own operating point."""

    id: str
    title: str
    rules: tuple[Rule, ...]
    prose: str = ""
    allowed: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    applies_to: Literal["input", "output", "both"] = "both"
    action: Action = "block"
    threshold: float = 0.5
    on_guard_error: Literal["closed", "open"] = "closed"
    release: Literal["rolling", "whole", "watch"] | None = None
    depth: Literal["snap", "reason", "deliberate"] | None = None
    message: str = ""
    tags: tuple[str, ...] = ()
    detect: tuple[str, ...] = ()
    enabled: bool = True

    @property
    def open(self) -> bool:
        """Whether an exchange may go on without a guard, for all this policy says: what only reports stops nothing."""
        return self.on_guard_error == "open" or self.release == "watch"

    @classmethod
    def from_text(cls, id: str, text: str) -> Policy:
        """An ad hoc policy from any prose (a benchmark row, a test). Raises `Mistakes` when empty."""
        return parse(text, id, f"{id} (ad hoc)", strict=False)


@dataclass(frozen=True)
class PolicySet:
    """Policies sorted by id, with the digest that goes into every record."""

    policies: tuple[Policy, ...] = ()
    _sides: dict[str, PolicySet] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, policies: Iterable[Policy]) -> PolicySet:
        return cls(tuple(sorted(policies, key=lambda p: p.id)))

    def __iter__(self) -> Iterator[Policy]:
        return iter(self.policies)

    def __len__(self) -> int:
        return len(self.policies)

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of SHA-256 over every field that can change a verdict or an action."""
        rows = [{f.name: getattr(p, f.name) for f in fields(Policy) if f.name != "rules"}
                | {"rules": [[r.id, r.text] for r in p.rules]} for p in self.policies]
        text = json.dumps(rows, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @cached_property
    def owner(self) -> dict[str, Policy]:
        """Rule id (and policy id) -> its policy."""
        return {k: p for p in self.policies for k in (p.id, *(r.id for r in p.rules))}

    @cached_property
    def redacts(self) -> bool:
        """Whether any policy replaces what it finds."""
        return any(p.action == "redact" for p in self.policies)

    @cached_property
    def releases(self) -> frozenset[str | None]:
        """How its policies want answers to leave. None: as [stream] says."""
        return frozenset(p.release for p in self.policies)

    @cached_property
    def rule_ids(self) -> tuple[str, ...]:
        return tuple(r.id for p in self.policies for r in p.rules)

    def side(self, direction: Direction) -> PolicySet:
        """The subset that applies to one direction; the same object every time."""
        if direction not in self._sides:
            kept = tuple(p for p in self.policies if p.applies_to in (direction, "both"))
            self._sides[direction] = self if len(kept) == len(self.policies) else PolicySet(kept)
        return self._sides[direction]


def load(folder: Path, enable: Iterable[str] = (), disable: Iterable[str] = (), release: str = "") -> PolicySet:
    """Reads the `files` of a folder. `enable` and `disable` name policy ids and win over
    front matter. `release` is that of [stream]: under `watch` a policy without a `release` of its own only reports.

    Raises:
        Mistakes: every mistake of every file; nothing is loaded then.
    """
    wrong: list[str] = []
    found: dict[str, Policy] = {}
    enable, disable = tuple(enable), tuple(disable)
    for path in files(folder):
        try:
            policy = parse(written(path), path.stem, str(path))
        except Mistakes as e:
            wrong += e.lines
        except FileNotFoundError as e:      # a link to nothing
            wrong.append(f"{path}:1: cannot be read ({e.strerror})")
        else:
            if policy.id in found:
                wrong.append(f"{path}:1: id {policy.id!r} is taken by another file")
            found[policy.id] = replace(policy, enabled=(policy.enabled or policy.id in enable) and policy.id not in disable,
                                       release=policy.release or ("watch" if release == "watch" else None))
    for name in (*enable, *disable):
        if name not in found:
            wrong.append(f"{folder}: no policy {name!r}{_near(name, found)}")
    if not found and not wrong:
        wrong.append(f"{folder}: no policy file (*.md) here; an empty set would pass everything")
    if found and not wrong and not any(p.enabled for p in found.values()):
        wrong.append(f"{folder}: every policy here is off, and an empty set would pass everything; write `enabled: true` "
                     "into a file, or name one in `enable` under [policies]")
    if wrong:
        raise Mistakes(wrong)
    return PolicySet.of(p for p in found.values() if p.enabled)


def parse(text: str, stem: str, where: str, strict: bool = True) -> Policy:
    """One Markdown text -> `Policy`. A file is read by `page`; `strict=False` takes any prose as it stands.

    Raises:
        Mistakes: lines `where:line: sentence`.
    """
    wrong: list[Problem] = []
    if strict and not _ID.fullmatch(stem):
        wrong.append((1, f"the file's name is the policy's id: lower-case letters, digits, hyphens; rename {_slug(stem)}"))
    text, above = text.removeprefix("\ufeff").replace("\r\n", "\n"), 0
    if strict and len(text) > LONGEST:
        wrong.append((1, f"{len(text)} characters; {LONGEST} are the most that may stand in one file: part it"))
    elif strict:
        text = text.replace("\r", "\n")
        if match := _ABOVE.match(text):
            text, above = "---\n" + text[match.end():], match[0].count("\n") - 1
        elif match := _OTHER.match(text):
            wrong.append((match[0].rstrip("\n").count("\n") + 1, "front matter of another kind would be prose; write it as "
                          "`key: value` lines between two --- lines"))
    values, body, first = _front(text, stem, wrong, strict) if text.startswith("---\n") else ({}, text, 1)
    sections, problems = read(body, first) if strict else (_sections(body, first), [])
    wrong += problems
    known = any(s in sections for s in SECTIONS)
    lead = " ".join(line.strip() for _, line in sections.get("", []) if line.strip())
    bullets = _bullets(sections.get("violates", []) if known else [x for part in sections.values() for x in part])
    if not bullets and not known and (whole := " ".join((lead if strict else _TITLE.sub("", body)).split())):
        bullets = [(first, whole)]
    if strict:
        for name, lines in sections.items():
            wrong += [(number, f"`{key}:` stands outside the front matter and would be words; put it between two --- lines "
                       "at the top, or begin with another word") for number, line in lines
                      if (key := _stray(line, bool(name) or not known and line.startswith("- ")))]
        told = {number for number, _ in wrong}
        for name in SECTIONS[:3] if known else ("",):
            wrong += [(number, problem) for number, text in _bullets(sections.get(name, []))
                      if number not in told and (problem := misplaced(text, name or "violates"))]
    rules = _rules(bullets, str(values.get("id", stem)), wrong, strict)
    if not rules and not wrong:
        above_all = _bullets(sections[""]) if strict else []
        wrong.append((above_all[0][0], "no rule: this stands above the sections; write `## Violates` above it")
                     if above_all else (first, "no rule: write at least one bullet under `## Violates`"))
    if wrong:
        raise Mistakes([f"{where}:{above + number}: {problem}" for number, problem in wrong])
    values |= {s: tuple(t for _, t in _bullets(sections.get(s, []))) for s in SECTIONS[1:]}
    return Policy(**{"id": stem, "title": stem, **values}, rules=rules, prose=lead)


def _front(text: str, stem: str, wrong: list[Problem], strict: bool) -> tuple[dict[str, Any], str, int]:
    """(fields of a `Policy`, what follows, the number of its first line)."""
    end = text.find("\n---", 3)
    if end < 0:
        wrong.append((1, "front matter opens with --- and never closes"))
        return {}, "", 1
    head, body = text[4:end + 1], text[text.find("\n", end + 1) + 1 or len(text):]
    lines: dict[str, int] = {}
    try:
        meta, tree = yaml.safe_load(head) or {}, yaml.compose(head, yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        mark = getattr(e, "problem_mark", None)
        wrong.append(((mark.line if mark else 0) + 2, f"front matter is not YAML: {getattr(e, 'problem', '')}; "
                      "words with a colon or another sign go into quotes"))
        return {}, body, 1
    if not isinstance(meta, dict):
        wrong.append((2, "front matter must be `key: value` lines"))
        return {}, body, 1
    for key, _ in tree.value if isinstance(tree, yaml.MappingNode) else ():
        number = key.start_mark.line + 2
        if strict and str(key.value) in lines:
            wrong.append((number, f"key {key.value!r} stands twice, first in line {lines[key.value]}; keep one"))
        lines[str(key.value)] = number
    return _values(meta, stem, lines, wrong), body, head.count("\n") + 3


def _stray(line: str, item: bool) -> str:
    """The key that a line outside the front matter means to set, or nothing. A line that is prose by its look (`Action:` and
    a sentence, `Tags: see below`) is prose, and of an `item`, which may be a rule, the key must have a value of its own."""
    if not (match := _SET.fullmatch(line)):
        return ""
    key = re.sub("[_ ]", "-", match[1].lower())
    value = match[2].partition("#")[0].lower().strip(" *_`\"'")
    words = re.sub(r"[^\w.%-]+", " ", value).split()
    fits = bool(words) and (words[0].rstrip(".") in VALUES.get(key, ()) or
                            key == "threshold" and bool(re.fullmatch(r"[01]?\.\d+", words[0])))
    if item or " " in match[1]:
        meant = fits and len(words) == 1
    elif key in VALUES:
        meant = line.startswith(key) or len(words) < 2 or fits and len(words) < 4
    else:                                               # any words are a title or a message, but no sentence is a tag
        meant = (line.startswith(key) or key in ("title", "message") or value.startswith("[")
                 or all(len(part.split()) < 2 for part in value.split(",")))
    return key if meant else ""


def _values(meta: dict[Any, Any], stem: str, lines: dict[str, int], wrong: list[Problem]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in meta.items():
        problem = ""
        if key not in KEYS:
            problem = f"unknown key {str(key)!r}{_near(str(key), KEYS)}"
        elif key in CHOICES and value not in CHOICES[key]:
            problem = f"must be one of {', '.join(CHOICES[key])}{_near(str(value), CHOICES[key])}"
        elif key == "id" and (not isinstance(value, str) or not _ID.fullmatch(value)):
            problem = "must be lower-case letters, digits and hyphens"
        elif key == "id" and value != stem and _ID.fullmatch(stem):
            problem = f"must be the file's name, {stem!r}"
        elif key in ("title", "message") and not isinstance(value, str):
            problem = "must be text"
        elif key == "enabled" and not isinstance(value, bool):
            problem = "must be true or false"
        elif key == "threshold" and (isinstance(value, bool) or not isinstance(value, (int, float))
                                     or not 0 < value < 1):
            problem = "must be a number between 0 and 1"
        elif key in ("tags", "detect"):
            if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                problem = "must be a list of words"
            value = tuple(value) if isinstance(value, list) else ()
        if problem:
            wrong.append((lines.get(str(key), 2), problem if key not in KEYS else f"{key}: {problem}"))
        else:
            out[key.replace("-", "_")] = value
    return out


def _sections(body: str, first: int) -> Parts:
    """Ad hoc: heading (lower case, '' before the first `##`) -> numbered lines under it. `#` titles are skipped."""
    parts: Parts = {"": []}
    name = ""
    for number, line in enumerate(body.split("\n"), first):
        if line.startswith("## "):
            name = line[3:].strip().rstrip(":").lower()
            parts.setdefault(name, []).append((number, ""))
        elif not line.startswith("# "):
            parts[name].append((number, line))
    return parts


def _bullets(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Top-level bullets; indented and wrapped lines continue the bullet above. A line that names a group (`### Name`,
    `[Name]`, `**Name**`) ends it, and prose under such a line is an item of its own."""
    out: list[tuple[int, str]] = []
    open = False
    for number, line in lines:
        words = line.strip()
        if match := _BULLET.match(line):
            out.append((number, match[1].strip()))
            open = True
        elif line.startswith("#") or GROUP.fullmatch(words):
            open = False
        elif words and open:
            out[-1] = (out[-1][0], f"{out[-1][1]} {words}")
        elif words and out:
            out.append((number, words))
            open = True
    return out


def _rules(bullets: list[tuple[int, str]], id: str, wrong: list[Problem], strict: bool) -> tuple[Rule, ...]:
    rules: dict[str, Rule] = {}
    for position, (line, text) in enumerate(bullets, 1):
        if strict:
            name, words, problem = _named(text, id)
            if problem:
                wrong.append((line, problem))
        else:
            match = _RULE.match(text)
            name, words = (match[1], match[2]) if match else ("", text)
        name = name or f"{id}/{position}"
        if not name.startswith(f"{id}/"):
            wrong.append((line, f"rule id {name!r} must start with {id + '/'!r}"))
        if name in rules:
            wrong.append((line, f"rule id {name!r} is used twice"))
        rules[name] = Rule(name, " ".join(words.split()))
    return tuple(rules.values())


def _named(text: str, id: str) -> tuple[str, str, str]:
    """A bullet of a file -> (rule id or nothing, words, problem). Emphasis, a colon or a dash may stand around the id;
    what is meant for an id and is none is a problem, for records and dashboards would show another."""
    if not (match := _CODE.match(text)):
        bare = _BARE.match(text)
        own = bare is not None and bare[1].lower().startswith(f"{id}/")
        return "", text, f"write the rule id in backticks: `{id}/{bare[1][len(id) + 1:]}`" if bare and own else ""
    mark, name, words = match[1], match[3].strip().rstrip(":："), match[4]
    own = name.lower().startswith(f"{id}/")
    if _RULE_ID.fullmatch(name):
        closing = mark[::-1].translate({ord("["): "]", ord("("): ")"})
        words = _AFTER.sub("", words, 1)
        if words.startswith(closing):
            words, mark = _AFTER.sub("", words[len(closing):].lstrip(), 1), ""
        return name, mark + words, "" if words else f"rule id {name!r} has no words behind it"
    if not own and not re.fullmatch(r"[^\s/.~<][^\s/]*/\S*", name):       # `/etc/passwd` and `rm -rf /` are words
        return "", text, ""
    meant = f"{id}/{name[len(id) + 1:]}" if own else name.lower()
    near = f"; did you mean {meant!r}?" if _RULE_ID.fullmatch(meant) else ""
    return "", text, (f"{name!r} is no rule id: {id + '/'!r}, then letters, digits, - and _{near}" if near or own else
                      f"{name!r} looks like a rule id and is none; begin the bullet with another word")


def _slug(stem: str) -> str:
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    near = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:64]
    return f"{stem + '.md'!r}" + (f" to {near + '.md'!r}" if near else ", for example to 'gift-cards.md'")


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
