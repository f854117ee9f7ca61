"""O-cover (D33, F31): a random word put into any string leaf, or in place of any key, of a recorded event or a rich
request is among the judged words, or its path is on the published list of inert paths and the word has the shape that
the list asks for, or the document is refused."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from firewall.errors import FirewallError
from firewall.wire.body import document as strict
from firewall.wire.dialects import WIRES
from firewall.wire.leaves import MEDIA, passes
from firewall.wire.vocabulary import KEYS
from tests.wire.asked import RICH
from tests.wire.streams import REQUESTS, STREAMS, events, heard, listen, needs_shared

ODD = "zq{:x} odd"  # with a space: no token, no base64, no padding
PLAIN = "zq{:x}odd"


def places(node: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(path pattern, container, key) of every string leaf."""
    out: list[tuple[str, Any, Any]] = []
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        name = path + "[]" if isinstance(node, list) else f"{path}.{key}" if path else key
        if isinstance(value, str):
            out.append((name, node, key))
        elif isinstance(value, dict | list):
            out += places(value, name)
    return out


def objects(node: Any) -> list[dict[str, Any]]:
    out = [node] if isinstance(node, dict) else []
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, dict | list):
            out += objects(value)
    return out


def words_of_answer(wire: str, event: dict[str, Any]) -> str:
    reader = listen(wire)
    frames = reader.feed(events(event))
    frames += [*reader.feed(b"data: [DONE]\n\n")] if wire in ("openai-chat", "openai-completions") else []
    return "\n".join(piece.text for frame in frames for piece in frame.pieces)


def words_of_request(wire: str, body: dict[str, Any]) -> str:
    asked = WIRES[wire].ask(strict(orjson.dumps(body)))
    return "\n".join(message.text for message in asked.messages)


def inert(table: Any, path: str, word: str, holder: Any) -> bool:
    return path in table and passes(table[path], word, holder)


def check_leaf(rng: random.Random, wire: str, table: Any, source: dict[str, Any], listener: Any) -> None:
    copy = orjson.loads(orjson.dumps(source))
    spots = places(copy)
    if not spots:
        return
    path, holder, key = rng.choice(spots)
    word = (ODD if rng.random() < 0.5 else PLAIN).format(rng.getrandbits(64))
    holder[key] = word
    try:
        said = listener(wire, copy)
    except FirewallError:
        return
    assert word in said or word in said.replace('\\"', '"') or inert(table, path, word, holder), (wire, path)


def check_key(rng: random.Random, wire: str, source: dict[str, Any], listener: Any) -> None:
    copy = orjson.loads(orjson.dumps(source))
    holder = rng.choice([node for node in objects(copy) if node])
    word = PLAIN.format(rng.getrandbits(64))
    old = rng.choice(list(holder))
    new = {word if key == old else key: value for key, value in holder.items()}
    holder.clear()
    holder.update(new)
    try:
        assert word in listener(wire, copy), (wire, old)
    except FirewallError:
        return


@needs_shared
def test_every_leaf_of_recorded_events(runs: int = 4000) -> None:
    rng = random.Random(7)
    pool = [
        (stream.wire, orjson.loads(event))
        for stream in STREAMS
        for event in rng.sample(stream.events, min(60, len(stream.events)))
    ]
    for _ in range(runs):
        wire, event = rng.choice(pool)
        check_leaf(rng, wire, WIRES[wire].inert_answer, event, words_of_answer)  # type: ignore[attr-defined]
        check_key(rng, wire, event, words_of_answer)


@needs_shared
@pytest.mark.slow
def test_every_leaf_of_recorded_events_at_length() -> None:
    test_every_leaf_of_recorded_events(40_000)


@pytest.mark.parametrize("wire", RICH)
def test_every_leaf_of_rich_requests(wire: str) -> None:
    rng = random.Random(wire)
    table = WIRES[wire].inert  # type: ignore[attr-defined]
    for path, _, _ in places(RICH[wire]):
        for _ in range(4):
            copy = orjson.loads(orjson.dumps(RICH[wire]))
            spots = [spot for spot in places(copy) if spot[0] == path]
            _, holder, key = rng.choice(spots)
            word = rng.choice((ODD, PLAIN)).format(rng.getrandbits(64))
            holder[key] = word
            try:
                said = words_of_request(wire, copy)
            except FirewallError:
                continue
            assert word in said or inert(table, path, word, holder), path
    for _ in range(400):
        check_key(rng, wire, RICH[wire], words_of_request)


@pytest.mark.parametrize("wire", RICH)
def test_rich_requests_are_accepted(wire: str) -> None:
    said = words_of_request(wire, RICH[wire])
    for word in ("be kind", "look", "Rome", "sunny", "The weather", "someone", "STOP"):
        assert (word in said) == (word in orjson.dumps(RICH[wire]).decode()), word
    assert "the notes" in said or "notes" not in orjson.dumps(RICH[wire]).decode() or wire.startswith("openai")


@pytest.mark.parametrize("wire", WIRES)
def test_unknown_fields_are_words(wire: str) -> None:
    body = {**REQUESTS[wire], "brand_new": {"nested": ["zq new words"]}}
    assert "zq new words" in words_of_request(wire, body) and "brand_new" in words_of_request(wire, body)


