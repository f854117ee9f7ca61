"""Responses: whatever an event says outside the known deltas is judged, joined, and costs no stack."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from firewall.wire.dialects import WIRES
from firewall.wire.frame import Frame
from firewall.wire.wire import Reader, StreamLimits
from tests.wire.streams import REQUESTS, said

SHELL = "response.shell_call_output_content"
END = {"type": "response.completed", "response": {"id": "r", "object": "response", "status": "completed"}}
both = pytest.mark.parametrize("copies", [False, True], ids=["folded", "copies"])


def reader(copies: bool) -> Reader:
    wire = WIRES["openai-responses"]
    return wire.reader(wire.ask(REQUESTS[wire.name]), b"text/event-stream", StreamLimits(copies=copies))


def frames(events: list[dict[str, Any]], copies: bool = False) -> list[Frame]:
    read = reader(copies)
    found = [frame for number, event in enumerate([*events, END])
             for frame in read.feed(b"data: " + orjson.dumps({**event, "sequence_number": number}) + b"\n\n")]
    return found + read.close()


def heard(events: list[dict[str, Any]], copies: bool = False) -> dict[str, str]:
    return said(frames(events, copies))


def shell(delta: Any) -> dict[str, Any]:
    return {"type": f"{SHELL}.delta", "output_index": 1, "command_index": 2, "delta": delta}


@both
def test_deltas_of_a_shell_are_one_text(copies: bool) -> None:
    events = [shell({"stdout": text, "stderr": text.upper()}) for text in ("bo", "mb", "bo", "!")]
    assert heard(events, copies) == {"item/1/output/2/stdout": "bombbo!", "item/1/output/2/stderr": "BOMBBO!"}


@both
@pytest.mark.parametrize("delta", ["bomb", ["bomb"], {"zebra": {"deep": "bomb"}}], ids=["text", "list", "object"])
def test_deltas_of_any_shape_are_words(delta: Any, copies: bool) -> None:
    for name in (f"{SHELL}.delta", "response.new.delta", "response.output_text.delta"):
        assert any("bomb" in words for words in heard([{**shell(delta), "type": name}], copies).values())
    done = {"type": f"{SHELL}.done", "output_index": 1, "command_index": 2, "output": delta}
    assert any("bomb" in words for words in heard([done], copies).values())


def test_what_a_shell_said_in_the_end_is_a_copy() -> None:
    done = {"outcome": {"type": "exit", "exit_code": 0}, "stdout": "bomb", "stderr": ""}
    events = [shell({"stdout": "bo"}), shell({"stdout": "mb"}),
              {"type": f"{SHELL}.done", "output_index": 1, "command_index": 2, "output": [done]}]
    assert heard(events) == {"item/1/output/2/stdout": "bomb"}
    assert heard([*events[:2], {**events[2], "output": [done, {"stdout": "more"}]}])["item/1/output/3/stdout"] == "more"
    assert heard([*events[:2], {**events[2], "output": [{**done, "stdout": "other"}]}]) == {
        "item/1/output/2/stdout": "bomb", "item/1/output/2/stdout/copy": "other"}


@both
def test_a_new_field_is_one_growing_text(copies: bool) -> None:
    """No word is split over channels, however often its values repeat, and items are kept apart."""
    texts = ["bo", "mb", "bo", "mb"]
    told = heard([{"type": "response.in_progress", "flavour": text} for text in texts], copies)
    assert "bombbomb" in told.values()
    mixed = [{"type": "response.new.delta", "output_index": n % 2, "delta": text}
             for n, text in enumerate(("bo", "x", "mb", "y"))]
    told = heard(mixed, copies)
    assert told["event/0/0/delta"] == "bomb" and told["event/1/0/delta"] == "xy"


@both
@pytest.mark.parametrize("event", [
    lambda n: shell({"stdout": f"line {n}\n"}),
    lambda n: {"type": "response.in_progress", "flavour": f"sort {n}"},
    lambda n: {"type": "response.audio.delta", "delta": f"a{n}"},
    lambda n: {"type": f"response.new{n}.delta", "delta": "x"},
    lambda n: {"type": "response.in_progress", "response": {"flavour": f"sort {n}"}},
    lambda n: {"type": "response.output_text.done", "output_index": 0, "text": f"whole {n}"},
], ids=["shell", "field", "audio", "type", "response", "copies"])
def test_thousands_of_values_cost_no_stack(event: Any, copies: bool) -> None:
    found = frames([event(n) for n in range(3000)], copies)
    pieces = [piece for frame in found for piece in frame.pieces]
    assert len(pieces) >= 3000 and max(piece.channel.count("copy") for piece in pieces) <= 1


def test_copies_that_differ_are_said_once() -> None:
    events = [{"type": "response.output_text.done", "output_index": 0, "text": text} for text in "abcbca"]
    assert heard(events) == {"item/0/content/0/text": "a", "item/0/content/0/text/copy": "bc"}


@both
def test_redaction_of_shell_deltas(copies: bool) -> None:
    read = reader(copies)
    for delta in ({"stdout": "a bomb"}, "a bomb"):
        frame, = read.feed(b"data: " + orjson.dumps(shell(delta)) + b"\n\n")
        raw = read.rewrite(frame, ["a ****"])
        assert b"bomb" not in raw and b"a ****" in raw


@both
@pytest.mark.parametrize("end", ["response.incomplete", "response.completed", "response.failed", "error"])
@pytest.mark.parametrize("begun", ["", '{"a":"run \\u00'], ids=["by deltas", "at the start"])
def test_a_call_that_is_cut_short_is_shown_decoded(end: str, begun: str, copies: bool) -> None:
    """Without `output_item.done`: what a terminal event closes is as whole as it gets."""
    item = {"type": "function_call", "id": "f", "call_id": "c", "name": "n", "arguments": begun}
    rest = "7aebra" if begun else '{"a":"run \\u007aebra'
    events = [{"type": "response.output_item.added", "output_index": 0, "item": item},
              {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "f", "delta": rest},
              {"type": end, "response": {"id": "r", "status": "incomplete", "output": []}}]
    found = [frame for frame in frames(events, copies) if frame.last]
    assert "run zebra" in said(found)["item/0/arguments/decoded"] and not found[0].pending
