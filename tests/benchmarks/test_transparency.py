from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.transparency import of, ours, recordings, transparency

FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures" / "streams"


async def test_ours_are_equal_for_every_cut() -> None:
    got = await transparency(None)
    assert got["differ"] == [] and got["equal"] == got["runs"] >= 8
    assert set(got["dialects"]) == {"chat", "anthropic"}


def test_dialects_are_told_by_their_events() -> None:
    assert of([b'{"object":"chat.completion.chunk","choices":[]}']) == "chat"
    assert of([b'{"type":"message_start"}']) == "anthropic"
    assert of([b'{"type":"response.created"}']) == "responses"
    assert of([b'{"candidates":[]}']) == "gemini"
    assert of([b"nothing", b'{"type":"v2-message"}']) == ""


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="no recordings")
def test_recordings_are_framed_both_ways() -> None:
    found = recordings(FIXTURES)
    assert len(found) > 40 and {s.dialect for s in found} >= {"chat", "anthropic"}
    plain = next(s for s in found if s.dialect == "anthropic" and not s.name.endswith("+crlf"))
    twin = next(s for s in found if s.name == plain.name + "+crlf")
    assert twin.body.replace(b"\r\n", b"\n") == plain.body


def test_without_a_folder_ours_are_taken() -> None:
    assert recordings(None) == ours()
