r"""The named detectors: what a card number, a key or an address looks like, and what proves it.

Each has a *trigger*, a bounded pattern that hyperscan looks for in one linear pass over all text, and a *finish* that
runs only where a trigger was found: it grows the place to its whole extent and checks it (Luhn for cards, ISO 7064
mod-97 for IBANs). `live` says how a beginning of a match looks at the end of a text: while more text may come, words
from there on are held back. Every `live` must match every non-empty prefix of every match, for a match that is found
before it is whole (a key that still grows) at least those until then.

Sources: ISO/IEC 7812-1 (Luhn), ISO 13616 (IBAN), SSA number ranges, and the vendors' published token prefixes
(AWS IAM, GitHub, Slack, OpenAI, Anthropic, Google), RFC 7519 (JWT), RFC 7468 (PEM).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

Place = tuple[int, int]
Finish = Callable[[str, int, int], Place | None]
GROWTH = 8192           # the farthest a place grows beyond its trigger, in characters
NEAR = 48               # how far before a place something is looked for that says what it is


@dataclass(frozen=True, slots=True)
class Detector:
    """Args:
        triggers: bounded patterns over single-byte text (every character beyond Latin-1 reads as `?`).
        finish: (text, start, end) -> place of the whole match, or None where it is none. An empty place says that it
            has no end that could be cut out.
        live: regular expression (ASCII) of a match's possible beginnings; searched at the end of a text.
        ends: the same for single-byte text, where `live` tells letters apart that are one there; may match more.
        far: there may be more than `REACH` characters before a match is found.
        spaced: a match may hold blanks.
        words: a rule whose text has one of these (lower case) is the one reported.
        strong: hardly ever an accident, so decoded views and seams between messages are searched too.
        certain: a hit stands although more text may follow.
        least: bytes (of UTF-8 or UTF-16) that a match takes at least, however it is disguised; 0 where nobody counted.
            One character reads as up to four (`\u2167` as VIII), but never as two of a prefix such as `xox`.
        sure: narrower triggers (a superset of what `finish` accepts), where `triggers` match ordinary prose.
    """

    name: str
    triggers: tuple[str, ...]
    finish: Finish
    live: str
    words: tuple[str, ...]
    spaced: bool = False
    strong: bool = False
    certain: bool = False
    least: int = 0
    sure: tuple[str, ...] = ()
    ends: str = ""
    far: bool = False


def grow(right: str, left: str = "", check: Callable[[str], bool] | None = None) -> Finish:
    """Grows over character classes to the right and the left, then checks the words."""
    after = re.compile(f"[{right}]{{0,{GROWTH}}}") if right else None
    before = re.compile(f"[{left}]") if left else None

    def finish(text: str, start: int, end: int) -> Place | None:
        if after and (m := after.match(text, end)):
            end = m.end()
        while before and start and end - start < 320 and before.match(text, start - 1):
            start -= 1
        return (start, end) if check is None or check(text[start:end]) else None
    return finish


def luhn(text: str) -> bool:
    """ISO/IEC 7812-1 check digit over 13 to 19 digits that begin like a card: 3 to 6, or 2221 to 2720 (so no year)."""
    digits = text.encode("ascii", "replace").translate(None, b" -")
    if not 13 <= len(digits) <= 19 or not digits.isdigit():
        return False
    if not 0x33 <= digits[0] <= 0x36 and not b"2221" <= digits[:4] <= b"2720":
        return False
    return (sum(digits[-1::-2].translate(_ONCE)) + sum(digits[-2::-2].translate(_TWICE))) % 10 == 0


_ONCE = bytes(max(0, b - 48) % 10 for b in range(256))
_TWICE = bytes((d * 2 - 9 * (d > 4)) for d in _ONCE)


def mod97(text: str) -> bool:
    """ISO 7064 MOD 97-10 over an IBAN of 15 to 34 characters."""
    packed = text.replace(" ", "").replace("-", "")
    if not 15 <= len(packed) <= 34 or not packed.isalnum() or not packed.isascii():
        return False
    return int((packed[4:] + packed[:4]).upper().translate(_BASE36)) % 97 == 1


_BASE36 = {ord("A") + i: str(10 + i) for i in range(26)}


def _email(text: str, start: int, end: int) -> Place | None:
    start = at = text.index("@", start)
    while start and at - start < 64 and _LETTER.match(text, start - 1):
        start -= 1
    m = _DOMAIN.match(text, at + 1) if start < at else None
    return (start, m.end()) if m else None


# of a name before the @: not of scripts without blanks, where the words before it would be taken for it
_LETTERS = (r"[A-Za-z0-9_.%+\-\xc0-\xd6\xd8-\xf6\xf8-\u0588\u0591-\u05f4\u0620-\u0dff\u10a0-\u16ff\u1e00-\u1fff"
            r"\u2c00-\u2dff\uac00-\ud7a3]")
_LETTER = re.compile(_LETTERS)
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}")


def _iban(text: str, start: int, end: int) -> Place | None:
    """Exactly as many characters as the country's IBANs have, proven by the check digits."""
    need = IBAN_LENGTH.get(text[start:start + 2].upper(), 0)
    packed = text[start:start + 2 * need].replace(" ", "").replace("-", "")[:need]
    if not need or len(packed) < need or not mod97(packed):             # a beginning may pass the check by chance
        return None
    stop = start
    while need:
        need -= text[stop] not in " -"
        stop += 1
    if "-" in text[start:stop] and (not _FOURS.fullmatch(text, start, stop) or _ON.match(text, stop)):    # an id
        return None
    return None if text[stop:stop + 1].isalnum() and text[stop:stop + 1].isascii() else (start, stop)


