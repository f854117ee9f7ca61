"""The short way gives the same verdicts as the careful one: on anything, in one piece, in messages, growing."""

from __future__ import annotations

import base64
import codecs
import re
import time
import unicodedata
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firewall.case import Case
from firewall.guards.cleaned import LOOKALIKE, _read
from firewall.guards.compiled import Compiled
from firewall.guards.detectors import DETECTORS
from firewall.guards.patterns import Patterns
from firewall.guards.quiet import BACK, CONTEXT, Quiet, _short, word_start
from firewall.guards.views import REACH
from firewall.policy import PolicySet
from firewall.verdict import Verdict

from .cases import asked, detecting, said
from .test_patterns import EXAMPLES

SHIPPED = ("aws-key", "github-token", "slack-token", "private-key", "jwt", "generic-api-key")
SETS = [detecting(*SHIPPED), detecting(*DETECTORS), detecting("aws-key", "phrase:project zebra"),
        detecting("phrase:zebra"), detecting("phone", "credit-card"), detecting("slack-token", "phrase:größe")]
QUICK, CAREFUL = Patterns(), Patterns(quick=False)
CAREFUL._kept = QUICK._kept                                             # compiled once
BRIEF, FULL = Compiled(SETS[0]), Compiled(SETS[0])
FULL.quiet.least = 0


def disguises(text: str) -> list[str]:
    data = text.encode()
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    return [text, text[::-1], codecs.encode(text, "rot13"), data.hex(), data.hex(" "), data.hex(":"),
            base64.b64encode(data).decode(), base64.urlsafe_b64encode(b"see " + data).decode().rstrip("="),
            base64.b64encode(base64.b64encode(data)).decode(), base64.b64encode(text.encode("utf-16-le")).decode(),
            base64.b64encode(wide.encode()).decode(), base64.b64encode(data.hex().encode()).decode(),
            "".join(f"%{b:02x}" for b in data), text.replace("A", "%41").replace("x", "%78").replace("e", "%65"),
            "".join(f"&#{ord(c)};" for c in text), text[:2] + f"&#x{ord(text[2]):x};" + text[3:],
            "".join(f"\\u{ord(c):04x}" for c in text), text[0] + f"\\x{ord(text[1]):02x}" + text[2:],
            wide, text[:3] + "\u200b" + text[3:], "\u202e" + text[::-1] + "\u202c", " ".join(text), "*".join(text),
            "".join(chr(0xE0000 + ord(c)) for c in text if " " <= c <= "~"), text.replace("o", "0").replace("e", "3")]


SECRETS = [t for texts in EXAMPLES.values() for t in texts] + ["project zebra", "PROJECT\nzebra", "größe",
                                                              'api_key = "a8f5f167f44f4964e6c998dee827110c"']
HIDDEN = [d for s in SECRETS for d in disguises(s)]
PLAIN = ["hello ", "the words go on ", "authentication", " understanding", "well-established ", ". ", ", ", "\n",
         "\t", " a ", " I ", "x", "0", "12", " 1234567 ", "deadbeef", " cafe 10 20 30 40 50 60 70 80 90 ", "(", ")",
         "-", "=", "==", "_", "/", "+", "@", "%", "%4", "&", "&#", ";", "\\", "\\u00", "é", "世界", "\u2019", "\u200b",
         "ﬁ", "😀", "api", "key", " access ", "token", ": ", " = ", "AKIA", "eyJ", "xox", "gh", "-----", "BEGIN ",
         "c3RhcnQ", "QUtJQQ", "x" * 130, "word " * 50, "QUJD" * 40, "防火墙" * 50, "7" * 40, "—", " – ", "‑",
         "compréhension", "…", "Комитет", "٣", "ß", "ｆ", "（", "❤\ufe0f", '{"user_id": 17, ',
         " /srv/www/static/image.png ", "Z2l0aHVi IGFuZA", "project", "zebra", "zeb", "arbez", "mroen "]
PIECE = st.one_of(st.sampled_from(PLAIN), st.sampled_from(HIDDEN),
                  st.tuples(st.sampled_from(HIDDEN), st.integers(0, 80), st.integers(0, 80)).map(
                      lambda t: t[0][t[1]:t[2]]))
TEXT = st.lists(PIECE, max_size=10).map("".join)
QUIET = st.lists(st.sampled_from(PLAIN), max_size=10).map("".join)
POLICIES = st.sampled_from(SETS)


def same(case: Case, quick: Patterns = QUICK, careful: Patterns = CAREFUL) -> Verdict:
    one, other = quick.known(case), careful.known(case)
    assert one is not None and other is not None
    assert (one.findings, one.unsure, one.score) == (other.findings, other.unsure, other.score)
    assert (one.guard, one.path, one.depth) == (other.guard, other.path, other.depth)
    return one


@given(TEXT | QUIET, POLICIES)
@settings(max_examples=150)
def test_a_whole_text(text: str, policies: PolicySet) -> None:
    same(asked(text, policies=policies))
    same(said(text, whole=True, policies=policies)._replace(boundary=""))


