"""`read` accepts one form and nothing else; what it refuses is a failure in service."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.verdict import Answer, Unreadable, read

IDS = ("weapons/1", "weapons/2", "fraud/1")


@pytest.mark.parametrize(("text", "rules"), [
    ("<think>\nfine\n</think>\n\n\\boxed{safe}", ()),
    ("<think>bad</think>\\boxed{unsafe: weapons/2, fraud/1}", ("fraud/1", "weapons/2")),
    ("  <think>bad</think>\n\\boxed{unsafe:weapons/1}\n", ("weapons/1",)),
])
def test_the_form(text: str, rules: tuple[str, ...]) -> None:
    answer = read(text, IDS)
    assert (answer.safe, answer.rules) == (not rules, rules)
    assert answer.think


@pytest.mark.parametrize("text", [
    "", "safe", "I think it is safe.", "\\boxed{safe}", ":", "Thought process:",
    "<think></think>\\boxed{safe}", "<think> \n</think>\\boxed{safe}",
    "<think>x\\boxed{safe}", "x<think>y</think>\\boxed{safe}", "<think>x</think>\\boxed{safe} ok",
    "<think>x</think> so \\boxed{safe}", "<think>x</think>\\boxed{safe}\\boxed{safe}",
    "<think>\\boxed{unsafe: fraud/1}</think>\\boxed{safe}", "<think>a</think><think>b</think>\\boxed{safe}",
    "<think>x</think>\\boxed{}", "<think>x</think>\\boxed{Safe}", "<think>x</think>\\boxed{unsafe}",
    "<think>x</think>\\boxed{unsafe:}", "<think>x</think>\\boxed{unsafe: other/1}", "<think>x</think>\\boxed{safe}}",
    "<think>x</think>\\boxed{unsafe: fraud/1, fraud/1}", "<think>x</think>\\boxed{unsafe: fraud/1,}",
    "<think>x</think>\\boxed{safe, unsafe: fraud/1}", '{"verdict":"allow"}', "<think>x</think>\\boxed{safe",
])
def test_anything_else_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text, IDS)


def test_only_snap_may_skip_the_thought() -> None:
    assert read("<think>\n\n</think>\n\n\\boxed{safe}", IDS, "snap") == Answer(True, (), "")


@given(st.text(st.characters(exclude_characters="<\\"), min_size=1).filter(str.strip),
       st.sets(st.sampled_from(IDS)))
def test_what_is_written_in_the_form_is_read(think: str, rules: set[str]) -> None:
    box = "unsafe: " + ", ".join(sorted(rules)) if rules else "safe"
    assert read(f"<think>{think}</think>\\boxed{{{box}}}", IDS).rules == tuple(sorted(rules))


@given(st.text())
def test_noise_never_reads_as_safe_by_accident(text: str) -> None:
    try:
        answer = read(text, IDS)
    except Unreadable:
        return
    assert answer.think and "\\boxed{" in text