_FOURS = re.compile(r"(?:[A-Za-z\d]{4}-)+[A-Za-z\d]{1,4}", re.A)
_ON = re.compile(r"-[A-Za-z\d]", re.A)


# ISO 13616 registry (SWIFT), lengths by country
IBAN_LENGTH = {code: int(n) for n, codes in (row.split(":") for row in (
    "15:NO|16:BE|18:DK FI FO GL NL FK SD|19:MK SI|20:AT BA EE KZ LT LU XK MN|21:CH HR LI LV|"
    "22:BG BH CR DE GB GE IE ME RS VA|23:AE GI IL IQ OM TL SO|24:AD CZ ES MD PK RO SA SE SK TN VG|25:LY PT ST|"
    "26:IS TR|27:BI DJ FR GR IT MC MR SM|28:AL AZ BY CY DO GT HN HU LB NI PL SV|29:BR EG PS QA UA|30:JO KW MU YE|"
    "31:MT SC|32:LC|33:RU").split("|")) for code in codes.split()}


def _card(text: str, start: int, end: int) -> Place | None:
    return (start, end) if luhn(text[start:end]) else None


def _ssn(text: str, start: int, end: int) -> Place | None:
    area, group, serial = text[start:start + 3], text[start + 4:start + 6], text[start + 7:end]
    issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    near = text[max(0, start - 1):start] + text[end:end + 1]
    if text[start + 3] == " " and not _SOCIAL.search(text, max(0, start - NEAR), start):
        return None                     # figures in a row, unless something says what they are
    return (start, end) if issued and "-" not in near else None


_SOCIAL = re.compile(r"(?i)\bssn|\bsocial security")


def _phone(text: str, start: int, end: int) -> Place | None:
    least, most, sign = 7, 15, text[start]
    if sign == "+":
        m = _ABROAD.match(text, start)
        if m and m.lastgroup:                       # an area code of one digit
            least = 10
    elif sign == "0" and not _DOMESTIC.match(text, start, end):
        m, least, most = _TRUNK.match(text, start), 10, 12
        pairs = m[0].replace(".", " ").split() if m else []
        if _LISTED.search(text, max(0, start - NEAR), start) or len(pairs) == 5 and pairs == sorted(pairs):
            return None
    else:
        m = _DOMESTIC.match(text, start) and _PHONE.match(text, start)
    if not m or least == 10 and _MORE.match(text, m.end()):
        return None
    end = max(end, m.end()) if least == 7 else m.end()
    if start and (text[start - 1].isalnum() or text[start - 1] in "-.") or text[end:end + 1].isalnum():
        return None
    return (start, end) if least <= sum(c.isdigit() for c in text[start:end]) <= most else None


_PHONE = re.compile(r"\d{0,3}(?:[ .-]?\(?\d{2,4}\)?){2,5}")
_DOMESTIC = re.compile(r"(?:1[ .-])?\d{3}[ .-]\d{3}[ .-]\d{4}(?!\d)|\(\d{3}\) ?\d{3}[ .-]\d{4}")
_ABROAD = re.compile(r"\+[2-9]\d{0,2}[ -]?\(0\)(?:[ -]?\d{1,4}){2,5}|(?P<short>\+[2-9]\d{1,2}(?:"
                     r"[ -]\d(?:[ -]?\d{2,4}){2,4}|\.\d(?:\.\d{2,4}){2,4})(?!\d))|"
                     r"\+\d{1,3}(?:[ .-]?\(?\d{2,4}\)?){2,5}(?!\d)")