@given(st.lists(TEXT | QUIET, max_size=4), st.data(), POLICIES)
@settings(max_examples=100)
def test_messages(texts: list[str], data: st.DataObject, policies: PolicySet) -> None:
    roles = data.draw(st.lists(st.sampled_from(["user", "assistant"]), min_size=len(texts), max_size=len(texts)))
    same(asked(*texts, policies=policies, roles=",".join(roles)))


@given(st.sampled_from(HIDDEN), st.lists(st.integers(0, 90), max_size=3), st.sampled_from(["", " ", "\n", "é "]),
       POLICIES)
@settings(max_examples=120)
def test_a_secret_cut_over_messages(text: str, cuts: list[int], gap: str, policies: PolicySet) -> None:
    places = [0, *sorted(cuts), len(text)]
    parts = [text[a:b] for a, b in zip(places, places[1:], strict=False)]
    same(asked(*("so " + p if i == 0 else gap + p for i, p in enumerate(parts)), policies=policies))


@given(TEXT | QUIET, st.lists(st.integers(1, 90), min_size=1, max_size=60), POLICIES)
@settings(max_examples=150)
def test_a_growing_answer(text: str, steps: list[int], policies: PolicySet) -> None:
    quick, careful = Patterns(), Patterns(quick=False)
    quick._kept = careful._kept = QUICK._kept
    for end in accumulate(steps):
        same(said(text[:end], policies=policies), quick, careful)
        if end >= len(text):
            break
    same(said(text[:end], whole=True, policies=policies), quick, careful)
    assert not quick._streams and not careful._streams


@given(st.sampled_from(HIDDEN), QUIET, QUIET, st.integers(1, 9), POLICIES)
@settings(max_examples=30)
def test_a_secret_written_slowly(secret: str, before: str, after: str, step: int, policies: PolicySet) -> None:
    quick, careful = Patterns(), Patterns(quick=False)
    quick._kept = careful._kept = QUICK._kept
    text = f"{before} {secret} {after}"
    for end in range(len(before), len(text), step):
        same(said(text[:end], policies=policies), quick, careful)


@given(st.lists(st.tuples(st.sampled_from("ab"), PIECE), max_size=14), POLICIES)
@settings(max_examples=50)
def test_channels_that_grow_by_turns(runs: list[tuple[str, str]], policies: PolicySet) -> None:
    from firewall.case import Said
    quick, careful = Patterns(), Patterns(quick=False)
    quick._kept = careful._kept = QUICK._kept
    for k in range(1, len(runs) + 1):
        case = said(policies=policies, whole=k == len(runs))
        same(case._replace(answer=tuple(Said(c, t) for c, t in runs[:k])), quick, careful)


@given(TEXT | st.sampled_from(HIDDEN))
@settings(max_examples=150)
def test_what_is_too_short_to_hold_anything_may_be_left_out(text: str) -> None:
    assert 0 < BRIEF.quiet.least and FULL.quiet.least == 0
    assert FULL.hidden(text) <= BRIEF.hidden(text)      # (what is left out leaves room for other views)


@pytest.mark.parametrize("odd", ["—", "é", "…", "ﬁ", "\u200b", "Я", "❤\ufe0f"])
@pytest.mark.parametrize("gap", [0, 3, 60, 200])
def test_an_odd_character_is_read_wherever_the_last_one_was(odd: str, gap: int) -> None:
    policies = SETS[0]
    for secret in ("AKIAIOSFODNN7EXAMPLÉ", "ＡKIAIOSFODNN7EXAMPLE", "AKIAIOSF\u200bODNN7EXAMPLE",
                   "QUtJQUlPU0ZPRE5ON0VYQU1QTＥU="):
        quick, careful = Patterns(), Patterns(quick=False)
        quick._kept = careful._kept = QUICK._kept
        text = f"so {odd} it " + "goes on " * gap + secret + " and on"
        verdicts = [same(said(text[:end], policies=policies), quick, careful) for end in range(1, len(text) + 3, 4)]
        assert verdicts[-1].findings


def test_odd_characters_of_one_place_are_read_on_the_short_way() -> None:
    quiet = Compiled(SETS[0]).quiet
    prose = ("Le comité — réuni à nouveau jeudi – a discuté de la manière dont l’authentification doit être rebâtie. "
             "Комитет снова собрался. 防火墙，再次开会。") * 4
    trace = None
    for end in range(0, len(prose), 4):
        trace = quiet.grown(prose[:end], trace, 0)
        assert trace is not None
    assert trace is not None and trace.twin is not None and not trace.wide


@given(st.text(st.sampled_from("ab -/é世\n"), max_size=40), st.integers(0, 60), st.integers(0, 6000))
def test_a_look_begins_at_a_word_not_far_back(unit: str, times: int, held: int) -> None:
    text = (unit or "x") * times
    held = min(held, len(text))
    start = word_start(text, held)
    assert start == 0 or held - BACK - REACH <= start <= held - BACK
    within = text[max(0, held - BACK - REACH):max(0, held - BACK)]
    if start and re.search("[ \n]", within):
        assert text[start - 1] in " \n"
    elif start and re.search("[é世]", within):
        assert text[start - 1] in "é世"


