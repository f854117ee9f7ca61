"""The short ways through ordinary documents are the long ones, earlier: same words, same refusals, same state."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import FirewallError
from firewall.wire import body, openai_chat, request
from firewall.wire.anthropic import Answer
from firewall.wire.body import BodyLimits, strict
from firewall.wire.dialects import WIRES
from firewall.wire.leaves import SPOKEN, inert, leaves, trie
from firewall.wire.openai_chat import Chat, OpenAIChat
from firewall.wire.sealed import Unread
from firewall.wire.usual import choice, message
from firewall.wire.vocabulary import KEYS
from firewall.wire.wire import Asked

Pairs = list[tuple[str, str]]

NUMBERS = ["0", "-1", "1.0", "1.5", "1e3", "1E400", "-0", "9.3e18", "9223372036854775808", "-9223372036854775809",
           "18446744073709551615", "18446744073709551616", "123456789012345678901234", "0.10", "01"]
NAMES = ["id", "ID", "text", "content", "input", "\\u0069d", "a\\\\", "x", "K", "\u212a", "n" * 70, ""]
TEXTS = ['""', '"a"', '"\\":"', '":"', '"\u00e9"', '"\\u00e9"', '"\\ud800"', '"a/b"', '"a\\/b"']


def written(pairs: Pairs) -> str:
    return "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"


def keyed(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=4).map(written)


JSON = st.recursive(st.sampled_from([*NUMBERS, *TEXTS, "null", "true"]), lambda inner: keyed(inner) | st.lists(
    inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]"), max_leaves=8)


def read(raw: bytes, limits: BodyLimits, fault: Any, fold: bool, glance: Any = body.few) -> Any:
    try:
        return strict(raw, limits, fault=fault, fold=fold, glance=glance)
    except FirewallError as error:
        return error.code, error.detail


@given(keyed(JSON), st.sampled_from(["client", "upstream"]), st.booleans(), st.sampled_from(
    [BodyLimits(), BodyLimits(depth=2), BodyLimits(key=2), BodyLimits(nodes=4, answer=4)]))
def test_a_body_is_read_as_strictly(text: str, fault: str, fold: bool, limits: BodyLimits) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    slow = read(raw, limits, fault, fold, lambda tree: False)
    assert read(raw, limits, fault, fold) == slow


def test_few_containers_and_known_keys_are_usual() -> None:
    assert body.few({"messages": [{"role": "user", "content": "x"}]})
    assert not body.few({"messages": [{"role": "user", "zork": "x"}]})
    assert body.few({"messages": [{}] * (body.FEW - 2)}) and not body.few({"messages": [{}] * (body.FEW - 1)})


def _few(tree: dict[str, Any]) -> bool:
    """One container after the other."""
    todo: list[Any] = [tree]
    for node in todo:
        if type(node) is dict and not KEYS.issuperset(node):
            return False
        todo += [value for value in (node.values() if type(node) is dict else node) if type(value) in (dict, list)]
    return len(todo) <= body.FEW


TREES = st.recursive(st.sampled_from([None, "x", 1]), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
    st.sampled_from(["id", "messages", "content", "text", "zork"]), inner, max_size=3), max_leaves=12)


@given(st.dictionaries(st.sampled_from(["messages", "tools", "n", "metadata"]), TREES), st.integers(1, 9))
def test_all_messages_at_once_are_as_few(tree: dict[str, Any], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body, "FEW", most)
        assert body.few(tree) == _few(tree)


def test_tight_limits_hold_for_usual_bodies() -> None:
    deep, long = b'{"text":[[1]]}', b'{"content":1}'
    assert read(deep, BodyLimits(depth=2), "client", True)[0] == "too_deep" and read(deep, BodyLimits(), "client", True)
    assert read(long, BodyLimits(key=6), "client", True)[0] == "key_too_long"


def test_no_name_of_the_protocols_is_another_in_capitals() -> None:
    """And all are short: who has only such keys has no key twice for a case-blind reader, and no long one."""
    assert len({key.casefold() for key in KEYS}) == len(KEYS) and max(map(len, KEYS)) <= body.FEW
    assert not any("\\" in key for key in KEYS)


ASKED = ["model", "n", "max_tokens", "logprobs", "metadata", "container", "tokenizer", "guardrails", "conversation", "store"]
VALUES: list[Any] = [None, False, "", "x", 1, -1, 10**9, [], {}, {"id": ""}, {"api_base": "x"}]


def refused_alike(document: dict[str, Any]) -> None:
    def said() -> Any:
        try:
            return request.inspectable(document)
        except FirewallError as error:
            return error.code, error.param

    quick = said()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "_HELD", frozenset(document))
        assert said() == quick


@given(st.dictionaries(st.sampled_from(ASKED), st.sampled_from(VALUES)))
def test_a_request_is_refused_alike(document: dict[str, Any]) -> None:
    refused_alike(document)


def test_a_request_with_one_odd_field_is_refused_alike() -> None:
    for name in {*ASKED, *request.CONTROL, *request.STORED, *request.MOST}:
        for value in VALUES:
            refused_alike({name: value})


TURNS = st.dictionaries(st.sampled_from(["role", "role", "content", "content", "name", "x"]), st.sampled_from(
    ["user", "system", "zork", "", "words", None, 1, [], ["user"], {}, {"role": "user"}, [{"type": "text", "text": "w"}]]))
PLAIN = st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "assistant", "user", "zork"]),
                               "content": st.sampled_from(["", "a", "b", None])})
BESIDE: dict[str, Any] = {"model": ["m", "two words", "", None, 1, "x" * 129], "stream": [True, False, None, "x"],
                          "temperature": [0.5], "modalities": [["text"], ["audio"], "audio", None], "audio": [None, {}],
                          "zork": [1, "x"], "stop": ["a"], "max_tokens": [1, -2], "tools": [[{"name": "t"}]]}


def asks(document: dict[str, Any]) -> Any:
    try:
        asked = OpenAIChat().ask(document)
    except FirewallError as error:
        return error.code, error.param
    return [tuple(said) for said in asked.messages], asked.model, asked.stream, asked.sizes, asked.opaque


@given(st.lists(PLAIN | PLAIN | TURNS, max_size=4) | st.sampled_from(
    [None, "ab", 1, {}, {"ab": 1}, [1], ["ab"], [[1, 2]], [None]]),
       st.fixed_dictionaries({"model": st.sampled_from(BESIDE["model"])}, optional={
           key: st.sampled_from(values) for key, values in BESIDE.items() if key != "model"}))
def test_a_usual_request_says_the_same(messages: Any, beside: dict[str, Any]) -> None:
    document = {"messages": messages, **beside}
    quick = [asks(document), asks(document)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_chat, "turns", lambda *_: None)
        patch.setattr(openai_chat, "NAMED", frozenset())
        assert quick == [asks(document)] * 2


def test_many_messages_say_the_same() -> None:
    for number in (1, request.MANY, request.MANY + 1):
        document = {"model": "m", "messages": [{"role": "user", "content": "x"}] * number}
        assert asks(document)[0] == [("user", "x", f"messages.{i}.content") for i in range(number)]


def test_names_of_models_are_kept_in_bounds() -> None:
    for i in range(3 * request.MANY):
        assert request.named(f"model-{i}") and not request.named(f"a model {i}")
    assert 0 < len(request.NAMED) <= request.MANY and all(" " not in name for name in request.NAMED)


ODD: list[Any] = [None, "", "x", "two words", "assistant", "tool", "stop", 0, 1, True, 1.5, False, 0.0, -0.0,
                  [], ["x"], [1, 2], {}, {"id": 1},
                  {"a b": 1}, {"prompt_tokens": 1, "total_tokens": 2}, {"input": {"tokens": 1}}, {"token_ids": [1]},
                  {"prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": None}}, {"cost": "much"},
                  {"cost": {"details": "much"}}, {"cost": {"two words": 1}}, {"cost": {"token_ids": [1]}}, {"details": {}},
                  {"token_ids": 5}, {"cost": {"token_ids": 5}},
                  {"service_tier": "batch"}, {"service_tier": "zork"}, {"iterations": [{"type": "message"}]}, "end_turn",
                  "message", "text", {"iterations": "x"}]
MESSAGE = {"role": "assistant", "content": "Hello."}
CHOICE = {"index": 0, "message": MESSAGE, "finish_reason": "stop"}
ANSWER = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE],
          "usage": {"prompt_tokens": 1}}
FIELDS = (["id", "object", "created", "model", "usage", "system_fingerprint", "service_tier", "obfuscation", "error",
           "prompt_token_ids", "citations", "zork", "provider", "input"],
          ["index", "logprobs", "finish_reason", "stop_reason", "token_ids", "text", "delta", "zork"],
          ["role", "content", "refusal", "reasoning", "reasoning_content", "tool_calls", "annotations", "audio", "token_ids",
           "function_call", "zork", "thinking"])


def near(fields: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(fields), st.sampled_from(ODD), max_size=2)


BLOCK = {"type": "text", "text": "Hello."}
SPEAKS = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [BLOCK], "stop_reason": "end_turn",
          "stop_sequence": None, "usage": {"input_tokens": 1, "service_tier": "standard"}}
OF_BLOCKS = (["id", "type", "role", "model", "stop_reason", "stop_sequence", "stop_details", "usage", "container", "error",
              "zork", "index", "input", "content"],
             ["type", "text", "thinking", "citations", "input", "signature", "id", "zork", "data", "name"])


def heard(speech: Chat | Answer, document: dict[str, Any], quick: bool) -> Any:
    """All that a reader takes of a speech."""
    try:
        found = speech.glance(document) if quick else None
        if found is None:
            found = speech.read(document, True)
            found += speech.finish()
        else:
            assert KEYS.issuperset(body._keys(document, body.FEW, "client")[0])
    except (FirewallError, AttributeError, TypeError) as error:     # a reader makes one of all that breaks
        return getattr(error, "code", "broken")
    rows = document.get("choices") or document.get("content") or [None]
    first = rows[0] if type(rows) is list else None
    holders = [first] + list(first.values() if type(first) is dict else ())
    return ([(*leaf, [n for n, holder in enumerate(holders) if leaf.holder is holder and holder]) for leaf in found],
            speech.after, speech.last, speech.complete, speech.pending, speech.opaque, speech.finish(),
            getattr(speech, "id", ""))


def law(top: dict[str, Any], beside: dict[str, Any], said: dict[str, Any], sent: dict[str, Any], number: int = 1) -> None:
    one = {**CHOICE, "message": {**MESSAGE, **said}, **beside}
    document = {**ANSWER, **top, "choices": [one] * number}
    asked = Asked("m", False, (), sent)
    assert choice(ANSWER) == [("choice/0/text", "Hello.", MESSAGE, "content")]      # and a like one is known
    assert heard(Chat(asked), document, True) == heard(Chat(asked), document, False)


def law_of_blocks(top: dict[str, Any], said: dict[str, Any], number: int = 1) -> None:
    document = {**SPEAKS, "content": [{**BLOCK, **said}] * number, **top}
    asked = Asked("m", False, (), {})
    assert heard(Answer(asked), document, True) == heard(Answer(asked), document, False)


def test_an_answer_with_one_odd_field_says_the_same() -> None:
    for fields, place in zip(FIELDS, range(3), strict=True):
        for key in fields:
            for value in ODD:
                law(*({key: value} if n == place else {} for n in range(3)), {})
    for fields, place in zip(OF_BLOCKS, range(2), strict=True):
        for key in fields:
            for value in ODD:
                law_of_blocks(*({key: value} if n == place else {} for n in range(2)))
    for number in (0, 1, 2):
        law({}, {}, {}, {}, number)
        law_of_blocks({}, {}, number)


@given(near(FIELDS[0]), near(FIELDS[1]), near(FIELDS[2]), st.sampled_from([{}, {"n": 1}, {"n": 2}, {"n": "2"}, {"n": 0}]),
       st.sampled_from([1, 1, 1, 0, 2]))
def test_an_answer_says_the_same(top: dict[str, Any], beside: dict[str, Any], said: dict[str, Any], sent: dict[str, Any],
                                 number: int) -> None:
    law(top, beside, said, sent, number)


@given(near(OF_BLOCKS[0]), near(OF_BLOCKS[1]), st.sampled_from([1, 1, 1, 0, 2]))
def test_a_message_says_the_same(top: dict[str, Any], said: dict[str, Any], number: int) -> None:
    law_of_blocks(top, said, number)


@given(st.dictionaries(st.sampled_from(["content", "reasoning", "reasoning_content", "thinking", "refusal", "role"]),
                       st.sampled_from(["", "x", "y", "assistant", None, []])))
def test_the_words_of_a_message_are_the_same(said: dict[str, Any]) -> None:
    law({}, {}, said, {})


STYLES: list[Any] = [{"separators": (",", ":")}, {"separators": (",", ":"), "ensure_ascii": False}, {}, {"indent": 2}]


@given(near(FIELDS[0]), near(FIELDS[2]), st.sampled_from(STYLES), st.sampled_from(
    ["", "", " ", "x", ',"id":"x"}', ',"\\u0069d":"x"}', ',"cost":1e3}', ',"cost":123456789012345678901}']))
def test_an_answer_is_read_as_strictly(top: dict[str, Any], said: dict[str, Any], style: Any, end: str) -> None:
    document = {**ANSWER, **top, "choices": [{**CHOICE, "message": {**MESSAGE, "content": "d\u00e9j\u00e0", **said}}]}
    text = json.dumps(document, **style)
    raw = (text[:-1] + end if end[:1] == "," else text + end).encode()

    def frames() -> Any:
        reader = OpenAIChat().reader(Asked("m", False, (), {}), b"application/json")
        try:
            return reader.feed(raw) + reader.close(), reader.complete, reader.opaque
        except FirewallError as error:
            return error.code, error.detail

    quick = frames()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chat, "glance", lambda speech, document: None)
        patch.setattr("firewall.wire.reader.few", lambda tree: False)
        assert frames() == quick


def test_most_answers_are_usual() -> None:
    assert choice(ANSWER)
    deep = {"prompt_tokens_details": {"cached_tokens": 0}}
    assert choice({**ANSWER, "usage": deep}) and choice({**ANSWER, "usage": {"completion_tokens_details": deep}}) is None
    vllm = {**ANSWER, "system_fingerprint": None, "service_tier": None, "prompt_logprobs": None, "choices": [{
        **CHOICE, "logprobs": None, "stop_reason": None, "token_ids": None, "message": {
            **MESSAGE, "refusal": None, "annotations": None, "audio": None, "function_call": None, "tool_calls": [],
            "reasoning_content": "Hm."}}]}
    for known in (vllm, ANSWER):
        found = [leaf.text for leaf in choice(known) or ()]
        assert found and found == [leaf.text for leaf in choice(known) or ()]
    assert [leaf.path for leaf in message(SPEAKS) or ()] == ["block/0/text"]
    assert [leaf.path for leaf in choice(vllm) or ()] == ["choice/0/text", "choice/0/reasoning"]
    assert choice({**ANSWER, "choices": [{**CHOICE, "message": {**MESSAGE, "tool_calls": [{"id": "x"}]}}]}) is None


def test_what_is_inert_at_a_look_has_no_words() -> None:
    """At every place that any dialect's answers have, with any key there and some beside."""
    for wire in WIRES.values():
        todo = [trie(wire.inert_answer)]    # type: ignore[attr-defined]
        for place in todo:
            todo += [node for node in place.values() if type(node) is dict]
            shaped = [word for shape in place.values() if type(shape) is frozenset for word in sorted(shape)[:3]]
            for key in (*place, "type", "input", "logprobs", "token_ids", "zork"):
                for value in (*ODD, *shaped, [[]], [{}], "a" * 200, "A" * 64):
                    opaque = Unread()
                    found = leaves({key: value}, place, "", opaque=opaque)
                    assert not (inert(place, key, value) and (found or opaque or opaque.spoken))
    assert inert({"id": "token"}, "id", "resp_1") and not inert({"id": "token"}, "id", "two words")


