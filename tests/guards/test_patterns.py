from __future__ import annotations

import asyncio
import base64
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firewall.errors import GuardDown, Mistakes
from firewall.guards.detectors import DETECTORS, luhn, mod97
from firewall.guards.guard import Guard
from firewall.guards.patterns import WIDEST, Patterns, width
from firewall.policy import PolicySet, load
from firewall.verdict import Verdict, decide

from ..conftest import ROOT
from .cases import SET, asked, detecting, said

EXAMPLES = {        # made up or published as samples; none opens anything
    "email": ["joe.b+x@example.com", "ann_lee@mail.example.co.uk"],
    "phone": ["+1 415 555 2671", "(415) 555-2671", "415-555-2671", "+49 30 901820", "1-800-555-0199", "1.415.555.2671",
              "+33 1 23 45 67 89", "+61 2 1234 5678", "+49 (0)30 123456", "+44 (0)20 7946 0958", "020 7946 0958",
              "0170 1234567", "06 52 34 12 78"],
    "credit-card": ["4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005", "2223 0031 2200 3222"],
    "iban": ["GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "NO9386011117947", "BE68-5390-0754-7034",
             "EG380019000500000000263180002", "HN88 CABF 0000 0000 0002 5000 5469"],
    "us-ssn": ["123-45-6789"],
    "aws-key": ["AKIAIOSFODNN7EXAMPLE"],
    "github-token": ["ghp_" + "a1B2" * 9, "github_pat_" + "11ABCDEFG0" * 5],
    "slack-token": ["xoxb-123456789012-abcdefGHIJ"],
    "openai-key": ["sk-proj-abcdefghijklmnopqrst_-XY"],
    "anthropic-key": ["sk-ant-api03-abcdefghijklmnopqrst"],
    "google-key": ["AIza" + "SyA-1_bcde" * 3 + "12345"],
    "private-key": ["-----BEGIN RSA PRIVATE KEY-----\nMIIB\nAAAA\n-----END RSA PRIVATE KEY-----"],
    "jwt": ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc_def-ghi"],
    "generic-api-key": ["a8f5f167f44f4964e6c998dee827110c"],
}
PAIRS = [(n, t) for n, texts in EXAMPLES.items() for t in texts]
GUARD = Patterns()          # compiled sets are kept


def found(text: str, policies: PolicySet) -> list[str]:
    verdict = GUARD.known(asked(text, policies=policies))
    assert verdict is not None
    return [text[s.start:s.end] for f in verdict.findings for s in f.spans]


def around(name: str, text: str) -> str:
    return f'api_key = "{text}"' if name == "generic-api-key" else f"see {text} ok"


def test_it_is_a_guard_and_every_detector_has_examples() -> None:
    assert isinstance(Patterns(), Guard) and set(EXAMPLES) == set(DETECTORS)


@pytest.mark.parametrize(("name", "text"), PAIRS)
def test_found_with_exact_places(name: str, text: str) -> None:
    policies = detecting(name)
    assert found(around(name, text), policies) == [text]
    assert found("é世" + around(name, text) + "世", policies) == [text]
    verdict = GUARD.known(asked(around(name, text), policies=policies))
    assert verdict is not None and decide([verdict], policies).action == "redact"


INNOCENT = {
    "credit-card": ["4111 1111 1111 1112", "1234 5678 9012 3456",
                    *(" ".join(map(str, range(a, a + 6))) for a in range(1990, 2040))],
    "iban": ["GB82 WEST 1234 5698 7654 33", "BE68-53900754-7034", "BE68-5390-0754-7034-12"],
    "us-ssn": ["000-12-3456", "123-45-67890", "5-123-45-6789", "078 05 1120", "100 20 3000 40"],
    "email": ["a@b", "@joe.com"],
    "aws-key": ["XAKIAIOSFODNN7EXAMPLE"], "jwt": ["eyJhbGciOi.nothing", "eyJabcdefghijk.abcdefghijk.xyz"],
    "generic-api-key": ["api_key = os.environ['THE_KEY_OF_ALL_KEYS']", "the key to success: patience",
                        "api_key = your_api_key_goes_here_123"],
    "openai-key": ["sk-ant-api03-abcdefghijklmnopqrst"], "google-key": ["AIzaTooShort"], "slack-token": ["foxoxb-123"],
    "phone": ["version 1.2.3, 2024-01-02", "1234567890123456789", "02-2024-0001", "05 12 23 34 45", "01.02.2024 10:30",
              "invoice no. 0170 1234567", "0730 0815 0900 0945", "12 0345 6789 0123", "020 7946 0958 1", "+3.14 2.71 1.41",
              "+25 3 10 20", "00000120: 4865 6c6c", "0 306 40615 2", "@@ -1,7 +1,8 @@", "1.0.0+20130313144700"],
    "private-key": ["-----BEGIN PUBLIC KEY-----"],
}


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in INNOCENT.items() for t in texts])
def test_lookalikes_are_left_alone(name: str, text: str) -> None:
    assert found(f"see {text} ok", detecting(name)) == []


