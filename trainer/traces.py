"""Reasoning traces for stage 1: built from a row's rules for small models, or sampled from a model and kept if right.

A built trace names what is said, the rules that come close and what covers it, then the verdict in the form that
`firewall.verdict.read` accepts. Its wording varies with the salt, its order does not: evidence, rule,
exception, verdict.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from firewall.policy import Policy
from firewall.template import Segment, render, target
from firewall.verdict import BOX
from trainer.data import Example
from trainer.recipe import Reward
from trainer.reward import grade

if TYPE_CHECKING:
    from trainer.sampler import Draw, Sampler

_BARE = str.maketrans("", "", "<>\\{}")
_WORD = re.compile(r"[a-z]{4,}")
SAID = ("Said: {}.", "The words: {}.", "On trial: {}.")
CLOSE = ("Close: {} ({}).", "This comes close to {}: {}.", "Nearest rule {}: {}.")
NONE = ("Close: none.", "No rule here is about that.", "Nothing in the policies forbids it.")
ALLOWED = ("An allowed line covers it.", "The policy allows it in so many words.")
EXCEPT = ("An exception covers it.", "The exception applies here.")
UNSAFE = ("No exception. It violates {}.", "Nothing covers it, so {} is violated.", "So: {}.")
SAFE = ("So: safe.", "It is safe.", "Not a violation.")


def build(e: Example, rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """(thought, cited rules) for one example."""
    words = e.words.split()
    start = rng.randrange(max(1, len(words) - 9))
    quoted = " ".join(words[start:start + 10])[:90].translate(_BARE)     # evidence may hold tags and boxes of its own
    parts = [rng.choice(SAID).format(quoted)]
    cited = cite(e)
    if e.unsafe:
        by = {r.id: r.text for p in e.case.policies for r in p.rules}
        parts += [rng.choice(CLOSE).format(r, " ".join(by[r].split()[:10]).translate(_BARE)) for r in cited]
        parts.append(rng.choice(UNSAFE).format(", ".join(cited)))
        return " ".join(parts), cited
    if e.kind == "permissive":
        parts.append(rng.choice(ALLOWED))
    elif e.kind == "exception":
        parts.append(rng.choice(EXCEPT))
    else:
        parts.append(rng.choice(NONE))
    return " ".join([*parts, rng.choice(SAFE)]), ()


def cite(e: Example) -> tuple[str, ...]:
    """Rules a right answer may cite: one a policy, the one whose words are nearest to those on trial."""
    if not e.unsafe:
        return ()
    said = set(_WORD.findall(e.words.lower()))
    possible = set(e.rules or e.case.policies.rule_ids)

    def near(policy: Policy) -> tuple[float, str]:
        return max((len(said & set(_WORD.findall(r.text.lower()))) / (1 + len(r.text.split())), r.id)
                   for r in policy.rules if r.id in possible)

    best = [near(p) for p in e.case.policies if any(r.id in possible for r in p.rules)]
    return tuple(sorted(r for _, r in best)) if e.rules else (max(best)[1],)


def lesson(e: Example, salt: str, snap: float = 0.0) -> tuple[tuple[Segment, ...], str]:
    """(prompt segments, answer text) to learn from; a share of `snap` lessons has no thought."""
    rng = random.Random(salt)
    if rng.random() < snap:
        answer = target("-", cite(e))
        return render(e.case, "snap"), answer[answer.index(BOX) + len(BOX):]
    thought, rules = build(e, rng)
    return render(e.case, "reason"), target(thought, rules)


def plain(e: Example) -> tuple[Segment, ...]:
    """The row as running text for language modelling: rules, then words. Evidence stays untrusted."""
    rules = " ".join(r.text for p in e.case.policies for r in p.rules)
    return (Segment(rules + "\n", False), Segment("\n".join(m.text for m in e.case.messages) + "\n", False),
            Segment(e.words if e.case.direction == "output" else "", False), Segment("<|im_end|>", True))


def sampled(examples: Sequence[Example], sampler: Sampler, tokenizer: Any, tries: int, draw: Draw,
            seed: int) -> list[tuple[Example, str]]:
    """Rejection sampling: of `tries` answers the shortest that is strictly right; rows without one are left out.

    Raises nothing: what share was kept is the caller's to report.
    """
    from trainer import tokenizer as words

    strict, kept = Reward(strict=True, cited=0.1), []
    for start in range(0, len(examples), 32):
        part = examples[start:start + 32]
        asked = [words.prompt(tokenizer, e.case) for e in part]
        groups = sampler.sample(asked, replace(draw, group=tries), seed + start)
        for e, group in zip(part, groups, strict=True):
            texts = [words.answer_text(tokenizer, s.ids) for s in group if s.finished]
            right = [t for t in texts if (g := grade(t, e, strict)).accuracy and g.cited]
            if right:
                kept.append((e, min(right, key=len)))
    return kept


def finish(texts: Iterable[tuple[Example, str]]) -> list[tuple[Example, str]]:
    """Sampled answers as targets after the opened thought."""
    return [(e, t.removeprefix("<think>").rstrip() + "<|im_end|>") for e, t in texts]