@pytest.mark.parametrize("wire", WIRES)
def test_inert_paths_are_published(wire: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The list, printed with `-s`; no path of words is on it, and its keys are protocol words."""
    for table in (WIRES[wire].inert, WIRES[wire].inert_answer):  # type: ignore[attr-defined]
        for path, kind in sorted(table.items()):
            print(wire, path, " ".join(sorted(kind)) if isinstance(kind, frozenset) else kind)
            assert kind == MEDIA or path.rstrip(".").rsplit(".", 1)[-1].removesuffix("[]") not in (
                "text",
                "content",
                "arguments",
                "thinking",
                "refusal",
                "reasoning",
                "partial_json",
                "name",
                "description",
                "stop",
                "user",
                "instructions",
                "prompt",
                "title",
                "query",
                "output",
                "logs",
            )
            assert all(step.removesuffix("[]") in KEYS or step == "Authorization"       # a twin of `authorization`
                       for step in path.rstrip(".").split(".") if step != "[]"), path
    assert wire in capsys.readouterr().out


def test_split_words_are_whole_on_their_channel() -> None:
    """F02, F04, F06, F08, F21: a word over 2 to 8 deltas."""
    rng = random.Random(3)
    makers: dict[str, Any] = {
        "openai-chat": [
            lambda t: {"choices": [{"index": 0, "delta": {"content": t}}]},
            lambda t: {"choices": [{"index": 0, "delta": {"refusal": t}}]},
            lambda t: {"choices": [{"index": 0, "delta": {"reasoning_content": t}}]},
            lambda t: {"choices": [{"index": 0, "delta": {"reasoning": t, "reasoning_content": t}}]},
            lambda t: {"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": t}]}}]},
            lambda t: {
                "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 1, "function": {"arguments": t}}]}}]
            },
            lambda t: {"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"arguments": t}}]}}]},
            lambda t: {"choices": [{"index": 0, "delta": {"function_call": {"arguments": t}}}]},
            lambda t: {"choices": [{"index": 0, "delta": {"brand_new": {"text": t}}}]},
        ],
        "anthropic-messages": [
            lambda t: {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": t}},
            lambda t: {"type": "content_block_delta", "index": 2, "delta": {"type": "thinking_delta", "thinking": t}},
            lambda t: {
                "type": "content_block_delta",
                "index": 2,
                "delta": {"type": "input_json_delta", "partial_json": t},
            },
            lambda t: {"type": "content_block_delta", "index": 2, "delta": {"type": "new_delta", "news": t}},
        ],
        "openai-responses": [
            lambda t: {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": t},
            lambda t: {
                "type": "response.reasoning_summary_text.delta",
                "output_index": 1,
                "summary_index": 0,
                "delta": t,
            },
            lambda t: {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": t},
        ],
        "openai-completions": [lambda t: {"choices": [{"index": 0, "text": t}]}],
        "gemini": [
            lambda t: {"candidates": [{"content": {"parts": [{"text": t}]}}]},
            lambda t: {"candidates": [{"content": {"parts": [{"text": t, "thought": True}]}}]},
        ],
    }
    for wire, rows in makers.items():
        for make in rows:
            for parts in range(2, 9):
                word = f"zebra{rng.getrandbits(64):x}"
                cuts = sorted(rng.sample(range(1, len(word)), parts - 1))
                bits = [word[a:b] for a, b in zip([0, *cuts], [*cuts, len(word)], strict=True)]
                reader = listen(wire)
                frames = [f for bit in bits for f in reader.feed(events(make(bit)))]
                joined: dict[str, str] = {}
                for frame in frames:
                    for channel, text in frame.pieces:
                        joined[channel] = joined.get(channel, "") + text
                if wire == "openai-responses" and "delta" not in str(make("x")):
                    continue
                assert word in joined.values(), (wire, make("x"), joined)


def test_same_channels_streamed_or_not() -> None:
    whole = {
        "id": "x",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": "text",
                    "refusal": "no",
                    "reasoning_content": "hm",
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
            }
        ],
    }
    frames = heard(listen("openai-chat", b"application/json"), orjson.dumps(whole))
    delta = dict(whole["choices"][0]["message"])  # type: ignore[index]
    streamed = heard(
        listen("openai-chat"),
        events(
            {"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": "tool_calls"}]},
            done=True,
        ),
    )
    assert [p for f in frames for p in f.pieces] == [p for f in streamed for p in f.pieces]


@pytest.mark.parametrize(
    ("wire", "around"),
    [
        ("openai-chat", lambda new: {"choices": [{"index": 0, "delta": new}]}),
        ("openai-completions", lambda new: {"choices": [{"index": 0, "text": "", **new}]}),
        (
            "anthropic-messages",
            lambda new: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "", **new}},
        ),
        ("gemini", lambda new: {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "", **new}]}}]}),
        ("ollama-chat", lambda new: {"message": {"role": "assistant", "content": "", **new}, "done": False}),
    ],
)
def test_an_unknown_field_has_one_channel_wherever_it_stands(wire: str, around: Any) -> None:
    """Words cut over events belong together, whatever stands beside them and in whatever order."""
    reader = listen(wire)
    said: dict[str, str] = {}
    first = {"brand": "how to ho", "newer": {"deep": "I will ki", "other": "x"}}
    second = {"newer": {"other": "y", "deep": "ll you"}, "extra": "-", "brand": "twire"}
    for new in (first, second):
        for frame in reader.feed(events(around(new))):
            for piece in frame.pieces:
                said[piece.channel] = said.get(piece.channel, "") + piece.text
    assert {"how to hotwire", "I will kill you", "xy", "-"} <= set(said.values()), said