KEYS = ["wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY", "abcd1234efgh5678ijkl", "django-insecure-1234567890abcdefgh",
        "ya29.a0AfH6SMBx1234567890abcdefg", "a1b2c3d4-e5f6-7890-abcd-ef1234567890", "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
        "A1B2-C3D4-E5F6-G7H8", "a8f5f167f44f4964e6c998dee827110c", "SG.ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf"]
CODE = ["client_secret=settings.OAUTH2_CLIENT_SECRET", "private_key = ed25519.Ed25519PrivateKey.generate()",
        "secret_key = base64.b64decode(value)", "const apiKey = process.env.S3_API_KEY;",
        "auth_key_v2=self.session.auth_keys_v2",
        "secret_key = hashlib.pbkdf2_hmac('sha256', p, s, 1)", "ssl_private_key: /etc/ssl/private/server-2024.key",
        "private_key = '/etc/ssl/private/server-2024.key'", "access_token = oauth2_session.fetch_token(url)",
        "set `client_secret=settings.OAUTH2_CLIENT_SECRET`.", "access_key_id=module.iam_user_v2.access_key",
        "client_secret = data.vault_kv_secret_v2.app.data", "api_key = a8f5f167f44f4964(e6c998)",
        "secret_key = KEYS2024_BY_NAME[x]",
        "secret_key: sha256/abcdefghijk", "secret_key: my-app-secret-key-v2"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("form", ["SECRET_KEY={}", "client_secret: {}\n", 'api_key = "{}",', "see access_token='{}'; ok"])
def test_a_value_that_looks_like_a_key_is_found(key: str, form: str) -> None:
    assert found(form.format(key), detecting("generic-api-key")) == [key]


@pytest.mark.parametrize("line", CODE)
def test_code_is_left_as_it_is(line: str) -> None:
    policies = detecting("generic-api-key")
    assert found(line, policies) == [] and found(line + "\nmore", policies) == []


def test_checks() -> None:
    assert luhn("4111-1111-1111-1111") and not luhn("4111") and not luhn("0000 0000 0000 0000")
    assert mod97("GB82WEST12345698765432") and not mod97("GB82WEST12345698765431") and not mod97("é" * 20)


def test_figures_are_a_social_security_number_where_something_says_so() -> None:
    assert found("SSN 078 05 1120 ok", detecting("us-ssn")) == ["078 05 1120"]
    assert found("Her social security number is 078 05 1120.", detecting("us-ssn")) == ["078 05 1120"]


def test_a_detector_is_off_unless_a_policy_names_it() -> None:
    assert found("joe@example.com", SET) == [] and found("joe@example.com", detecting("iban")) == []


def test_the_rule_is_the_one_that_mentions_it() -> None:
    policies = detecting("email", "us-ssn", rules="- Names people.\n- Gives an email address.\n")
    verdict = GUARD.known(asked("joe@example.com 123-45-6789", policies=policies))
    assert verdict is not None
    assert [(f.rule, f.score) for f in verdict.findings] == [("pii/1", 1.0), ("pii/2", 1.0)]


def test_mistakes_name_the_nearest() -> None:
    with pytest.raises(Mistakes) as e:
        Patterns.check(detecting("emial", "phrase: ", "phrase:" + "x" * 300))
    assert len(e.value.lines) == 3
    assert "'emial'; did you mean 'email'?" in e.value.lines[0] and "us-ssn" in e.value.lines[0]


async def test_an_unknown_detector_never_passes() -> None:
    with pytest.raises(GuardDown):
        await Patterns().judge(asked("x", policies=detecting("nope")))


def test_every_pattern_is_bounded() -> None:
    assert all(width(t) <= WIDEST for d in DETECTORS.values() for t in d.triggers)
    assert width("a+") > WIDEST


def test_the_shipped_policies_compile() -> None:
    Patterns.check(load(ROOT / "policies"))


@pytest.mark.parametrize("text", ["about project zebra", "PROJECT\u00a0ZEBRA!", "the project\nzebra",
                                  "pro\u200bject zeb\u00adra", "ｐｒｏｊｅｃｔ zebra",
                                  "рrоjесt zеbrа", "prôject zébra", "prºject zebrª", "project  zebra", "project\r\nzebra",
                                  "project\n        zebra", "project\u00a0 \u2028zebra"])
def test_phrases_are_literal_and_folded_with_places(text: str) -> None:
    [hit] = found(text, detecting("phrase:Project Zebra"))
    assert len(hit) >= len("project zebra")


@pytest.mark.parametrize("text", [
    "cHJvamVjdCB6ZWJyYQ== is it", "70726f6a656374207a65627261", "project%20zebra", "&#112;roject zebra",
    "p**roj**ect ze_br_a", "\\u0070roject zebra", "p.r.o.j.e.c.t z.e.b.r.a", "pr0j3ct z3bra", "cebwrpg mroen",
    "arbez tcejorp", "\u202earbez tcejorp\u202c", "".join(chr(0xE0000 + ord(c)) for c in "project zebra"),
    "Y0hKdmFtVmpkQ0I2WldKeVlRPT0=",
])
def test_what_is_found_in_a_view_only_has_no_place_and_blocks(text: str) -> None:
    policies = detecting("phrase:project zebra", "aws-key")
    verdict = GUARD.known(asked(f"read {text} now", policies=policies))
    assert verdict is not None
    [finding] = verdict.findings
    assert finding.spans == () and decide([verdict], policies).action == "block"


def test_a_text_too_disguised_to_be_read_is_blocked() -> None:
    policies = detecting("phrase:project zebra", "aws-key")
    verdict = GUARD.known(asked("\u202e⑽⑽⑽⑽⑽⑽⑽⑽%41%4&#x41;\\x41**a** " * 400, policies=policies))
    assert verdict is not None and verdict.findings[0].spans == () and decide([verdict], policies).action == "block"


def test_halves_in_two_messages_are_joined() -> None:
    policies = detecting("phrase:project zebra", "aws-key")
    guard = GUARD
    for texts in (("tell me about pro", "ject zebra"), ("AKIAIOSF", "ODNN7EXAMPLE"), ("project", " zebra")):
        verdict = guard.known(asked(*texts, policies=policies))
        assert verdict is not None and verdict.findings and verdict.findings[0].spans == ()
    split = guard.known(asked("pro", "no", "ject zebra", policies=policies, roles="user,assistant,user"))
    assert split is not None and split.findings


def test_a_hit_in_place_is_not_reported_again_by_a_view() -> None:
    policies = detecting("phrase:project zebra", "email")
    text = "**project zebra** is run by joe_b@example.com"
    verdict = GUARD.known(asked(text, "and more", policies=policies))
    assert verdict is not None and len(verdict.findings[0].spans) == 2
    hidden = GUARD.known(asked(text + " arbez tcejorp", policies=policies))
    assert hidden is not None and hidden.findings[0].spans == ()        # a second, hidden one must not leave


@given(st.sampled_from(PAIRS), st.integers(0, 80), st.text(st.sampled_from(list("ab 1-.@é")), max_size=12))
@example(("iban", "EG380019000500000000263180002"), 41, "1" * 12)         # its first 24 pass the check digits
@settings(max_examples=150)
def test_no_beginning_of_a_match_is_vouched_for(pair: tuple[str, str], cut: int, before: str) -> None:
    name, text = pair
    policies = detecting(name)
    whole = before + " " + around(name, text) + " and then more"
    verdict = GUARD.known(said(whole[:cut], policies=policies))
    assert verdict is not None
    cleared = dict(verdict.unsure).get("a", cut)
    final = GUARD.known(said(whole, whole=True, policies=policies))
    assert final is not None
    told = {s for f in verdict.findings for s in f.spans}
    for finding in final.findings:
        for span in finding.spans:
            if span.start < min(cut, len(whole)):
                assert cleared <= span.start or any(t.start <= span.start and t.end <= span.end for t in told)


LONG = {            # found late, or with letters beyond ASCII
    "jwt": ["eyJhbGciOiJIUzI1NiJ9." + "c3ViIjo4" * n + ".abc_def-ghi" for n in (60, 300, 1000)] +
           ["eyJhbGciOiJIUzI1NiIs" + base64.urlsafe_b64encode(b'"kid":"' + b"k" * 2000 + b'"}').decode().rstrip("=") +
            ".c3ViIjo4.abc_def-ghi"],
    "email": ["josé.garcía@example.com", "андрей@example.com", "a@" + "1" * 60 + "." + "2" * 60 + "." + "3" * 60 + "." +
              "4" * 60 + "." + "5" * 60 + ".com"],
    "iban": ["de89370400440532013000", "gb82 west 1234 5698 7654 32"], "us-ssn": ["219‑09‑9999", "219–09–9999"],
    "credit-card": ["4111‑1111‑1111‑1111", "٤١١١ ١١١١ ١١١١ ١١١١"], "phone": ["415‑555‑2671"],
}


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in LONG.items() for t in texts])
@pytest.mark.parametrize("quick", [True, False])
def test_nothing_of_a_match_is_vouched_for_before_it_is_found(name: str, text: str, quick: bool) -> None:
    policies = detecting(name)
    whole = f"see {text} and then more words"
    assert found(whole, policies) == [text]
    guard = Patterns(quick=quick)
    guard._kept = GUARD._kept
    for end in range(1, len(whole), 1 + len(text) // 60):
        verdict = guard.known(said(whole[:end], policies=policies))
        assert verdict is not None
        assert dict(verdict.unsure).get("a", end) <= 4 or end >= 4 + len(text) and verdict.findings
        assert all(s.start == 4 for f in verdict.findings for s in f.spans)


@given(st.lists(st.sampled_from(["prôject", "  ", "zébra", "pro", "ject ", "\r\n   ", "zebra", "Я", "😀", "prºject",
                                 "\u00a0", " \u0301", "219‑09–", "9999 ", "josé@example.com", "x", "…",
                                 "\u200b", "020 7946", " 0958", " 12", "SSN 078 05 ", "1120", "no. ", "invoice ",
                                 "+33 1 23 45", " 67 89", "BE68-5390-0754-7034", "-1", "1-800-555", "-0199 "]), max_size=9),
       st.lists(st.integers(0, 60), max_size=8))
@settings(max_examples=200)
def test_the_verdict_is_the_same_however_a_text_is_cut(units: list[str], cuts: list[int]) -> None:
    policies = detecting("us-ssn", "email", "phone", "iban", "phrase:project zebra")
    whole = "".join(units)
    guard = Patterns()
    guard._kept = GUARD._kept
    for cut in sorted(cuts):
        guard.known(said(whole[:cut], policies=policies))
    last = guard.known(said(whole, whole=True, policies=policies))
    alone = GUARD.known(said(whole, whole=True, policies=policies)._replace(boundary=""))
    assert last is not None and alone is not None and last.findings == alone.findings


@given(st.integers(0, 30), st.sampled_from(["project zebra", "größe", "zzz"]))
def test_no_beginning_of_a_phrase_is_vouched_for(cut: int, phrase: str) -> None:
    whole = "z the " + phrase + " end"
    verdict = GUARD.known(said(whole[:cut], policies=detecting(f"phrase:{phrase}")))
    assert verdict is not None
    start = whole.index(phrase)
    cleared = dict(verdict.unsure).get("a", min(cut, len(whole)))
    if start < cut < start + len(phrase):
        assert cleared <= start
    elif cut >= start + len(phrase):
        assert verdict.findings


UNITS = ["hello ", "AKIAIOSFODNN7EXAMPLE", " joe@example.com", "project zebra ", "4111 1111 ", "1111 1111", " eyJ",
         "\n", "-----BEGIN PRIVATE KEY-----", "cHJvamVjdCB6ZWJyYQ==", " +1 415 555", " 2671 ", "é", "x" * 300,
         "word " * 60, "api_key = ", "settings.OAUTH2_CLIENT", "_SECRET", "(", "a8f5f167f44f4964", "e6c998", "020 7946 0958",
         " 1", "-0199 ", "1-800-555", "ssn 078 05 1120", "BE68-5390-0754-7034", "+33 1 23 45 67 89"]


@given(st.lists(st.sampled_from(UNITS), min_size=1, max_size=12), st.lists(st.integers(0, 2000), max_size=8))
@example([" +1 415 555", " 2671 ", "word " * 60], [262, 262])
@example(["AKIAIOSFODNN7EXAMPLE", "project zebra ", "AKIAIOSFODNN7EXAMPLE", "word " * 60], [284, 284])
@settings(max_examples=400)
def test_looking_step_by_step_finds_the_same(units: list[str], cuts: list[int]) -> None:
    policies = detecting(*DETECTORS, "phrase:project zebra")
    whole = "".join(units)
    steps = Patterns()
    steps._kept = GUARD._kept                                           # compiled once
    for cut in sorted(cuts):
        part = said(whole[:cut], policies=policies)
        grown, fresh = steps.known(part), GUARD.known(part._replace(boundary=""))
        assert grown is not None and fresh is not None
        assert (grown.findings, grown.unsure) == (fresh.findings, fresh.unsure)
    end = said(whole, whole=True, policies=policies)
    last, alone = steps.known(end), GUARD.known(end._replace(boundary=""))
    assert last is not None and alone is not None and last.findings == alone.findings
    assert not steps._streams


def test_a_growing_answer_costs_its_new_words_only() -> None:
    policies = detecting(*DETECTORS)
    text = "The quick brown fox jumps over the lazy dog. " * 700
    assert GUARD.known(said(text, policies=policies)) is None           # 31,000 characters at once: not inline
    for end in range(0, len(text), 500):
        began = time.process_time()
        assert GUARD.known(said(text[:end], policies=policies)) is not None
    assert time.process_time() - began < 0.05


def test_ordinary_text_is_vouched_for_but_its_last_word() -> None:
    policies = detecting(*DETECTORS)
    text = "The quick brown fox jumps over the lazy dog and keeps runn"
    verdict = GUARD.known(said(text, policies=policies))
    assert verdict is not None and dict(verdict.unsure)["a"] >= len(text) - 5
    assert GUARD.known(said(text, whole=True, policies=policies)).unsure == ()        # type: ignore[union-attr]


@pytest.mark.parametrize("where", [0, 16_000, 16_384 - 5, 15_360 - 3, 100_000, 199_980])
async def test_long_texts_are_searched_everywhere(where: int) -> None:
    text = "x " * 100_000
    text = text[:where] + " AKIAIOSFODNN7EXAMPLE " + text[where:]
    guard = Patterns()
    case = asked(text, policies=detecting("aws-key"))
    assert guard.known(case) is None                                    # too long to be judged between two frames
    [finding] = (await guard.judge(case)).findings
    assert [text[s.start:s.end] for s in finding.spans] == ["AKIAIOSFODNN7EXAMPLE"]


@pytest.mark.parametrize("unit", ["\ufdfa", "@a", "4234 ", "eyJ-", "DE12 ", "a", "QUJD", "api_key=", "1a@b.cc "])
async def test_hostile_texts_take_bounded_time_and_leave_the_loop_alive(unit: str) -> None:
    text = unit * (150_000 // len(unit))
    lag: list[float] = []

    async def watch() -> None:
        while True:
            began = time.process_time()
            await asyncio.sleep(0)
            lag.append(time.process_time() - began)
    watcher = asyncio.create_task(watch())
    began = time.process_time()
    verdict = await Patterns().judge(asked(text, policies=detecting(*DETECTORS, "phrase:project zebra")))
    took = time.process_time() - began
    watcher.cancel()
    assert isinstance(verdict, Verdict)
    assert took < 5 and max(lag, default=0) < 0.6                       # CPU seconds; generous, the machine is shared


@given(st.text(max_size=200))
def test_any_text_is_judged(text: str) -> None:
    policies = detecting(*DETECTORS, "phrase:zebra")
    for case in (asked(text, policies=policies), said(text, policies=policies)):
        verdict = GUARD.known(case)
        assert verdict is not None
        for f in verdict.findings:
            for s in f.spans:
                assert 0 <= s.start < s.end <= len(text)


@given(st.text(st.sampled_from(list("z\u200be\u00adbraß ｚ\u0301а")), max_size=30))
def test_places_in_the_cleaned_text_point_back(text: str) -> None:
    from firewall.guards.cleaned import fold, origin
    folded = fold(text)
    for m in re.finditer("zebra|ss", folded):
        start, end = origin(text, *m.span(), fold)
        assert m[0] in fold(text[start:end])


@pytest.mark.parametrize(("size", "end", "place"), [(6000, True, True), (20_000, True, True), (20_000, False, True),
                                                    (40_000, True, False), (40_000, False, False)])
async def test_nothing_of_a_long_private_key_goes_on(size: int, end: bool, place: bool) -> None:
    policies = detecting("private-key")
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA\n" * (size // 17) + "-----END PRIVATE KEY-----" * end
    text = "see " + key
    for case in (asked(text, policies=policies), said(text, whole=True, policies=policies)):
        verdict = await GUARD.judge(case)
        [finding] = verdict.findings
        assert [(s.start, s.end) for s in finding.spans] == [(4, len(text))] * place
        assert decide([verdict], policies).action == ("redact" if place else "block")
    guard = Patterns()
    guard._kept = GUARD._kept
    for cut in range(3000, len(text), 5000):
        part = await guard.judge(said(text[:cut], policies=policies))
        assert dict(part.unsure).get("a", cut) <= 4 or decide([part], policies).action == "block"
