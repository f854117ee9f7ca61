"""Granite Guardian 3.3 and 4.1 (IBM): bring your own criteria, one policy a call.

`<score> yes </score>` means that the criterion is met, that is, violated; a trace in `<think>` may come first, empty
unless thinking was asked for. The last turn of the conversation is on trial, whoever speaks it: both versions' fixed
scoring line says "the last assistant's text", so the criterion says whose message is meant.

3.3 takes the policy as `guardian_config.custom_criteria` of the server's chat template, and `think` beside it (both in
`chat_template_kwargs`, which the server has to pass on). 4.1 has no such arguments: it takes one more user turn, the
`<guardian>` block that is written here. Asked in the other version's way, either model would answer about something
else; take the dialect of the model that is served.

Verified: 3.3 with ibm-granite/granite-guardian, cookbooks/granite-guardian-3.3/detailed_guide_no_think.ipynb (section
"Bring your own criteria", a rendered prompt, answers with an empty trace); 4.1 byte for byte with
evaluation/models/granite_guardian_4_1.py and cookbooks/granite-guardian-4.1/quickstart.ipynb there. 3.0 to 3.2 answer
`Yes` or `No` in another format and are not spoken. No checkpoint was run.
"""

from __future__ import annotations

import re

from firewall.case import Case
from firewall.guards.dialects.dialect import NO, YES, Belief, Question, text_of, turns
from firewall.guards.engine import Reply
from firewall.policy import Direction, Policy
from firewall.verdict import Depth, Unreadable

THINK = ("<think>As a judge agent, carefully analyze whether the provided text meets the given judging criteria. Use all"
         " available information, including conversations, documents, and tools. Reason through the evidence step by"
         " step before providing your score. Wrap your reasoning in <think></think> tags, then provide your score in"
         " <score></score> tags.")
NO_THINK = ("<no-think>As a judge agent, assess whether the provided text meets the given judging criteria using all"
            " available information, including conversations, documents, and tools. Provide your score immediately"
            " without explanation. Output empty <think>\n</think> tags followed by your score in <score></score> tags.")
SCHEMA = "If the last assistant's text meets the criteria, return 'yes'; otherwise, return 'no'."
_ANSWER = re.compile(r"\s*(?:<think>(.*?)</think>\s*)?<score>\s*(yes|no)\s*</score>\s*", re.S)


class GraniteGuardian:
    def __init__(self, think: bool = False, block: bool = False) -> None:
        """`block`: the version takes the criterion as a turn of the conversation (4.1)."""
        self.think, self.block = think, block
        self.name = "granite-guardian-4" if block else "granite-guardian"
        self.depth: Depth = "reason" if think else "snap"

    def covers(self, policy: Policy, direction: Direction) -> bool:
        return True

    def ask(self, case: Case) -> list[Question]:
        whose = "assistant's last message" if case.direction == "output" else "user's last message"
        limit = 2048 if self.think else 48          # the tags are several tokens each, and the trace may be there, empty
        talk, out = turns(case), []
        for p in case.policies:
            criterion = f"The {whose} violates this policy. {text_of(p)}"
            if self.block:
                out.append(Question((p,), (*talk, ("user", block(criterion, self.think))), limit=limit))
            else:
                out.append(Question((p,), talk, limit=limit, extra={"chat_template_kwargs": {
                    "guardian_config": {"custom_criteria": criterion}, "think": self.think}}))
        return out

    def read(self, question: Question, reply: Reply, case: Case) -> Belief:
        m = _ANSWER.fullmatch(reply.text)
        if not m or (self.think and not (m[1] or "").strip()):
            raise Unreadable("not one score of the model card")
        [policy] = question.policies
        bad = m[2] == "yes"
        return Belief(YES if bad else NO, (policy.rules[0].id,) if bad else (), (m[1] or "").strip())


def block(criterion: str, think: bool) -> str:
    """The last user turn that Granite Guardian 4.1 is asked with."""
    return f"<guardian>{THINK if think else NO_THINK}\n\n### Criteria: {criterion}\n\n### Scoring Schema: {SCHEMA}"
