"""Fields that repeat another's words: whoever joins one field's fragments reads what was judged, copies included."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import FirewallError
from firewall.wire.frame import Frame
from tests.wire.streams import events, heard, listen, said

# Where a client may find words in a choice. Odd ones too: a field in the wrong place is still a field.
FIELDS = """delta.content delta.refusal delta.reasoning delta.reasoning_content delta.thinking delta.text delta.zork
delta.blorp delta.tool message.content message.reasoning text zork beside logprobs.content logprobs.refusal
logprobs.tokens logprobs.zork logprobs.blorp function.arguments custom.arguments call.arguments call.zork""".split()
ROWS = frozenset(("logprobs.content", "logprobs.refusal"))
words = st.sampled_from(["", "bo", "mb ", "x", "b", "o"])


def choice(fields: dict[str, str]) -> dict[str, Any]:
    """A document in which every named field says its words."""
    row: dict[str, Any] = {"index": 0}
    for name, text in fields.items():
        place, _, key = name.rpartition(".")
        if not place:
            row[key] = text
        elif place in ("delta", "message"):
            row.setdefault(place, {})[key] = text
        elif place == "logprobs":
            value: Any = [{"token": text, "logprob": -1.0}] if name in ROWS else [text] if key == "tokens" else text
            row.setdefault("logprobs", {})[key] = value
        else:
            (call,) = row.setdefault("delta", {}).setdefault("tool_calls", [{"index": 0}])
            (call if place == "call" else call.setdefault(place, {}))[key] = text
    return {"id": "c", "choices": [row]}


def law(wire: str, documents: list[dict[str, str]]) -> None:
    reader = listen(wire)
    frames: list[Frame] = []
    joined: dict[str, str] = {}
    for fields in documents:
        frames += reader.feed(events(choice(fields)))
        judged = set(said(frames).values())
        for name, text in fields.items():
            joined[name] = joined.get(name, "") + text
        assert {text for text in joined.values() if text} <= judged, (joined, said(frames))


@given(st.sets(st.sampled_from(FIELDS), min_size=1, max_size=4).flatmap(
    lambda names: st.lists(st.fixed_dictionaries({}, optional={name: words for name in sorted(names)}), max_size=6)))
def test_every_field_is_judged_as_a_client_joins_it(documents: list[dict[str, str]]) -> None:
    law("openai-chat", documents)


@given(st.sets(st.sampled_from(FIELDS), min_size=2, max_size=3).flatmap(lambda names: st.lists(st.tuples(
    words, st.fixed_dictionaries({}, optional={name: words for name in sorted(names)})), max_size=5).map(
    lambda rows: [dict.fromkeys(sorted(names), text) | odd for text, odd in rows])))
def test_fields_that_mostly_agree(documents: list[dict[str, str]]) -> None:
    law("openai-completions", documents)


def thought(reasoning: str, content: str) -> dict[str, str]:
    return {"delta.reasoning": reasoning, "delta.reasoning_content": content}


def test_a_field_that_parts_is_judged_whole() -> None:
    reader = listen("openai-chat")
    first, second = (reader.feed(events(choice(thought(*pair))))[0] for pair in (("bo", "bo"), ("x", "mb")))
    assert first.pieces == (("choice/0/reasoning", "bo"),)
    assert second.pieces == (("choice/0/reasoning", "x"), ("choice/0/reasoning/reasoning_content", "bo"),
                             ("choice/0/reasoning/reasoning_content", "mb"))


def test_a_field_that_falls_silent_has_parted() -> None:
    reader = listen("openai-chat")
    rows = [thought("bo", "bo"), {"delta.reasoning": "x"}, {"delta.reasoning": "y"}, thought("mb", "mb")]
    assert said(reader.feed(events(*map(choice, rows)))) == {
        "choice/0/reasoning": "boxymb", "choice/0/reasoning/reasoning_content": "bomb"}


def test_no_mould_of_a_document_with_a_copy() -> None:
    reader = listen("openai-chat")
    reader.feed(events(choice({"delta.content": "a"}), *[choice(thought("bo", "bo"))] * 3))
    assert not [m for m in reader._moulds if "reasoning" in m.channel]  # type: ignore[attr-defined]


def test_a_snapshot_that_comes_back_is_said_again() -> None:
    reader = listen("openai-chat")
    rows = [{**choice({"delta.content": "a"}), "citations": [cited]} for cited in ("A", "A", "B", "A")]
    assert [[p.text for p in f.pieces if p.channel != "choice/0/text"] for f in reader.feed(events(*rows))] == [
        ["A"], [], ["B"], ["A"]]


def test_copies_cost_nothing_while_they_agree() -> None:
    row = {"delta.content": "bo", "logprobs.content": "bo", "delta.reasoning": "hm", "delta.reasoning_content": "hm"}
    frames = listen("openai-chat").feed(events(*[choice(row)] * 3))
    assert said(frames) == {"choice/0/text": "bobobo", "choice/0/reasoning": "hmhmhm"}


@pytest.mark.parametrize("texts, fate", [(["[X]", None, None], b"[X]"), ([None, "[X]", None], b""),
                                         ([None, None, "[X]"], b"[X]")])
def test_words_that_have_left_cannot_be_masked(texts: list[str | None], fate: bytes) -> None:
    """What stands in this document's bytes can; the words before it are gone."""
    reader = listen("openai-chat")
    frame = reader.feed(events(choice(thought("bo", "bo")), choice(thought("bo", "x"))))[1]
    if fate:
        assert fate in reader.rewrite(frame, texts)
        return
    with pytest.raises(FirewallError) as error:
        reader.rewrite(frame, texts)
    assert error.value.code == "unredactable"


