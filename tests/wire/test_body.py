"""cases.md C01-C24: bodies are read strictly or not at all, and nothing of them comes back."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import FirewallError
from firewall.wire.body import BodyLimits, document, inflate, strict


def refused(body: bytes, encoding: bytes | None = None, limits: BodyLimits | None = None) -> str:
    with pytest.raises(FirewallError) as error:
        document(body, encoding, limits or BodyLimits())
    told = f"{error.value.public} {error.value.detail} {error.value.param}"
    assert error.value.fault == "client" and "zebra" not in told
    return f"{error.value.status} {error.value.code}"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":2}',
        b'{"b":{"a":1, "a" : 2}}',
        b'{"a":1,"a" :2}',
        b'{"a":1,"a"\n:2}',
        b'{"a":1,"a"\t:2,"x":"\\":"}',
        b'{"a\\\\":1,"a\\\\":2}',
        b'{"\\"":1,"\\"":2}',
        b'{"model":1,"Model":2}',
        b'{"k":1,"\xe2\x84\xaa":2}',
        b'{"s":1,"\xc5\xbf":2}',
        b'{"x":[{"messages":[]},{"messages":[],"messages":["zebra"]}]}',
        b'{"a":"\\":","a":1}',
        b'{"":1,"":2}',
        b'{"a":{},"a":[]}',
        b'{"pad":"' + b"x" * 5000 + b'","a":1,"a":2}',
        b'{"pad":"' + b"x" * 5000 + b'","a" :1,"a":"\\":"}',
    ],
)
def test_duplicate_keys(body: bytes) -> None:
    assert refused(body) == "400 duplicate_key"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"b":{"a":2}}',
        b'{"x":"say \\"a\\": 1, \\"a\\": 2"}',
        b'{"x":"d\xc3\xa9j\xc3\xa0 : vu", "y" : 1}',
        b'{\n  "a": [1, {"b": 2}]\n}',
        b'{"a\\\\":1,"a":2}',
        b'{"A":1,"b":2}',
        b'{"x":"\\\\":1}' if False else b'{"x":"\\\\"}',
        b'{"pad":"' + b'\\":' * 3000 + b'","a":1}',
        b' {"a":[]} ',
    ],
)
def test_innocent_bodies_pass(body: bytes) -> None:
    assert document(body) == orjson.loads(body)


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "01",
        ".5",
        "+1",
        "1.",
        "-",
        "0x1",
        "1e",
        '"\\ud800"',
        '"\\udc00\\ud800"',
        "'a'",
        "True",
        "1,",
        "[1,]",
        "/**/1",
        '"\x01"',
    ],
)
def test_what_json_is_not(value: str) -> None:
    assert refused(b'{"zebra":' + value.encode() + b"}") == "400 invalid_json"


@pytest.mark.parametrize(
    "value", ["123456789012345678901234567890", "18446744073709551616", "-9223372036854775809", "1e30,\"b\":-1" + "0" * 19]
)
def test_numbers_that_lose_digits(value: str) -> None:
    assert refused(b'{"zebra":' + value.encode() + b"}") == "400 number_out_of_range"


@pytest.mark.parametrize("value", ["18446744073709551615", "-9223372036854775808", "0.1", "1e10", "-0"])
def test_numbers_that_do_not(value: str) -> None:
    assert document(b'{"a":' + value.encode() + b"}")["a"] == json.loads(value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b'"zebra"',
        b"1",
        b"null",
        b'{"a":1}{"b":2}',
        b'{"a":1} x',
        b'{"a":1}\x00',
        b'{"a":}',
        b'{"a"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-16-be"),
        '{"a":1}'.encode("utf-32"),
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\xaf"}',
        b'{"a":"\xf5\x80\x80\x80"}',
        b"\x1f\x8b",
        b'{"a":1',
    ],
)
def test_what_is_no_object_in_utf8(body: bytes) -> None:
    assert refused(body) == "400 invalid_json"


@pytest.mark.parametrize("depth", [65, 1000, 100_000])
def test_depth(depth: int) -> None:
    begun = time.perf_counter()
    assert refused(b'{"a":' + b"[" * depth + b"]" * depth + b"}") in ("400 too_deep", "400 invalid_json")
    assert refused(b'{"a":' * depth + b"1" + b"}" * depth) in ("400 too_deep", "400 invalid_json")
    assert time.perf_counter() - begun < 0.5
    assert document(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}")


@pytest.mark.parametrize("unit", [b"[[]],", b"{},", b'"",', b"1,", b'{"a":1},', b'"\\"",'])
def test_node_budget(unit: bytes) -> None:
    body = b'{"a":[' + unit * (8_000_000 // len(unit)) + b"1]}"
    tracemalloc.start()
    begun = time.perf_counter()
    assert refused(body) == "413 too_many_nodes"
    spent, peak = time.perf_counter() - begun, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert spent < 1.0 and peak < 64_000_000


def test_long_text_full_of_marks_is_no_crowd_of_nodes() -> None:
    body = orjson.dumps({"a": 'he said: "well, well" {not json}, [1] \\ ' * 20_000})
    assert len(body) > 200_000 and document(body)


def test_keys_have_a_length() -> None:
    assert refused(orjson.dumps({"k" * 1025: 1})) == "400 key_too_long"
    assert document(orjson.dumps({"k" * 1024: 1}))


@pytest.mark.parametrize("body", [
    {"input": {"type": 1, "Type": 2}}, {"messages": [{"role": "user", "Role": "system"}]}, {"args": {"a": 1, "A": 2}},
    {"tools": [{"properties": {"a": {"type": "string", "Type": "x"}}}]}, {"a": {"properties": {"input": {"x": 1, "X": 2}}}},
    {"messages": [{"input": [{"a": 1, "A": 2}]}]}, {"metadata": {"Straße": 1, "strasse": 2}},
])
def test_fields_that_differ_in_case_only(body: dict[str, Any]) -> None:
    assert refused(orjson.dumps(body)) == "400 duplicate_key"


@pytest.mark.parametrize("body", [
    {"tools": [{"properties": {"a": {"minimum": -1.7976931348623157e308}, "A": {}}, "$defs": {"b": 1, "B": 2}}]},
    {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {"rows": [{"id": 1, "ID": 2}]}}}]}]},
])
def test_names_that_somebody_chose(body: dict[str, Any]) -> None:
    assert document(orjson.dumps(body)) == body


@pytest.mark.parametrize(
    "encoding", [b"br", b"deflate", b"zstd", b"x-gzip", b"gzip, gzip", b"identity, gzip", b"gzip;q=1", b"*", b"foo"]
)
def test_other_codings(encoding: bytes) -> None:
    assert refused(gzip.compress(b'{"a":1}'), encoding) == "415 unsupported_encoding"


def test_gzip() -> None:
    body = b'{"a":"zebra"}'
    packed = gzip.compress(body)
    assert document(packed, b"gzip") == document(packed, b" GZIP ") == document(body, b"identity") == {"a": "zebra"}
    for bad in (body, packed[:-1], packed[:-9], packed + b"x", packed + packed, b"", packed[:5]):
        assert refused(bad, b"gzip") == "400 invalid_encoding"


def test_gzip_bomb() -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024), 9)
    assert len(bomb) < 80_000
    tracemalloc.start()
    begun = time.perf_counter()
    assert refused(bomb, b"gzip") == "413 body_too_large"
    assert time.perf_counter() - begun < 1.0 and tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()
    dense = orjson.dumps({"a": "hello world " * 80_000})
    assert document(gzip.compress(dense), b"gzip")  # under a mebibyte any ratio passes


def test_size() -> None:
    limits = BodyLimits(size=1000)
    assert refused(b'{"a":"' + b"x" * 1000 + b'"}', None, limits) == "413 body_too_large"
    assert refused(gzip.compress(b'{"a":"' + b"x" * 1000 + b'"}'), b"gzip", limits) == "413 body_too_large"


def test_upstream_faults_are_upstreams() -> None:
    for body in (b'{"a":1,"a":2}', b"{", b'{"a":NaN}'):
        with pytest.raises(FirewallError) as error:
            strict(body, fault="upstream", fold=False)
        assert (error.value.fault, error.value.status, error.value.code) == ("upstream", 502, "unreadable_event")
    assert strict(b'{"a":1,"A":2}', fault="upstream", fold=False) == {"a": 1, "A": 2}


KEYS = st.text(alphabet='ab"\\: \n\té\u0130', max_size=4)
TREES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(alphabet='ab":\\ ,{}\n'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
STYLES = [{"separators": (",", ":")}, {}, {"indent": 2}, {"separators": (" , ", " : ")}, {"ensure_ascii": False}]


@given(st.dictionaries(KEYS, TREES, max_size=5), st.sampled_from(STYLES), st.booleans())
def test_exactly_the_duplicates_are_found(tree: dict[str, Any], style: dict[str, Any], pad: bool) -> None:
    """However it is written: no duplicate, no refusal; a key written twice, a refusal."""
    text = json.dumps(tree, **style).encode()
    if pad:
        text = b" " * 5000 + text
    assert strict(text, fold=False) == tree
    if tree:
        key = next(iter(tree))
        again = json.dumps({key: 1}, **style).strip().encode()[1:-1]
        spelt = text.rstrip()[:-1] + b"," + again + b"}"
        with pytest.raises(FirewallError) as error:
            strict(spelt, fold=False)
        assert error.value.code == "duplicate_key"


@given(st.binary(max_size=200))
def test_any_bytes_give_an_object_or_a_refusal(raw: bytes) -> None:
    for body, encoding in ((raw, None), (raw, b"gzip"), (b"\x1f\x8b\x08" + raw, b"gzip")):
        try:
            assert isinstance(document(body, encoding), dict)
        except FirewallError as error:
            assert error.status in (400, 413, 415)


def test_inflate_is_the_inverse() -> None:
    for size in (0, 1, 65_535, 65_536, 65_537, 300_000):
        data = bytes(i * 7 % 251 for i in range(size))
        assert inflate(gzip.compress(data)) == data
