"""Words that only appear decoded: found in the text that hides them, and cut out of it."""

from __future__ import annotations

import re
import time
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import FirewallError
from firewall.verdict import Span
from firewall.wire import origin
from firewall.wire.dialects import WIRES
from firewall.wire.leaves import decoded
from firewall.wire.origin import Read, origins, sound
from tests.wire.streams import REQUESTS

TEXT = st.text(alphabet='azebr"\\{}:,[]/ \n\t\u00e9\U0001f600\ud7ff', max_size=12)
PLAIN = st.one_of(TEXT, st.none(), st.booleans(), st.integers(-9, 9**15), st.floats(allow_nan=False, allow_infinity=False))
JSON = st.recursive(PLAIN, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3),
    inner.map(lambda value: orjson.dumps(value).decode())), max_leaves=8)


def escaped(text: str) -> str:
    """The same JSON in ASCII, letters z spelt with an escape (but where a backslash stands before one)."""
    out = "".join(char if char.isascii() else "".join(
        f"\\u{unit:04x}" for unit in memoryview(char.encode("utf-16-le")).cast("H")) for char in text)
    return out.replace("z", "\\u007a") if "\\z" not in out else out


@given(JSON, st.booleans())
def test_every_character_is_found(value: Any, ascii_: bool) -> None:
    text = orjson.dumps(value).decode()
    text = escaped(text) if ascii_ else text
    hidden = decoded(text)
    if not hidden:
        return
    places = [origins(text, hidden, [(i, i + 1)]) for i in range(len(hidden))]
    at = -1
    for char, place in zip(hidden, places, strict=True):
        if not place:
            assert char == "\n"     # between two strings
            continue
        ((start, end),) = place
        assert start >= at and end > start
        at = start
        source = text[start:end]        # itself, an escape, or a number or name
        assert source == char or "\\" in source or char in str(orjson.loads(source))


@given(st.dictionaries(st.sampled_from("abc"), st.one_of(TEXT, TEXT.map(lambda t: orjson.dumps({"q": t}).decode()))),
       st.booleans())
def test_masked_words_are_gone_and_the_rest_is_the_same(value: dict[str, str], ascii_: bool) -> None:
    value = {**value, "said": "go\nzebra\tgo"}
    text = orjson.dumps({**value, "more": orjson.dumps(value).decode()}).decode()
    text = escaped(text) if ascii_ else text
    hidden = decoded(text)
    hits = [(at, at + 5) for at in range(len(hidden)) if hidden.startswith("zebra", at)]
    for start, end in sorted(origins(text, hidden, hits) or [], reverse=True):
        text = text[:start] + "[X]" + text[end:]
    document = orjson.loads(text)
    assert len(hits) >= 2 and "zebra" not in text and "zebra" not in decoded(text)
    assert document["said"] == "go\n[X]\tgo" and orjson.loads(document["more"])["said"] == "go\n[X]\tgo"
    assert document == {key: said.replace("zebra", "[X]") for key, said in value.items()} | {
        "more": document["more"]}


@given(JSON, st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=5))
def test_hits_together_are_found_where_each_is(value: Any, hits: list[tuple[int, int]]) -> None:
    text = escaped(orjson.dumps([value, "zebra"]).decode())
    hidden = decoded(text)
    places = [(start, start + size) for start, size in hits]
    if hidden:
        each = [place for hit in places for place in origins(text, hidden, [hit]) or []]
        together = origins(text, hidden, places)
        assert together is not None and {at for place in each for at in range(*place)} == {
            at for place in together for at in range(*place)}


def test_many_hits_in_many_lines_cost_their_number() -> None:
    text = orjson.dumps({f"k{n}": "zebra\t" for n in range(8000)}).decode()
    hidden = decoded(text)
    hits = [found.span() for found in re.finditer("zebra", hidden)]
    began = time.process_time()
    assert len(origins(text, hidden, hits) or []) == len(hits) == 8000
    assert time.process_time() - began < 4.0        # hits times lines took a minute


def test_text_that_is_no_json() -> None:
    text = '{"a": "\\u007aebra \\ud83d\\ude00 \\ud83d \\'
    hidden = decoded(text)
    assert hidden == '{"a": "zebra \U0001f600 \ufffd '
    assert [text[a:b] for a, b in origins(text, hidden, [(7, 12), (13, 14), (15, 16)]) or []] == [
        "\\u007aebra", "\\ud83d\\ude00", "\\ud83d"]


