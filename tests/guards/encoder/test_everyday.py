"""Everyday chats and agents' work pass the shipped guard under the default policies: greetings, tool calls, names, code.

Each string of an answer is judged for itself, so that one odd fragment would stop a whole exchange. None of these
exchanges was trained or calibrated on.
"""

from __future__ import annotations

import json
from pathlib import Path

from firewall.case import Case, Message, Said
from firewall.guards.encoder import EncoderGuard
from firewall.policy import load
from firewall.verdict import decide

HERE = Path(__file__)
POLICIES = HERE.parents[3] / "policies"
FEW = 4         # of fifty; the fifth round's weights stopped six


async def test_everyday_exchanges_pass() -> None:
    policies = load(POLICIES).side("output")
    guard = EncoderGuard()
    await guard.start()
    try:
        stopped = []
        for prompt, texts in json.loads(HERE.with_name("everyday.json").read_text("utf-8")):
            answer = tuple(Said(f"choice/0/{n}", text) for n, text in enumerate(texts))
            verdict = await guard.judge(Case("output", policies, (Message("user", prompt, "m"),), answer, True, "t", "b"))
            if decide([verdict], policies).action != "allow":
                stopped.append((prompt, [f.rule for f in verdict.findings]))
    finally:
        await guard.close()
    assert len(stopped) <= FEW, stopped
