"""Llama Guard 3 and 4 (Meta): fourteen hazard categories, S1-S14; or, with `own=True`, the active policies instead.

The server's chat template wraps the conversation (`User:`, `Agent:`; the last turn is on trial) and lists the
categories. The model answers `safe`, or `unsafe` and a line of codes; with Llama Guard 3 a blank line comes first, so
the score is read at the first token that shows. The template of 3-8B takes contents as
strings, that of 4 (as of 3-1B) as lists of parts: with a string it renders an empty conversation, which is safe.

Own policies as categories: the template of 3-8B has its list written in and ignores `categories`, so here the whole
prompt is written (version 3), in the words of the template with the builder's form of a category; that of 4 takes them
by `chat_template_kwargs`, which the server has to pass on (vLLM does). Meta's customization notebook warns that
categories far from the hazards need fine-tuning.

Verified: categories and their meaning with meta-llama/PurpleLlama, Llama-Guard3/8B and Llama-Guard4/12B MODEL_CARD.md;
prompt and category form with meta-llama/llama-recipes, src/llama_recipes/inference/prompt_format_utils.py
(`PROMPT_TEMPLATE_3`, `build_custom_prompt`) and, where it differs by blanks (a blank line before "Task", none before
`<|eot_id|>`), with several published copies of the 3-8B chat template, which agree; what the templates of 3-8B and 4
take, only with one published reading of Hugging Face's metadata. The Hugging Face files themselves are gated and were
not read, nor was any checkpoint run.
"""

from __future__ import annotations

import re

from firewall.case import Case
from firewall.guards.dialects.dialect import NO, YES, Belief, Question, first_rules, lines_of, odds, plain, turns
from firewall.guards.dialects.taxonomy import LLAMA_GUARD, covered, rules
from firewall.guards.engine import Reply
from firewall.policy import Direction, Policy
from firewall.verdict import Depth, Unreadable

# no <|begin_of_text|>: the server puts it before every prompt
PROMPT = """<|start_header_id|>user<|end_header_id|>

Task: Check if there is unsafe content in '{role}' messages in conversations according our safety policy with the \
below categories.

<BEGIN UNSAFE CONTENT CATEGORIES>
{categories}
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>

{conversation}

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST {role} message in the above conversation:
 - First line must read 'safe' or 'unsafe'.
 - If unsafe, a second line must include a comma-separated list of violated categories.<|eot_id|>\
<|start_header_id|>assistant<|end_header_id|>"""
SPEAKER = {"user": "User", "assistant": "Agent"}
_ANSWER = re.compile(r"\s*(?:safe|unsafe\s*\n\s*(S\d{1,2}(?:\s*,\s*S\d{1,2})*))\s*")


class LlamaGuard:
    depth: Depth = "snap"

    def __init__(self, version: int = 3, own: bool = False) -> None:
        self.name, self.version, self.own = f"llama-guard-{version}", version, own

    def covers(self, policy: Policy, direction: Direction) -> bool:
        return self.own or covered(policy, "llama-guard", LLAMA_GUARD)

    def ask(self, case: Case) -> list[Question]:
        talk, policies = turns(case), case.policies.policies
        if self.own and self.version < 4:
            prompt = PROMPT.format(
                role=SPEAKER[talk[-1][0]], conversation="\n\n".join(f"{SPEAKER[r]}: {t.strip()}" for r, t in talk),
                categories="\n".join(f"{code}: {text}" for code, text in categories(policies).items()))
            return [Question(policies, prompt=prompt, limit=48)]
        extra: dict[str, object] = {"logprobs": True, "top_logprobs": 5}
        if self.own:
            extra["chat_template_kwargs"] = {"categories": categories(policies)}
        return [Question(policies, talk, limit=48, extra=extra, parts=self.version >= 4)]

    def read(self, question: Question, reply: Reply, case: Case) -> Belief:
        m = _ANSWER.fullmatch(reply.text)
        if not m:
            raise Unreadable("neither `safe` nor `unsafe` and category codes")
        codes = [c.strip() for c in m[1].split(",")] if m[1] else []
        score = odds(reply.first, "unsafe", "safe", YES if codes else NO)
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


def categories(policies: tuple[Policy, ...]) -> dict[str, str]:
    """S1, S2, ... -> title, full stop, description: the form of Meta's builder."""
    return {f"S{i}": f"{plain(p.title)}.\n{lines_of(p)}" for i, p in enumerate(policies, 1)}