@pytest.mark.parametrize("text, hidden", [('{"a":"x"}', "a\ny"), ("emVicmE=", "zebra"), ('{"a":"\\n","a":"b"}', "a\nb")])
def test_what_is_not_the_decoded_form(text: str, hidden: str) -> None:
    assert origins(text, hidden, [(0, 1)]) is None


def called(arguments: str) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "write", "arguments": arguments}}
    return {"model": "m", "messages": [{"role": "assistant", "content": None, "tool_calls": [call]},
                                       {"role": "tool", "tool_call_id": "c1", "content": "ok"}]}


@pytest.mark.parametrize("key", ["z", "\\u007a"])
@pytest.mark.parametrize("seen", [("",), ("#decoded",), ("", "#decoded")])
def test_arguments_of_a_request(key: str, seen: tuple[str, ...]) -> None:
    """Whether a guard points at the words as they are written, as they are meant, or both."""
    asked = WIRES["openai-chat"].ask(called('{"path":".env","text":"region=eu\\nkey=' + key + 'ebra\\n"}'))
    said = {message.where: message.text for message in asked.messages}
    where = "messages.0.tool_calls.0.function.arguments"
    spans = [Span(where + end, said[where + end].find("zebra"), said[where + end].find("zebra") + 5) for end in seen
             if "zebra" in said[where + end]]
    if not spans:
        return
    again = orjson.loads(asked.rewrite(spans, lambda _: "[X]"))
    arguments = again["messages"][0]["tool_calls"][0]["function"]["arguments"]
    assert orjson.loads(arguments) == {"path": ".env", "text": "region=eu\nkey=[X]\n"}


def test_words_behind_base64_stay_unredactable() -> None:
    part = {"type": "file", "file": {"file_data": "data:text/plain;base64,emVicmE="}}
    asked = WIRES["openai-chat"].ask({**REQUESTS["openai-chat"], "messages": [{"role": "user", "content": [part]}]})
    (hidden,) = [message for message in asked.messages if message.where.endswith("#decoded")]
    with pytest.raises(FirewallError) as error:
        asked.rewrite([Span(hidden.where, 0, 5)], lambda _: "[X]")
    assert hidden.text == "zebra" and error.value.code == "unredactable"


def cut_out(text: str, hits: list[tuple[int, int]]) -> str | None:
    spots = sound(text, hits)
    for start, end, quote, _ in reversed(spots or []):
        text = text[:start] + quote + "[X]" + quote + text[end:]
    return None if spots is None else text


@pytest.mark.parametrize("text, pattern, want", [
    (r'{"a":"go\nbob@x"}', "nbob@x", r'{"a":"go\n[X]"}'),
    (r'{"a":"\\nbob@x"}', "nbob@x", r'{"a":"\\[X]"}'),
    (r'{"a":"\ud83d\ude00bob@x\u0041"}', "de00bob@x.u00", r'{"a":"\ud83d\ude00[X]\u0041"}'),
    (r'{"a":"1\u00412"}', "004", r'{"a":"1[X]2"}'),
    ('{"key":"hunter2","n":1}', 'key":"hunter2', '{"[X]":"[X]","n":1}'),
    ('{"n":41112222,"m":[4111]}', "4111", '{"n":"[X]","m":["[X]"]}'),
    ('{"n":41112222', "4111", '{"n":"[X]"'),
    (r'{"j":"{\"n\":4111,\"s\":\"a\\nbob@x\"}"}', "4111|nbob@x", r'{"j":"{\"n\":\"[X]\",\"s\":\"a\\n[X]\"}"}'),
    (r'{"a":"bob@x\u00', "bob@x.u0", r'{"a":"[X]\u00'),
    ('{"a":"b"}\n{"a":4}', "4", '{"a":"b"}\n{"a":"[X]"}'),
    ('{"a":"b"}', ":", None), (r"{\nabla}", "nabla", r"{\[X]}"), ("[2] 4111 1111", r"4111 1111", "[2] [X]"),
    ("[4111 1111]", r"4111 1111", "[[X]]"), (r"a\nbob@x", "nbob@x", r"a\[X]")])
def test_json_stays_json_whatever_is_hit(text: str, pattern: str, want: str | None) -> None:
    assert cut_out(text, [hit.span() for hit in re.finditer(pattern, text)]) == want