# with the 0 that is dialled at home; five pairs in order are numbers drawn, and a year in the middle makes an id
_TRUNK = re.compile(r"0[1-9]\d{0,3}([ -])(?!(?:19|20)\d\d\1)\d{3,4}\1\d{3,4}|0[1-9]\d{1,3} \d{6,8}|01[5-7]\d-\d{7,8}|"
                    r"0[1-9]([ .])\d\d\2\d\d\2\d\d\2\d\d")
_MORE = re.compile(r"[ .-]?\d")
_LISTED = re.compile(r"(?i)(?:\d[ .]?|\b(?:invoice|order|ref|reference|rechnung|facture|id|isbn|sku|serial|ticket|batch|lot|"
                     r"case|account)\b[ _]?(?:number|no|nr|id)?[ .:#=]{0,4}|#)\Z")


def _jwt(text: str, start: int, end: int) -> Place | None:
    m = None if text[start - 1:start] in ("-", ".") else _JWT.match(text, start)
    if not m:
        return None
    head = m[0].partition(".")[0]
    try:
        fields = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return m.span() if isinstance(fields, dict) and ("alg" in fields or "typ" in fields) else None


_JWT = re.compile(rf"eyJ[\w-]{{8,{GROWTH}}}+\.[\w-]{{8,{GROWTH}}}+\.[\w-]{{0,{GROWTH}}}+", re.A)


def _pem(text: str, start: int, end: int) -> Place | None:
    """To its END; without one in reach to the end of a text that may still bring it, else an empty place: all blocks."""
    close = text.find("-----END ", end, end + 4 * GROWTH)
    stop = text.find("-----", close + 9, close + 80) if close >= 0 else -1
    if stop >= 0:
        return start, stop + 5
    return start, len(text) if len(text) - end <= 4 * GROWTH else start


def _generic(text: str, start: int, end: int) -> Place | None:
    """The value after `api_key = ` and its kin: at least 16 characters with letters and digits; no placeholder, no path,
    and unquoted no name of a variable and no call."""
    m = _ASSIGNED.match(text, end)
    if not m or not (re.search(r"\d", m[1]) and re.search(r"[A-Za-z]", m[1])):
        return None
    value = m[1].lower()
    if len(set(value)) < 8 or any(w in value for w in ("your", "xxxx", "example_", "placeholder", "changeme")):
        return None
    quoted, after = text[m.start(1) - 1] in "\"'", text[m.end(1):m.end(1) + 1]
    called = not quoted and after != "" and after in "(["
    return None if called or (not quoted or "/" in value) and _named(m[1]) else m.span(1)


def _named(value: str) -> bool:
    """Whether code or a path reads like this: words, with a few digits in them. Of random keys one in thirty does."""
    if _CHAOS.search(value) or "/" in value and _HUMP.search(value):
        return False
    pieces = _PIECES.findall(value)
    parts = re.split(r"[._/-]+", value.strip("._/-"))
    return 10 * sum(map(len, pieces)) >= 27 * len(pieces) and (len(parts) > 1 or sum(map(str.isdigit, value)) <= 2)


_PIECES = re.compile(r"[A-Z]?[a-z]+\d{0,2}|[A-Z]+(?![a-z])\d{0,2}|\d+")
_HUMP = re.compile(r"[a-z][A-Z]")
_CHAOS = re.compile(r"\d{6}|[+=]|[A-Za-z]\d+[A-Za-z]+\d+[A-Za-z]|\d[A-Za-z]+\d+[A-Za-z]+\d")


_NAMES = r"(?:api|access|auth|secret|private|client)[_ -]?(?:key|token|secret)"
_GAP = r"[\w-]{0,12}[\"']?[ \t]{0,4}(?::=|=>|[:=])[ \t]{0,4}[\"'`]?"
_ASSIGNED = re.compile(_GAP + r"([A-Za-z0-9_./+=-]{16,512}+)", re.A)


def _prefixes(word: str, then: str = "") -> str:
    """`abc` -> a(?:b(?:c then)?)?: a word being written."""
    out = then
    for letter in reversed(word):
        out = f"{re.escape(letter)}(?:{out})?" if out else re.escape(letter)
    return out


