"""Qwen3Guard-Gen (Alibaba, arXiv 2510.14276), sizes 0.6B, 4B and 8B: three levels, nine categories.

The server's chat template writes the prompt: the last message is on trial, a request as `USER's query`, an answer as
`ASSISTANT's response`. Level and categories come on a line each; for an answer there is a third line about refusal.
`Jailbreak` is a category of requests only, so it covers no policy on answers. `Controversial` scores 0.5: found at a
policy's default threshold (the report's strict mode), passed by a higher one (its loose mode). `None` goes with `Safe`
and with nothing else: an unsafe answer without a category would find no policy and pass.

Verified: answers, levels and categories with QwenLM/Qwen3Guard README.md (Quick Start, Safety Policy), and with
published copies of the chat template of Qwen/Qwen3Guard-Gen-0.6B, whose list for answers lacks `Jailbreak`. No
checkpoint was run.
"""

from __future__ import annotations

import re

from firewall.case import Case
from firewall.guards.dialects.dialect import NO, YES, Belief, Question, turns
from firewall.guards.dialects.taxonomy import QWEN3GUARD, covered, rules
from firewall.guards.engine import Reply
from firewall.policy import Direction, Policy
from firewall.verdict import Depth, Unreadable

SCORE = {"Safe": NO, "Controversial": 0.5, "Unsafe": YES}
SIDES: dict[Direction, dict[str, tuple[str, ...]]] = {
    "input": QWEN3GUARD, "output": {c: ids for c, ids in QWEN3GUARD.items() if c != "Jailbreak"}}
_ANSWER = re.compile(r"Safety: (Safe|Unsafe|Controversial)\s*\n\s*Categories: ([^\n]+)(?:\s*\nRefusal: (?:Yes|No))?")


class Qwen3Guard:
    name = "qwen3guard"
    depth: Depth = "snap"

    def covers(self, policy: Policy, direction: Direction) -> bool:
        return covered(policy, "qwen3guard", SIDES[direction])

    def ask(self, case: Case) -> list[Question]:
        return [Question(case.policies.policies, turns(case), limit=128)]       # the README's limit

    def read(self, question: Question, reply: Reply, case: Case) -> Belief:
        m = _ANSWER.fullmatch(reply.text.strip())
        if not m:
            raise Unreadable("not the two or three lines of the model card")
        categories = [c.strip() for c in m[2].split(",")]
        if (m[1] == "Safe") != (categories == ["None"]):
            raise Unreadable("categories that contradict the level")
        if m[1] == "Safe":
            return Belief(SCORE["Safe"], ())
        if any(c not in SIDES[case.direction] for c in categories):
            raise Unreadable("a category that the card does not know here")
        found = rules(question.policies, "qwen3guard", categories, SIDES[case.direction])
        return Belief(SCORE[m[1]], found, m[2])
