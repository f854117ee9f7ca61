from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.case import Case
from firewall.errors import GuardDown
from firewall.guards.windows import LEAST, windows

from .cases import asked, said


def text_of(case: Case) -> str:
    return "".join(m.text for m in case.messages) if case.direction == "input" else "".join(s.text for s in case.answer)


def room(n: int):  # type: ignore[no-untyped-def]
    return lambda c: sum(len(m.text) + 10 for m in c.messages) + sum(len(s.text) + 10 for s in c.answer) <= n


def covered(whole: str, parts: list[str]) -> bool:
    """Parts laid over the text from left to right leave no gap."""
    at = 0
    for part in parts:
        start = whole.find(part, 0)
        while start >= 0 and start + len(part) <= at and len(part):
            start = whole.find(part, start + 1)
        if start < 0 or start > at:
            return False
        at = start + len(part)
    return at == len(whole)


@given(st.lists(st.integers(0, 900), min_size=1, max_size=6), st.integers(200, 1500), st.booleans())
def test_every_character_is_in_some_window_and_every_window_fits(sizes: list[int], limit: int, output: bool) -> None:
    numbers = iter(range(10_000))
    texts = ["".join(f"{next(numbers):04d}" for _ in range(n // 4)) for n in sizes]
    case = said(*texts, question="q" * 700) if output else asked(*texts)
    parts = windows(case, room(limit))
    assert all(room(limit)(p) for p in parts)
    assert covered("".join(texts), [text_of(p) for p in parts])
    assert parts[-1].whole == case.whole and all(p.whole for p in parts[:-1])


@pytest.mark.parametrize(("over", "several"), [(-1, False), (0, False), (1, True)])
def test_the_limit_itself(over: int, several: bool) -> None:
    parts = windows(asked("x" * (1000 - 10 + over)), room(1000))
    assert (len(parts) > 1) == several


def test_neighbours_overlap() -> None:
    whole = "".join(f"{i:05d}" for i in range(2000))
    parts = [text_of(p) for p in windows(asked(whole), room(1000))]
    for one, two in zip(parts, parts[1:], strict=False):
        assert two[:LEAST] in one


def test_context_is_shortened_before_what_is_on_trial() -> None:
    [part] = windows(said("answer", question="old " * 500), room(900))
    assert text_of(part) == "answer" and part.messages[0].text.endswith("old ")


def test_no_room_is_an_error_not_an_allow() -> None:
    with pytest.raises(GuardDown) as e:
        windows(asked("x" * 500), lambda c: False)
    assert e.value.code == "guard_too_long"
    with pytest.raises(GuardDown):
        windows(asked("x" * 100_000), room(200), most=10)