DETECTORS: dict[str, Detector] = {d.name: d for d in (
    Detector("email", (r"[A-Za-z0-9_%+\x80-\xff?-]@[A-Za-z0-9\x80-\xff?]",), _email,
             rf"{_LETTERS}{{1,64}}(?:@(?u:[\w.-]{{0,544}}))?", ("email", "e-mail"), strong=True,
             ends=r"[\w.%+\x80-\xff?-]{1,64}(?:@[\w.\x80-\xff?-]{0,544})?"),
    Detector("phone", (r"\b\d{3}[ .-]\d{3}[ .-]\d{4}\b", r"\(\d{3}\) ?\d{3}[ .-]\d{4}\b",
                       r"\b1[ .-][2-9]\d{2}[ .-]\d{3}[ .-]\d{4}\b", r"\+(?:[ .-]?\(?\d\)?){6}[ .-]?\(?\d",
                       r"\b0[1-9]\d{0,3}[ -]\d{3,4}[ -]\d{3,4}\b", r"\b0[1-9]\d{1,3}[ -]\d{6,8}\b",
                       r"\b0[1-9](?:[ .]\d\d){3}[ .]\d\d\b"), _phone, r"[+(\d][\d ().+-]{0,32}", ("phone",),
             spaced=True),
    Detector("credit-card", (r"\b\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{1,7}\b", r"\b3\d{3}[ -]?\d{6}[ -]?\d{4,5}\b"),
             _card, r"\d[\d -]{0,24}", ("card",), spaced=True),
    Detector("iban", (r"\b[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11}",), _iban,
             r"\b[A-Za-z](?:[A-Za-z](?:\d(?:\d[A-Za-z\d -]{0,64})?)?)?",
             ("iban", "bank account", "account number"), spaced=True, strong=True),
    Detector("us-ssn", (r"\b\d{3}-\d{2}-\d{4}\b", r"\b\d{3} \d{2} \d{4}\b"), _ssn, r"\d[\d -]{0,11}",
             ("social security", "ssn"), spaced=True),
    Detector("aws-key", (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",), grow(""), r"\bA(?:[KS](?:I(?:A[A-Z\d]{0,17})?)?)?",
             ("akia", "aws", "access key", "api key"), strong=True, least=16),
    Detector("github-token", (r"\bgh[pousr]_[A-Za-z0-9]{36}", r"\bgithub_pat_[A-Za-z0-9_]{36}"), grow(r"A-Za-z0-9_"),
             r"\bg(?:h(?:[pousr](?:_\w{0,300})?)?|" + _prefixes("ithub_pat_", r"\w{0,300}") + ")?",
             ("github", "ghp_", "access token", "api key"), strong=True, least=26),
    Detector("slack-token", (r"\bxox[abeoprs]-[A-Za-z0-9-]{10}",), grow(r"A-Za-z0-9-"),
             r"\bx(?:o(?:x(?:[abeoprs](?:-[\w-]{0,300})?)?)?)?", ("slack", "xox", "access token", "api key"),
             strong=True, least=13),
    Detector("openai-key", (r"\bsk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20}",),
             grow(r"A-Za-z0-9_-", check=lambda t: not t.startswith("sk-ant-")), r"\bs(?:k(?:-[\w-]{0,300})?)?",
             ("openai", "sk-", "api key"), strong=True,
             least=16),
    Detector("anthropic-key", (r"\bsk-ant-[A-Za-z0-9_-]{20}",), grow(r"A-Za-z0-9_-"),
             r"\bs(?:k(?:-[\w-]{0,300})?)?", ("anthropic", "sk-", "api key"), strong=True, least=16),
    Detector("google-key", (r"\bAIza[A-Za-z0-9_-]{35}",), grow(r"A-Za-z0-9_-"),
             r"\bA(?:I(?:z(?:a[\w-]{0,64})?)?)?", ("google", "api key"), strong=True, least=26),
    Detector("private-key", (r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----",), _pem,
             r"-[A-Z\d -]{0,72}", ("private key",), spaced=True, strong=True, certain=True, least=20),
    Detector("jwt", (r"\beyJ[A-Za-z0-9_-]{8}",), _jwt, r"\be(?:y(?:J[\w.-]*)?)?",
             ("jwt", "web token", "session", "access token"), strong=True, least=16, far=True),
    Detector("generic-api-key", (f"(?i){_NAMES}",), _generic,
             rf"(?i:{_NAMES}){_GAP}[A-Za-z0-9_./+=-]{{1,300}}",       # only the value is ever cut out
             ("api key",), spaced=True, sure=(f"(?i){_NAMES}{_GAP}[A-Za-z0-9_./+=-]{{16}}",)),
)}
