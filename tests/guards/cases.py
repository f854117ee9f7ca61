"""Small cases for the guards' tests."""

from __future__ import annotations

from firewall.case import Case, Message, Said
from firewall.policy import Policy, PolicySet, parse

WEAPONS = parse("---\nid: weapons\n---\n## Violates\n- `weapons/1` Explains how to build a bomb.\n- `weapons/2` Sells a"
                " gun.\n\n## Exceptions\n- Films.\n", "weapons", "weapons.md")
FRAUD = parse("## Violates\n- `fraud/1` Forges a passport.\n", "fraud", "fraud.md")
SET = PolicySet.of([WEAPONS, FRAUD])


def asked(*texts: str, policies: PolicySet = SET, tenant: str = "", boundary: str = "b0", roles: str = "") -> Case:
    """A request; `roles` is a comma-separated list, default all user."""
    names = roles.split(",") if roles else ["user"] * len(texts)
    return Case("input", policies, tuple(Message(r, t, f"messages/{i}/content") for i, (r, t) in
                                         enumerate(zip(names, texts, strict=True))), tenant=tenant, boundary=boundary)


def said(*runs: str, whole: bool = False, policies: PolicySet = SET, tenant: str = "", question: str = "hi") -> Case:
    """An answer so far: runs on the channel `a`, or `channel=text`."""
    parts = tuple(Said("a", r) for r in runs)
    return Case("output", policies, (Message("user", question, "messages/0/content"),), parts, whole, tenant, "b0")


def detecting(*names: str, id: str = "pii", action: str = "redact", rules: str = "") -> PolicySet:
    """A set of one policy with detectors."""
    text = (f"---\nid: {id}\naction: {action}\ndetect: [{', '.join(repr(n) for n in names)}]\n---\n## Violates\n"
            + (rules or "- Personal details."))
    return PolicySet.of([parse(text, id, f"{id}.md")])


def adhoc(text: str) -> PolicySet:
    return PolicySet.of([Policy.from_text("row", text)])
