r"""Words that escapes spell: their places, and when they have some."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.case import Case, Message, Said
from firewall.guards.detectors import DETECTORS
from firewall.guards.escaped import Undone
from firewall.guards.patterns import Patterns
from firewall.verdict import Verdict, decide

from .cases import detecting

POLICIES = detecting("email", "aws-key", "phrase:project zebra")
GUARD = Patterns()
EMAIL = r'{"to":"bob\u0040example.com"}'


def judged(*said: tuple[str, str], whole: bool = False, guard: Patterns = GUARD, boundary: str = "") -> Verdict:
    verdict = guard.known(Case("output", POLICIES, (), tuple(Said(*run) for run in said), whole, boundary=boundary))
    assert verdict is not None
    return verdict


def cut(verdict: Verdict, texts: dict[str, str]) -> set[tuple[str, str]]:
    assert decide([verdict], POLICIES).action == "redact"
    return {(s.channel, texts[s.channel][s.start:s.end]) for f in verdict.findings for s in f.spans}


CHARS = st.sampled_from(["a", "\n", '"', "/", "\u00e9", "\U0001f600", "u00"])


@given(st.lists(st.tuples(CHARS, st.integers(0, 3)), max_size=12))
def test_every_character_knows_what_spells_it(units: list[tuple[str, int]]) -> None:
    parts = []
    for char, how in units:
        escaped = "".join(f"\\u{unit:04x}" for unit in memoryview(char.encode("utf-16-le")).cast("H"))
        short = {"\n": r"\n", '"': r'\"', "/": r"\/"}.get(char, escaped)
        parts.append((char, [char, escaped, short, escaped.replace("\\", "\\\\")][how]))
    undone, at = Undone("".join(spelt for _, spelt in parts)), 0
    assert undone.text == "".join(char for char, _ in parts)
    done = 0
    for char, spelt in parts:
        start, end = undone.place(at, at + len(char))
        assert end == done + len(spelt) and start - done == (spelt[:2] == "\\\\")
        at, done = at + len(char), done + len(spelt)


@pytest.mark.parametrize("whole", [True, False])
def test_a_view_has_places_where_the_words_are_shown_decoded(whole: bool) -> None:
    texts = {"tool/0/arguments": EMAIL, "tool/0/arguments/decoded": "to\nbob@example.com\n"}
    assert cut(judged(*texts.items(), whole=whole), texts) == {
        ("tool/0/arguments", r"bob\u0040example.com"), ("tool/0/arguments/decoded", "bob@example.com")}
    request = Case("input", POLICIES, (Message("assistant", EMAIL, "a.arguments"),
                                       Message("assistant", "to\nbob@example.com", "a.arguments#decoded")))
    verdict = GUARD.known(request)
    assert verdict is not None and decide([verdict], POLICIES).action == "redact"


def test_without_them_it_blocks_and_while_a_call_goes_on_it_waits() -> None:
    for channel, whole in (("tool/0/arguments", True), ("text", True), ("text", False)):
        assert decide([judged((channel, EMAIL), whole=whole)], POLICIES).action == "block"
    guard = Patterns()
    for end in range(EMAIL.index("c") + 2, len(EMAIL)):
        verdict = judged(("tool/0/arguments", EMAIL[:end]), guard=guard, boundary="b")
        assert not verdict.findings and dict(verdict.unsure)["tool/0/arguments"] <= EMAIL.index("u0")
    grown = EMAIL + " and more" * 99
    assert dict(judged(("tool/0/arguments", grown), guard=guard, boundary="b").unsure) == {
        "tool/0/arguments": EMAIL.index("bob")}
    assert decide([judged(("tool/0/arguments", grown), whole=True, guard=guard, boundary="b")], POLICIES).action == "block"


def test_what_only_a_view_undoes_is_cut_out_as_well() -> None:
    """An escape that is none of JSON's, beside an address that both read; and far back in a call that came in pieces."""
    text = r"{'a': '\x62ob\x40example.org', 'b': 'eve\u0040example.com'}"
    texts = {"arguments": text, "arguments/decoded": "{'a': 'x62obx40example.org', 'b': 'eve@example.com'}"}
    assert cut(judged(*texts.items()), texts) >= {("arguments", r"\x62ob\x40example.org"),
                                                  ("arguments", r"eve\u0040example.com")}
    guard, call = Patterns(), "/arguments"
    spelt = "".join(f"\\u{ord(char):04x}" for char in "x" * 60 + "@example.com")
    whole = f'{{"a":"{spelt}","b":"{"w " * 400}"}}'
    for end in range(1, len(whole), 7):
        judged((call, whole[:end]), guard=guard, boundary="c")
    texts = {call: whole, call + "/decoded": "a\n" + "x" * 60 + "@example.com\nb\n" + "w " * 400}
    assert (call, spelt) in cut(judged(*texts.items(), guard=guard, boundary="c"), texts)


def test_another_disguise_of_the_same_rule_still_blocks() -> None:
    text = r'{"a":"bob\u0040example.com","b":"cHJvamVjdCB6ZWJyYQ=="}'
    said = (("arguments", text), ("arguments/decoded", "a\nbob@example.com\nb\ncHJvamVjdCB6ZWJyYQ=="))
    assert decide([judged(*said)], POLICIES).action == "block"


UNITS = [r"bob\u0040example.com", r"a\/b", r"\"api_key\": \"a8f5f167f44f4964e6c9\"", r"\n", r"\u00e9", "4111 ", r"\u0020",
         "1111 1111 1111", "word " * 60, r"\u0041KIAIOSFODNN7EXAMPLE", "\u043e"]


@given(st.lists(st.sampled_from(UNITS), max_size=9))
def test_the_short_way_says_the_same(units: list[str]) -> None:
    policies = detecting(*DETECTORS)
    text = "".join(units)
    case = Case("output", policies, (), (Said("arguments", text), Said("arguments/decoded", "none")))
    careful = Patterns(quick=False)
    careful._kept = GUARD._kept
    quick, slow = GUARD.known(case), careful.known(case)
    assert quick is not None and slow is not None and quick.findings == slow.findings


def test_many_escapes_cost_their_length() -> None:
    rng, took = random.Random(1), []
    for size in (20_000, 80_000):
        text = "".join(f"\\u{rng.randrange(97, 123):04x}" for _ in range(size // 6))
        began = time.perf_counter()
        undone = Undone(text)
        for at in range(0, len(undone.text), 7):
            undone.place(at, at + 1)
        took.append(time.perf_counter() - began)
    assert took[1] < 12 * took[0] + 0.05
