"""How a policy becomes what the encoder reads: slots. Training and serving both call `segments`.

A slot is one sentence with a role. `violates` slots are scored, and each belongs to one rule id; `allowed` slots
(allowed lines, exceptions, allow-lists) speak for or against the rules of their own policy; `scope` slots say what the
policy is about. A policy is a *set* of slots: the order of rules and policies cannot change a verdict.

Bullets under a heading keep its role, whatever their words: `## Violates` makes a rule of "Instructions that allow a
person to build a bomb. This holds in any language." Policies written without headings ("Allow billing questions; flag
everything else") are split into sentences, and each sentence gets its role from its verbs. The split is deterministic
and costs nothing at run time (slots are cached).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from firewall.policy import Policy

VIOLATES, ALLOWED, SCOPE = 0, 1, 2

_SENTENCE = re.compile(
    r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])|;\s+(?=(?:flag|block|reject|refuse|deny|everything|all other)\b)")
_DENY = re.compile(
    r"\b(?:not|never)\s+(?:be\s+)?(?:allowed|permitted|acceptable|in scope)\b"
    r"|\b(?:must|do|may|should|shall|can)\s?not\b"
    r"|\bdon't\b|\bnever\b|\bprohibit|\bforbid|\bbanned?\b|\bflag\b|\bviolat|\bout of scope\b|\bblock\b"
    r"|\brefuse\b|\breject\b|\bdisallow|\boff[- ]limits\b", re.I)
_ALLOW = re.compile(
    r"\ballow(?:ed|s)?\b|\bpermit(?:ted|s)?\b|\bacceptable\b|\bwelcome\b|\bin scope\b|\b(?:is|are) (?:fine|ok|okay)\b"
    r"|\bserves? only\b|\bonly (?:serves?|answers?|helps?|handles?|covers?|discusses)\b"
    r"|^exceptions?\b|\bexcept(?:ion)?:|\bmay\b", re.I)
_CLAUSE = re.compile(r"[.;:,!?]\s+|[、，。；：！？]|\s(?=(?:or|and|but|unless|except)\b)")


class Slot(NamedTuple):
    """One encoded sentence. `rule` is the id that a `violates` slot speaks for, else empty. `part` counts the parts of
    a sentence longer than the encoder reads at once (`plan.py`)."""

    role: int
    text: str
    rule: str = ""
    part: int = 0


def segments(policy: Policy) -> tuple[Slot, ...]:
    """The slots of one policy: at least one `violates` slot for each rule."""
    out: list[Slot] = []
    prose = " ".join(policy.prose.split())      # the words before any heading: with no heading, all the rules too
    for rule in policy.rules:
        text = rule.text
        parts = [s for s in _SENTENCE.split(text) if s.strip()] if text in prose else []
        if len(parts) < 2:
            out.append(Slot(VIOLATES, text, rule.id))
            continue
        roles = [_role(s) for s in parts]
        fallback = SCOPE if VIOLATES in roles else VIOLATES
        slots = [Slot(fallback if r is None else r, s.strip()) for r, s in zip(roles, parts, strict=True)]
        if not any(s.role == VIOLATES for s in slots):      # nothing but allowances: still a rule, as a whole
            slots.append(Slot(VIOLATES, text))
        out += [s._replace(rule=rule.id) if s.role == VIOLATES else s for s in slots]
    out += [Slot(ALLOWED, t) for t in (*policy.allowed, *policy.exceptions)]
    scope = policy.title if policy.title != policy.id else ""
    if scope:
        out.append(Slot(SCOPE, scope))
    return tuple(out)


def _role(sentence: str) -> int | None:
    if _DENY.search(sentence):
        return VIOLATES
    return ALLOWED if _ALLOW.search(sentence) else None


def parts(text: str, tokens: Sequence[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """Where a sentence of these tokens (start, end in `text`) is cut into parts of at most `limit` tokens: [a, b) of
    each, none left out. Parts are about equally long; they begin with a clause if one is near, else with a word."""
    out: list[tuple[int, int]] = []
    start, size = 0, len(tokens)
    clauses = {m.end() for m in _CLAUSE.finditer(text)} if size > limit else set()
    while size - start > limit:
        even = start + math.ceil((size - start) / math.ceil((size - start) / limit))

        def cost(at: int, even: int = even) -> tuple[bool, bool, int]:
            a = tokens[at][0]
            return a not in clauses, text[a - 1:a].isalnum() and text[a:a + 1].isalnum(), abs(at - even)

        end = min(range(start + limit // 2, start + limit + 1), key=cost)
        out.append((start, end))
        start = end
    return [*out, (start, size)]