@given(JSON, st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=4), st.booleans())
def test_json_stays_json_wherever_it_is_hit(value: Any, hits: list[tuple[int, int]], ascii_: bool) -> None:
    text = orjson.dumps({"v": value, "w": "zebra"}).decode()
    text = escaped(text) if ascii_ else text
    apart: list[tuple[int, int]] = []
    for start, size in sorted(hits):
        if start < len(text) and (not apart or start >= apart[-1][1]):
            apart.append((start, min(start + size, len(text))))
    out = cut_out(text, apart)
    assert out is None or orjson.loads(out)


@given(JSON, st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=6), st.integers(0, 60))
def test_a_text_that_grows_is_cut_the_same(value: Any, hits: list[tuple[int, int]], more: int) -> None:
    """With what was read of it before, or without."""
    text = escaped(orjson.dumps({"v": value, "w": ["zebra", 4111]}).decode())
    read = Read()
    for start, size in hits:
        hit = [(start, start + size)]
        so_far = text[:start + size + more]
        assert sound(so_far, hit, read=read) == sound(so_far, hit)


def test_json_stays_json_in_a_request() -> None:
    """A hit that begins in an escape, and one on a number: what is forwarded can be read."""
    asked = WIRES["openai-chat"].ask(called('{"text":"Hello\\nbob@x.org","n":4111}'))
    text = next(m.text for m in asked.messages if m.where.endswith("arguments"))
    where = "messages.0.tool_calls.0.function.arguments"
    spans = [Span(where, *hit.span()) for hit in re.finditer("nbob@x.org|4111", text)]
    out = orjson.loads(asked.rewrite(spans, lambda _: "[X]"))
    assert orjson.loads(out["messages"][0]["tool_calls"][0]["function"]["arguments"]) == {"text": "Hello\n[X]", "n": "[X]"}
    with pytest.raises(FirewallError):
        asked.rewrite([Span(where, text.index(":"), text.index(":") + 1)], lambda _: "[X]")


LINES = "".join(f'line {n} "so" of a long text, from user{n}@x.org' + " and more" * 10 + "\n" for n in range(600))


@pytest.mark.parametrize("value", [LINES, orjson.dumps({"t": LINES, "n": 1}).decode()])
def test_one_long_string_that_grows_is_read_once(value: str) -> None:
    """Of each verdict only what is new: all of it each time took half a minute; JSON in the string too."""
    text = orjson.dumps({"path": "a.txt", "content": value}).decode()
    places = [hit.span() for hit in re.finditer(r"user\d+@x\.org", text)]
    read, spent = Read(), 0.0
    for place in places:
        so_far = text[:place[1] + 30]
        began = time.process_time()
        spots = sound(so_far, [place], read=read)
        spent += time.process_time() - began
        assert spots == [(*place, "", 0)]
    assert len(places) == 600 and spent < 2.0


@pytest.mark.parametrize("text", [
    '{"a":"' + "x\\n" * 400_000 + ' bob@x.org"}', '{"a":"' + "\\" * 1_000_000 + 'bob@x.org"}',
    "[" + '{"n":1,"s":"x"},' * 70_000 + '"bob@x.org"]'], ids=["escapes", "backslashes", "items"])
def test_one_hit_in_a_large_text_costs_little(text: str) -> None:
    """A request is redacted on the event loop: no list has an entry for every character."""
    place = (text.index("bob"), text.index("bob") + 9)
    tracemalloc.start()
    began = time.process_time()
    spots = sound(text, [place])
    spent, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert spots == [(*place, "", 0)] and spent < 0.5 and peak < 1_000_000


def test_what_takes_too_many_steps_is_not_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "STEPS", 1000)
    assert sound("[" * 900 + '"bob@x.org"', [(901, 910)]) and sound("[" * 1000 + '"bob@x.org"', [(1001, 1010)]) is None


def test_after_a_refusal_a_text_is_read_from_the_beginning() -> None:
    read, text = Read(), r'{"a":"[\"bob@x\", \"eve@x\"]"}'
    bob, eve = (text.index(name) for name in ("bob", "eve"))
    for hit in ((bob, bob + 5), (eve - 4, eve - 3), (eve, eve + 5)):
        assert sound(text, [hit], read=read) == sound(text, [hit])


def test_what_would_take_long_to_trace_is_not_traced() -> None:
    text = '"' + r"a\n" * (origin.TRACED // 3) + 'b"'
    assert origins(text, decoded(text), [(0, 1)]) is None