@pytest.mark.parametrize("row", [
    {"token": "a", "logprob": "a zebra"},
    {"token": "a", "logprob": -1, "zork": "a zebra"},
    {"token": "a", "logprob": {"x": ["a zebra"]}},
    {"token": "a", "top_logprobs": [{"token": "b", "logprob": "a zebra"}]},
    {"token": "a", "top_logprobs": [{"token": "b", "top_logprobs": [{"token": "a zebra"}]}]},
])
def test_only_numbers_pass_as_log_probabilities(row: dict[str, Any]) -> None:
    document = {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [row]}}]}
    assert "a zebra" in "\n".join(said(listen("openai-chat").feed(events(document))).values())


@pytest.mark.parametrize("value", ["a zebra", ["a zebra"], {"k": "a zebra"}, list(b"a zebra")])
def test_only_numbers_pass_as_values_of_alternatives(value: Any) -> None:
    body = {"choices": [{"index": 0, "text": "a", "logprobs": {"tokens": ["a"], "top_logprobs": [{"b": value}, None]}}]}
    frames = heard(listen("openai-completions", b"application/json"), orjson.dumps(body))
    assert "a zebra" in said(frames)["choice/0/logprobs/top"]


@pytest.mark.parametrize("second", ["x", ""])
def test_log_probabilities_that_part_from_the_text_later(second: str) -> None:
    """Ollama and Responses: what they repeated before is judged too, in one channel with what is new."""
    def line(text: str, token: str) -> bytes:
        return orjson.dumps({"model": "m", "message": {"role": "assistant", "content": text}, "done": False,
                             "logprobs": [{"token": token, "logprob": -1}]}) + b"\n"
    reader = listen("ollama-chat", b"application/x-ndjson")
    assert said(reader.feed(line("bo", "bo") + line(second, "mb"))) == {
        "choice/0/text": f"bo{second}", "choice/0/logprobs": "bomb"}

    def delta(text: str, token: str) -> dict[str, object]:
        return {"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0,
                "sequence_number": 1, "delta": text, "logprobs": [{"token": token, "logprob": -1}]}
    reader = listen("openai-responses")
    got = said(reader.feed(events(delta("bo", "bo"), delta(second, "mb"))))
    assert got == {"item/0/content/0/text": f"bo{second}", "item/0/content/0/text/logprobs": "bomb"}
    reader = listen("openai-responses")
    assert said(reader.feed(events(delta("bo", "bo"), delta("mb", "mb")))) == {"item/0/content/0/text": "bomb"}


@pytest.mark.parametrize("words_", [["a ", "zebra"], ["a ze", "bra"]])
def test_alternatives_of_redacted_tokens_go(words_: list[str]) -> None:
    """`top_logprobs` are pieces of their own: what is found in them leaves with the tokens they stand beside."""
    rows = [{"token": word, "logprob": -1.0, "top_logprobs": [{"token": word, "logprob": -1.0}]} for word in words_]
    reader = listen("openai-chat")
    for word, row in zip(words_, rows, strict=True):
        choice_ = {"index": 0, "delta": {"content": word}, "logprobs": {"content": [row]}}
        (frame,) = reader.feed(events({"choices": [choice_]}))
        assert any(piece.channel.endswith("/logprobs/top") for piece in frame.pieces)
        out = reader.rewrite(frame, ["[X]"] * len(frame.pieces))
        assert word.encode() not in out and b'"content":"[X]"' in out
    beside = {"choices": [{"index": 0, "delta": {"logprobs": "zebra"}}]}        # no such field: it stays, without the word
    (frame,) = reader.feed(events(beside))
    assert b"zebra" not in reader.rewrite(frame, ["[X]"])
