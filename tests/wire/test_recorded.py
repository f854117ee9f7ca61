"""E01, E03: every recording, in every legal framing, cut anywhere: the same words, and every byte comes back."""

from __future__ import annotations

import random

import orjson
import pytest

from firewall.wire.wire import StreamLimits
from tests.wire.streams import STREAMS, Stream, heard, listen, needs_shared, said, shape

pytestmark = needs_shared
ENDS = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}
by_name = pytest.mark.parametrize("stream", STREAMS, ids=[s.name for s in STREAMS])


@by_name
def test_it_is_read_whole_and_ends(stream: Stream) -> None:
    data = stream.framed()
    frames = heard(reader := listen(stream.wire), data)
    assert b"".join(frame.raw for frame in frames) == data
    assert reader.complete and not frames[-1].pending
    assert sum(frame.last for frame in frames) == 1
    assert sum(len(words) for words in said(frames).values()) > 0


@by_name
def test_line_ends_change_nothing(stream: Stream) -> None:
    want = [frame.pieces for frame in heard(listen(stream.wire), stream.framed()) if frame.pieces]
    for end in ENDS.values():
        frames = heard(listen(stream.wire), stream.framed(end))
        assert [frame.pieces for frame in frames if frame.pieces] == want


@by_name
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_cuts_change_nothing(stream: Stream, end: bytes) -> None:
    data = stream.framed(end)
    want = shape(heard(listen(stream.wire), data))
    if len(data) < 4_000:
        assert shape(heard(listen(stream.wire), *[data[i:i + 1] for i in range(len(data))])) == want
    rng = random.Random(stream.name)
    for _ in range(2 if len(data) > 50_000 else 6):
        cuts = sorted(rng.sample(range(len(data)), min(40, len(data))))
        parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert shape(heard(listen(stream.wire), *parts)) == want


@pytest.mark.slow
@by_name
def test_one_byte_at_a_time(stream: Stream) -> None:
    for end in ENDS.values():
        data = stream.framed(end)
        want = shape(heard(listen(stream.wire), data))
        assert shape(heard(listen(stream.wire), *[data[i:i + 1] for i in range(len(data))])) == want


@by_name
def test_moulds_read_what_the_full_way_reads(stream: Stream) -> None:
    data = stream.framed()
    plain = listen(stream.wire)
    plain._learn = lambda *_: None              # type: ignore[attr-defined]
    want = shape(heard(plain, data))
    assert shape(heard(listen(stream.wire), data)) == want
    alone = data.replace(b"\n\n", b"\n\n\0").split(b"\0")      # every event in its own piece: the shortest way
    assert shape(heard(listen(stream.wire), *alone)) == want


@by_name
def test_copies_say_the_same_again(stream: Stream) -> None:
    """With `copies` every word of every event is a piece; without, each word of a channel is one once."""
    once = said(heard(listen(stream.wire), stream.framed()))
    again = said(heard(listen(stream.wire, limits=StreamLimits(copies=True)), stream.framed()))
    assert {channel: again.get(channel) for channel in once if not channel.endswith("/copy")} == {
        channel: words for channel, words in once.items() if not channel.endswith("/copy")}


@by_name
def test_cut_short_is_a_fault(stream: Stream) -> None:
    from firewall.errors import FirewallError
    reader = listen(stream.wire)
    half = stream.framed()[:len(stream.framed()) // 2]
    if len(stream.events) < 6 or stream.name.count("tool-search") or "programmatic" in stream.name:
        pytest.skip("several answers in one recording, or too short")
    reader.feed(half)
    if not reader.complete:
        with pytest.raises(FirewallError) as error:
            reader.close()
        assert error.value.code == "upstream_truncated" and error.value.fault == "upstream"


def test_every_event_is_strict_json() -> None:
    for stream in STREAMS:
        for event in stream.events:
            assert isinstance(orjson.loads(event), dict)
