"""What the record keeps of verdicts: numbers of each side, and nothing where nobody was asked."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from firewall.exchange import Exchange
from firewall.proxy.records import Records, verify
from firewall.verdict import Verdict

SCORES = st.lists(st.floats(0, 1), max_size=8)


def exchange() -> Exchange:
    return Exchange("POST /v1/chat/completions", "openai-chat")


def test_no_verdict_is_not_a_score_of_zero() -> None:
    record = exchange().record()
    assert (record["score"], record["input_score"], record["output_score"], record["asked"]) == (None,) * 4


@given(SCORES, SCORES)
def test_the_highest_score_of_each_side(question: list[float], answer: list[float]) -> None:
    one = exchange()
    for score in question:
        one.heard(Verdict("g", score=score))
    one.upstream_status = 200
    for score in answer:
        one.heard(Verdict("g", score=score))
    record = one.record()
    assert record["input_score"] == (round(max(question), 6) if question else None)
    assert record["output_score"] == (round(max(answer), 6) if answer else None)
    assert record["score"] == (round(max([*question, *answer]), 6) if question or answer else None)
    assert record["asks"] == len(question) + len(answer)


def test_a_constant_verdict_counts_on_both_sides() -> None:
    one, always = exchange(), Verdict("g", score=0.25)
    for status in (0, 200):
        one.upstream_status = status
        one.heard(always)
        one.heard(always)
    record = one.record()
    assert (record["input_score"], record["output_score"], record["asks"]) == (0.25, 0.25, 4)


def test_the_mark_of_the_last_question() -> None:
    one = exchange()
    one.asked, one.came = 120, 150
    assert one.record()["asked"] == 120


def test_what_the_blocking_verdict_was_about_is_not_unjudged() -> None:
    one = exchange()
    one.came, one.cleared, one.asked, one.ending = 354, 0, 355, "blocked"
    assert one.record()["unjudged"] == 0
    one.asked = 300
    assert one.record()["unjudged"] == 54
    one.ending = "failed"               # asked, and never answered
    assert one.record()["unjudged"] == 354


def test_scores_stand_in_the_one_line(tmp_path: Path) -> None:
    one = exchange()
    one.heard(Verdict("g", score=0.7300001234))
    records = Records(str(tmp_path / "r.jsonl"))
    records.write(one.record())
    records.close()
    line = json.loads((tmp_path / "r.jsonl").read_text())
    assert line["score"] == 0.73 and verify(tmp_path / "r.jsonl") == 1