@pytest.mark.parametrize("unit", ["防火墙，", "abcdefghij", "x,y;", "QUJD"])
def test_text_without_blanks_is_not_read_from_its_start_at_every_look(unit: str) -> None:
    guard, text = Patterns(), unit * (4000 // len(unit))
    guard._kept = QUICK._kept
    said_all = [said(text[:end], policies=SETS[0]) for end in range(4, len(text), 16)]
    half = len(said_all) // 2
    began = time.process_time()
    for case in said_all[:half]:
        guard.known(case)
    middle = time.process_time()
    for case in said_all[half:]:
        guard.known(case)
    assert time.process_time() - middle < 2 * (middle - began) + 0.05


def test_sets_are_compiled_before_the_first_exchange() -> None:
    guard = Patterns()
    policies = detecting("aws-key")
    guard.warm(policies)
    kept = dict(guard._kept)
    assert guard.known(asked("x", policies=policies)) is not None and dict(guard._kept) == kept and all(kept.values())


async def test_long_texts_of_many_chunks() -> None:
    for middle in ("", "AKIAIOSFODNN7EXAMPLE", base64.b64encode(b"AKIAIOSFODNN7EXAMPLE").decode()):
        text = "plain words and more of them " * 1500 + middle + " and understanding circumstances" * 800
        case = asked(text, policies=SETS[0])
        one, other = await QUICK.judge(case), await CAREFUL.judge(case)
        assert one.findings == other.findings and bool(one.findings) == bool(middle)


def test_plain_words_are_quiet() -> None:
    """The short way is taken where it should be; without this all laws above would hold for nothing."""
    quiet = Compiled(SETS[0]).quiet
    prose = ("The committee met again on Thursday to discuss how the harbour's authentication should be rebuilt. "
             "A well-established company — from the neighbouring town — understood the circumstances. ") * 5
    assert quiet.alone(prose) and quiet.alone('{"user_id": 17, "createdAt": "2024-05-01T10:00:00Z", "name": "X"}')
    trace = None
    for end in range(0, len(prose), 4):
        trace = quiet.grown(prose[:end], trace, 0)
        assert trace is not None
    assert not quiet.alone("x AKIAIOSFODNN7EXAMPLE") and not quiet.alone("%41") and not quiet.alone("\u202ex")


@pytest.mark.parametrize("name", DETECTORS)
def test_every_example_is_loud(name: str) -> None:
    quiet = Quiet([DETECTORS[name]], ())
    for text in EXAMPLES[name]:
        assert not quiet.alone(f'api_key = "{text}"' if name == "generic-api-key" else f"see {text}")


def test_no_character_reads_as_more_than_was_counted() -> None:
    """`Detector.least` rests on this: up to four characters of ASCII from one, never two of a token's prefix."""
    fixed = ("AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "xoxa-", "xoxb-", "xoxe-", "xoxo-",
             "xoxp-", "xoxr-", "xoxs-", "sk-", "AIza", "eyJ", "-----")
    pairs = {f[i:i + 2] for f in fixed for i in range(len(f) - 1)} | {"--"}
    for point in range(0x80, 0x110000):
        char = chr(point)
        if char not in LOOKALIKE and unicodedata.normalize("NFKC", char) == char and unicodedata.is_normalized(
                "NFKD", char):
            continue
        if 0xD800 <= point < 0xE000:
            continue
        read = _read(char)
        longest = max(map(len, "".join(c if c.isascii() else "\x00" for c in read).split("\x00")))
        assert longest <= 4 and longest * 3 <= 4 * len(char.encode())
        assert not any(p in read for p in pairs), (hex(point), read)


def test_short_triggers_match_more() -> None:
    assert _short(r"\bAB[0-9]{16}\b") == r"\bAB[0-9]{4}" and _short(r"a{2}") == "a{2}" and _short("a{1,9}") == "a{1,9}"


def test_little_is_kept_of_an_answer_and_nothing_once_it_has_ended() -> None:
    """Its bare text only from a little before where the next look begins; what is found is the same."""
    quick, careful = Patterns(), Patterns(quick=False)
    quick._kept = careful._kept = QUICK._kept
    text = "Die Bäuerin – so heißt es – grüßt an der Mühle den Müller. " * 1200 + "ＡＫＩＡIOSFODNN7EXAMPLE ok"
    ends = [*range(9000, len(text) - 60, 9000), len(text) - 40, len(text) - 10, len(text) - 3]
    for end in ends:
        same(said(text[:end], policies=SETS[1]), quick, careful)
        kept = [seen.trace for stream in quick._streams.values() for seen in stream.values() if seen.trace]
        assert all(len(trace.plain) <= 4 * CONTEXT + 9000 + 1024 for trace in kept)
        assert kept or end > len(text) - 20
        assert all(trace.base > 0 for trace in kept) or end < 5 * CONTEXT
    quick.forget("b0")
    assert not quick._streams
