"""Headers: both directions are allow-lists."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import FirewallError, GuardDown
from firewall.exchange import Exchange
from firewall.proxy import headers
from firewall.verdict import Decision

NAMES = st.sampled_from([b"cookie", b"x-forwarded-for", b"host", b"connection", b"transfer-encoding", b"x-tenant-id",
                         b"traceparent", b"content-length", b"content-encoding", b"expect", b"te", b"upgrade", b"range",
                         b"accept", b"accept-encoding", b"user-agent", *headers.CREDENTIALS, *sorted(headers.FORWARD)])


@given(st.lists(st.tuples(NAMES, st.just(b"value")), max_size=12), st.booleans(), st.booleans())
def test_only_listed_headers_go_upstream(pairs: list[tuple[bytes, bytes]], ours: bool, private: bool) -> None:
    out = headers.forward(tuple(pairs), b"x-api-key: ours\r\n" if ours else b"", private)
    names = [line.split(b":")[0] for line in out.removesuffix(b"\r\n").split(b"\r\n")]
    fixed = {b"content-type", b"accept", b"accept-encoding", b"x-api-key"}
    assert set(names) <= fixed | headers.FORWARD | set(headers.CREDENTIALS)
    if ours or private:
        assert out.count(b"ours") == ours and not any(n in headers.CREDENTIALS for n in names if n != b"x-api-key")
        assert names.count(b"x-api-key") == ours


def test_nobody_elses_headers_come_back() -> None:
    upstream = ((b"set-cookie", b"a=b"), (b"server", b"x"), (b"retry-after", b"3"), (b"x-ratelimit-limit", b"9"),
                (b"content-encoding", b"gzip"), (b"content-length", b"5"), (b"x-evil", b"1"), (b"location", b"/"))
    lines = headers.answer(b"text/event-stream", upstream, Exchange("r", "w")).lower()
    assert b"retry-after: 3" in lines and b"x-ratelimit-limit: 9" in lines and b"no-cache" in lines
    for name in (b"cookie", b"server", b"encoding", b"length", b"evil", b"location"):
        assert name not in lines


def test_tenants_are_keyed_and_anonymous_has_one_name() -> None:
    assert headers.tenant(b"k", b"s1") == headers.tenant(b"k", b"s1") != headers.tenant(b"k", b"s2")
    assert headers.tenant(b"", b"s") == "anonymous" and "key" not in headers.tenant(b"key", b"s")


@pytest.mark.parametrize(("value", "key"), [(b"Bearer abc", b"abc"), (b"bearer  abc ", b"abc"), (b"abc", b"abc"),
                                            (b"Basic abc", b"Basic abc")])
def test_the_bare_key(value: bytes, key: bytes) -> None:
    assert headers.presented(((b"authorization", value),)) == key


def test_refusals_say_whether_to_retry() -> None:
    exchange = Exchange("r", "w", digest="d")
    exchange.decided("input", Decision("block", ("p/1",)))
    lines = headers.refusal(exchange)
    assert b"x-should-retry: false" in lines and b"x-firewall-policy: p/1" in lines
    down = headers.refusal(Exchange("r", "w"), GuardDown(retry_after=0.2))
    assert b"retry-after: 1\r\n" in down and b"x-firewall-decision: error" in down
    assert b"retry-after" not in headers.refusal(Exchange("r", "w"), FirewallError("x", "y"))


def test_an_open_failure_is_never_an_allow() -> None:
    exchange = Exchange("r", "w")
    assert exchange.label == "unjudged"
    exchange.decided("input", Decision("allow", (), ("guard_timeout",)))
    assert exchange.label == "flag" and b"x-firewall-decision: flag" in headers.ours(exchange)
    assert exchange.record()["input"] == "flag" and exchange.record()["errors"] == ["guard_timeout"]


@given(st.binary(max_size=40) | st.from_regex(rb"[0-9]{0,12}\.?[0-9]{0,3}", fullmatch=True))
def test_any_retry_after_is_a_number_or_nothing(said: bytes) -> None:
    seconds = headers.patience(((b"retry-after", said),))
    assert seconds is None or 0 <= seconds < 1e12


def test_retry_after_is_seconds_or_a_date() -> None:
    def asked(said: bytes) -> float | None:
        return headers.patience(((b"server", b"x"), (b"retry-after", said)))

    assert (asked(b"7"), asked(b" 1.5 "), asked(b"0")) == (7.0, 1.5, 0.0)
    assert asked(b"soon") is asked(b"nan") is asked(b"1e9") is asked(b"-1") is headers.patience(()) is None
    assert 85 < (asked(formatdate(time.time() + 90, usegmt=True).encode()) or 0) < 91
    assert asked(b"Fri, 31 Dec 1999 23:59:59 GMT") == 0.0