@given(JSON, st.sampled_from([{}, {"x": SPOKEN}, {"input": SPOKEN}, {"content.id": SPOKEN}]))
def test_numbers_under_known_names_are_silent_unless_spoken(text: str, inert: dict[str, Any]) -> None:
    """A number stands for itself in a list of one: a walk that takes every step finds as many words."""
    try:
        tree = orjson.loads(text.encode("utf-8", "surrogatepass"))
    except orjson.JSONDecodeError:
        return
    found = [(leaf.path, leaf.text) for leaf in leaves({"content": tree}, trie(inert))]
    assert sum("#" not in path for path, _ in found) == _spoken({"content": tree}, trie(inert))


def _spoken(value: Any, node: Any) -> int:
    """How many words and spoken numbers there are, key by key."""
    if type(value) is dict:
        return sum(_spoken(inner, SPOKEN if node == SPOKEN or (key == "input" and type(inner) is dict) else node.get(key)
                           if type(node) is dict else None) for key, inner in value.items())
    if type(value) is list:
        if value and all(type(item) is int for item in value) and node != SPOKEN:
            return 0
        return sum(_spoken(item, SPOKEN if node == SPOKEN else None) for item in value)
    return int(bool(value) if type(value) is str else node == SPOKEN and type(value) in (int, float))
