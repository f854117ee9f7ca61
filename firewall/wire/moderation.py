"""`POST /v1/moderations`, answered by the guard itself: a request -> inputs to judge, decisions -> OpenAI's results.

Each string of `input` is judged on its own and has a result; a list of parts is one input. OpenAI's required
categories are filled from the policies that mean the same (`CATEGORIES`); every active policy is a category of its own
besides. `flagged` says that a rule was violated, whatever the policy's action.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from firewall.case import Message
from firewall.errors import FirewallError
from firewall.policy import PolicySet
from firewall.verdict import Decision, Verdict
from firewall.wire.leaves import DATA, TOKEN, Inert, passes, trie
from firewall.wire.openai_chat import envelope, kind
from firewall.wire.request import Words, inspectable, text
from firewall.wire.wire import Asked, malformed

NAMES = ("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
         "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic")
CATEGORIES: dict[str, tuple[str, ...]] = {
    "harassment": ("harassment",), "hate": ("hate",), "self-harm": ("self-harm",), "sexual-content": ("sexual",),
    "minors": ("sexual/minors",), "violence": ("violence",), "animal-abuse": ("violence",),
    "weapons": ("illicit", "illicit/violent"), "drugs": ("illicit",), "nonviolent-crime": ("illicit",),
    "trafficking": ("illicit",), "malware": ("illicit",), "public-safety": ("illicit", "illicit/violent"),
}
INERT: Inert = {"model": TOKEN, "input[].image_url.url": DATA}
_PLACE = trie(INERT)


class Moderation:
    """The request's half of a wire, and the results."""

    name = "openai-moderations"
    inert = INERT

    def ask(self, document: dict[str, Any]) -> Asked:
        """Raises FirewallError where `input` is not a string, strings, or parts."""
        inspectable(document)
        model = text(document, "model")
        found = Words()
        value = document.get("input")
        if type(value) is str:
            found.messages.append(Message("user", value, "input"))
        elif type(value) is list and value and all(type(part) is str for part in value):
            found.messages += [Message("user", part, f"input.{i}") for i, part in enumerate(value)]
        elif type(value) is list and value and all(type(part) is dict for part in value):
            found.each("user", value, _PLACE["input"], "input")
        else:
            raise malformed("input")
        found.rest(document, frozenset(("input", "model")), _PLACE)
        if not passes(TOKEN, model):
            found.each("request", model, TOKEN, "model")
        return Asked(model, False, tuple(found.messages), document, tuple(found.opaque))

    def inputs(self, asked: Asked) -> list[tuple[Message, ...]]:
        """What is judged together: one group a result. Words outside `input` go with every group."""
        value = asked.document["input"]
        own: list[Message] = []
        rest: list[Message] = []
        for message in asked.messages:
            (own if message.where == "input" or message.where.startswith("input.") else rest).append(message)
        if type(value) is list and type(value[0]) is str:
            return [(message, *rest) for message in own]
        return [(*own, *rest)]

    def answer(self, results: Sequence[tuple[Decision, Sequence[Verdict]]], policies: PolicySet, request_id: str,
               model: str = "") -> bytes:
        """The body of the 200: a result for each group of `inputs`, in order."""
        return orjson.dumps({"id": "modr-" + request_id.removeprefix("req_"), "model": model or "firewall",
                             "results": [result(decision, verdicts, policies) for decision, verdicts in results]})

    def error(self, error: FirewallError, request_id: str) -> bytes:
        return envelope(error.public, kind(error), error.param, error.code)


def result(decision: Decision, verdicts: Iterable[Verdict], policies: PolicySet) -> dict[str, Any]:
    """One `Moderation` of OpenAI's response. Scores are the guard's, in [0, 1]."""
    hit = dict.fromkeys((*NAMES, *(policy.id for policy in policies)), False)
    score = dict.fromkeys(hit, 0.0)
    for rule in decision.rules:
        for name in _names(rule):
            hit[name] = True
    for verdict in verdicts:
        for finding in verdict.findings:
            for name in _names(finding.rule):
                score[name] = max(score.get(name, 0.0), round(min(max(finding.score, 0.0), 1.0), 6))
    return {"flagged": bool(decision.rules), "categories": hit, "category_scores": score,
            "category_applied_input_types": {name: ["text"] for name in hit}}


def _names(rule: str) -> tuple[str, ...]:
    policy = rule.partition("/")[0]
    return (*CATEGORIES.get(policy, ()), policy)
