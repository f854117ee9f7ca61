"""Llama Guard 3 and 4 (Meta; model cards and prompt formats at llama.com/docs/model-cards-and-prompt-formats).

The server's own chat template wraps the conversation and the categories S1-S14; the model answers `safe`, or `unsafe`
and a line of category codes. With `own=True`, the active policies replace the categories (`categories` of the template,
as the card describes for custom taxonomies; vLLM passes it on), and every policy is covered.
"""

from __future__ import annotations

import re

from firewall.case import Case
from firewall.guards.dialects.dialect import Belief, Question, first_rules, odds, text_of, turns
from firewall.guards.dialects.taxonomy import LLAMA_GUARD, covered, rules
from firewall.guards.engine import Reply
from firewall.policy import Policy
from firewall.verdict import Depth, Unreadable

_ANSWER = re.compile(r"\s*(?:safe|unsafe\s*\n\s*(S\d{1,2}(?:\s*,\s*S\d{1,2})*))\s*")


class LlamaGuard:
    depth: Depth = "snap"

    def __init__(self, version: int = 3, own: bool = False) -> None:
        self.name, self.own = f"llama-guard-{version}", own

    def covers(self, policy: Policy) -> bool:
        return self.own or covered(policy, "llama-guard", LLAMA_GUARD)

    def ask(self, case: Case) -> list[Question]:
        extra: dict[str, object] = {"logprobs": True, "top_logprobs": 5}
        if self.own:
            extra["chat_template_kwargs"] = {"categories": {
                f"S{i}": text_of(p, ids=False) for i, p in enumerate(case.policies, 1)}}
        return [Question(case.policies.policies, turns(case), limit=48, extra=extra)]

    def read(self, question: Question, reply: Reply, case: Case) -> Belief:
        m = _ANSWER.fullmatch(reply.text)
        if not m:
            raise Unreadable("neither `safe` nor `unsafe` and category codes")
        codes = [c.strip() for c in m[1].split(",")] if m[1] else []
        score = odds(reply.first, "unsafe", "safe", 0.98 if codes else 0.02)
        if not codes:
            return Belief(min(score, 0.49), ())
        if self.own:
            places = [int(c[1:]) - 1 for c in codes]
            if any(i < 0 or i >= len(question.policies) for i in places):
                raise Unreadable("a category that was not given")
            found = first_rules([question.policies[i] for i in places])
        else:
            if any(c not in LLAMA_GUARD for c in codes):
                raise Unreadable("a category that the card does not know")
            found = rules(question.policies, "llama-guard", codes, LLAMA_GUARD)
        return Belief(max(score, 0.5), found, ", ".join(codes))
