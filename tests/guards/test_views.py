from __future__ import annotations

import base64
import codecs
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import GuardDown
from firewall.guards.cleaned import fold
from firewall.guards.patterns import Patterns
from firewall.guards.scripted import ScriptedGuard
from firewall.guards.views import BUDGET, CHUNK, FLOOR, REACH, chunks, seams, views
from firewall.verdict import Span

from .cases import asked, detecting, said

WORD = "zebra"
TAGGED = "".join(chr(0xE0000 + ord(c)) for c in WORD)
PICKED = "x" + "".join(chr(0xE0100 + ord(c) - 16) for c in WORD)
DISGUISES = {
    "H01": ["z\u200beb\u200cr\u200da", "z\u2060e\ufeffb\u00adra", "z\u034fe\u115fbra", "z\0eb\x7fra", "z\x1be\x0cb\x85ra"],
    "H03": ["ｚｅｂｒａ", "𝐳𝐞𝐛𝐫𝐚", "ⓩⓔⓑⓡⓐ", "🇿🇪🇧🇷🇦", "ᴢᴇʙʀᴀ", "z\u0336e\u0336b\u0336r\u0336a\u0336", "zеbrа", "ζεbra",
            *("".join(chr(first + ord(c) - 97) for c in WORD) for first in (0x249C, 0x1F110, 0x1F130, 0x1F150, 0x1F170))],
    "H05": [f"hi {TAGGED}", PICKED],
    "H07": ["\u202earbez\u202c", "\u2067arbez\u2069", "arbez"],
    "H09": [base64.b64encode(b"a zebra runs away").decode(), base64.urlsafe_b64encode(b"?>?zebra runs").decode(),
            base64.b64encode(base64.b64encode(b"the zebra runs")).decode(), b"a zebra runs".hex(),
            " ".join(f"{c:02x}" for c in b"a zebra!"), "%7a%65bra", "%257aebra",
            base64.b64encode("zebra runs".encode("utf-16-le")).decode()],
    "H11": ["&#122;ebra", "&#x7a;ebra", "z**eb**ra", "z<!-- no -->ebra", "z<b>eb</b>ra", r"\u007aebra", r"\\u007aebra",
            r"\x7aebra", r"\172ebra", "z e b r a", "z-e-b-r-a", "z3br4", codecs.encode(WORD, "rot13")],
}


def readings(text: str) -> list[str]:
    return [fold(text), *(fold(v.text) for v in views(text))]


@pytest.mark.parametrize("text", [t for texts in DISGUISES.values() for t in texts])
def test_disguises_come_off(text: str) -> None:
    assert any(WORD in r for r in readings(f"see {text} there"))


def test_halves_meet() -> None:
    assert any(WORD in s for s, _ in seams(["the ze", "bra runs"]))
    assert any(WORD in s for s, _ in seams(["ze", "b", "", "ra"]))
    assert any(WORD in s.replace(" ", "") for s, _ in seams(["ze ", " bra"]))
    guard = ScriptedGuard({WORD: "weapons/1"}, views=True)
    verdict = guard.known(asked("the ze", "bra"))
    assert verdict is not None and verdict.findings and verdict.findings[0].spans == ()


@given(st.text(max_size=300))
def test_any_text_is_read_and_bounded(text: str) -> None:
    read = [v.text for v in views(text)]
    assert sum(map(len, read)) <= BUDGET * len(text) + FLOOR
    assert text not in read
    fold(text).encode()


@pytest.mark.parametrize("sign", ["\0", "\x0b", "\x1b", "\x7f", "\x85", "\u200b"])
def test_no_control_character_blinds_a_detector(sign: str) -> None:
    """Whole, and cut anywhere; what is cut out is all of it."""
    policies = detecting("aws-key", "phrase:zebra")
    for secret in ("AKIAIOSFODNN7EXAMPLE", "zebra"):
        text = f"see {secret[:4]}{sign}{secret[4:]} there"
        place = Span("a", 4, 5 + len(secret))
        for quick in (True, False):
            guard = Patterns(quick=quick)
            for cut in range(len(text)):
                guard.known(said(text[:cut], policies=policies))
                verdict = guard.known(said(text, policies=policies, whole=True))
                assert verdict and [f.spans for f in verdict.findings] == [(place,)]
            verdict = guard.known(said("see AKIA" + sign, policies=policies))
            assert verdict and verdict.unsure == (("a", 4),)


@given(st.integers(0, 4 * CHUNK))
def test_chunks_cover_and_overlap(size: int) -> None:
    text = "x" * size
    parts = list(chunks(text))
    assert parts[0][0] == 0 and parts[-1][0] + len(parts[-1][1]) == size
    for (a, one), (b, _) in zip(parts, parts[1:], strict=False):
        assert a + len(one) - b == REACH and len(one) <= CHUNK


@pytest.mark.parametrize("unit", ["\ufdfa", "a", "QUJD", "%41", "&amp;", "\\u0041", "\u202e", "\U000E0041", "1 ",
                                  "<!--", "&#x41;", "**", "</a", "7a "])
def test_hostile_chunks_cost_little(unit: str) -> None:
    text = (unit * CHUNK)[:CHUNK]
    began = time.process_time()
    assert sum(len(v.text) for v in views(text)) <= 40 * CHUNK
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("unit", ["\ufdfa", "⑽", "é", "—"])
def test_no_character_switches_off_the_views_of_others(unit: str) -> None:
    hidden = base64.b64encode(b"a zebra runs away").decode()
    for times in (27, 500, CHUNK - 100):
        assert any(WORD in r for r in readings(f"{unit * times} {hidden}"))


def test_more_views_than_are_read_are_refused() -> None:
    with pytest.raises(GuardDown):
        list(views(("\u202e⑽⑽⑽⑽⑽⑽⑽⑽%41%4&#x41;\\x41**a** " * 500)[:CHUNK]))
    assert list(views("plain words, 50% of them &amp; **more** \\x41 l33t a.b.c naïve " * 250))
