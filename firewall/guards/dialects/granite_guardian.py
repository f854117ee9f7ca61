"""Granite Guardian 3.3 and 4.1 (IBM; model card ibm-granite/granite-guardian-3.3-8b): bring your own criteria.

One policy a call: its text is the `custom_criteria` of the server's chat template, `<score> yes </score>` means that
the criterion is met, that is, violated. With `think=True` the trace in `<think>` comes first.
"""

from __future__ import annotations

import re

from firewall.case import Case
from firewall.guards.dialects.dialect import Belief, Question, text_of, turns
from firewall.guards.engine import Reply
from firewall.policy import Policy
from firewall.verdict import Depth, Unreadable

_ANSWER = re.compile(r"\s*(?:<think>(.*?)</think>\s*)?<score>\s*(yes|no)\s*</score>\s*", re.S)


class GraniteGuardian:
    name = "granite-guardian"

    def __init__(self, think: bool = False) -> None:
        self.think = think
        self.depth: Depth = "reason" if think else "snap"

    def covers(self, policy: Policy) -> bool:
        return True

    def ask(self, case: Case) -> list[Question]:
        whose = "assistant's last message" if case.direction == "output" else "user's last message"
        return [Question((p,), turns(case), limit=2048 if self.think else 20, extra={"chat_template_kwargs": {
            "guardian_config": {"custom_criteria": f"The {whose} violates this policy. {text_of(p, ids=False)}"},
            "think": self.think}}) for p in case.policies]

    def read(self, question: Question, reply: Reply, case: Case) -> Belief:
        m = _ANSWER.fullmatch(reply.text)
        if not m or (self.think and not (m[1] or "").strip()):
            raise Unreadable("not one score of the model card")
        [policy] = question.policies
        bad = m[2] == "yes"
        return Belief(0.98 if bad else 0.02, (policy.rules[0].id,) if bad else (), (m[1] or "").strip())
