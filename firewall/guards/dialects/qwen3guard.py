"""Qwen3Guard-Gen (Alibaba, arXiv 2510.14276; model card Qwen/Qwen3Guard-Gen-8B).

The server's chat template writes the prompt. Three severities: Safe, Controversial, Unsafe. `Controversial` scores 0.5:
found at a policy's default threshold (the card's strict mode), passed by a higher one (its loose mode).
"""

from __future__ import annotations

import re

from firewall.case import Case
from firewall.guards.dialects.dialect import Belief, Question, turns
from firewall.guards.dialects.taxonomy import QWEN3GUARD, covered, rules
from firewall.guards.engine import Reply
from firewall.policy import Policy
from firewall.verdict import Depth, Unreadable

SCORE = {"Safe": 0.02, "Controversial": 0.5, "Unsafe": 0.98}
_ANSWER = re.compile(r"Safety: (Safe|Unsafe|Controversial)\s*\n\s*Categories: ([^\n]+)(?:\s*\nRefusal: (?:Yes|No))?")


class Qwen3Guard:
    name = "qwen3guard"
    depth: Depth = "snap"

    def covers(self, policy: Policy) -> bool:
        return covered(policy, "qwen3guard", QWEN3GUARD)

    def ask(self, case: Case) -> list[Question]:
        return [Question(case.policies.policies, turns(case), limit=64)]

    def read(self, question: Question, reply: Reply, case: Case) -> Belief:
        m = _ANSWER.fullmatch(reply.text.strip())
        if not m:
            raise Unreadable("not the three lines of the model card")
        categories = [c.strip() for c in m[2].split(",")]
        if any(c not in QWEN3GUARD and c != "None" for c in categories):
            raise Unreadable("a category that the card does not know")
        if m[1] == "Safe":
            return Belief(SCORE["Safe"], ())
        found = rules(question.policies, "qwen3guard", categories, QWEN3GUARD)
        return Belief(SCORE[m[1]], found, m[2])
