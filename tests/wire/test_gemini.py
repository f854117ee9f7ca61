"""Gemini: a refused answer has the form that its verb answers in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from firewall.config import Config
from firewall.errors import FirewallError
from firewall.gate import Gate
from firewall.guards.limits import Limits
from firewall.guards.scripted import ScriptedGuard
from firewall.proxy.redact import Redaction
from firewall.proxy.serve import Firewall
from firewall.transcript import Transcript
from firewall.verdict import Span
from tests.story.upstream import Upstream, whole
from tests.wire.streams import ask, code, events, heard, listen, said

ROW = {"candidates": [{"content": {"role": "model", "parts": [{"text": "well"}]}, "finishReason": "STOP"}]}


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_without_events_is_an_array(stream: bool) -> None:
    wire, asked = ask("gemini")
    asked = replace(asked, stream=stream)
    bodies = [wire.withheld(asked, "no", "r"),
              wire.reader(asked, b"application/json").ending(None, "no")]
    for body in map(orjson.loads, bodies):
        row = body[0] if stream else body
        assert isinstance(body, list) == stream and row["candidates"][0]["finishReason"] == "SAFETY"
    event = wire.reader(asked, b"text/event-stream").ending(None, "no")
    assert event.startswith(b'data: {"candidates":')


@pytest.mark.parametrize("verb, form", [("generateContent", dict), ("streamGenerateContent", list)])
async def test_it_is_blocked_in_its_own_form(verb: str, form: type, tmp_path: Path) -> None:
    (tmp_path / "canary.md").write_text("---\nid: canary\naction: block\n---\n## Violates\n- `canary/1` Says it.\n")
    base = Config()
    async with Upstream([[whole([ROW] if form is list else ROW)]]) as upstream:
        config = replace(base, server=replace(base.server, listen="127.0.0.1:0", admin="127.0.0.1:0", drain_wait=0.0),
                        upstream=replace(base.upstream, url=upstream.url),
                        policies=replace(base.policies, folder=str(tmp_path)),
                        records=replace(base.records, file=str(tmp_path / "records.jsonl")))
        async with Firewall(config, Limits(ScriptedGuard({"well": "canary/1"}), memory=0)) as firewall:
            async with aiohttp.ClientSession() as session, session.post(
                    f"{firewall.url}/v1beta/models/g:{verb}", json={"contents": [{"parts": [{"text": "hi"}]}]}) as got:
                body = await got.json()
    assert got.status == 200 and isinstance(body, form)
    assert (body[0] if form is list else body)["candidates"][0]["finishReason"] == "SAFETY"


def call(reason: str = "", **fields: Any) -> dict[str, Any]:
    more = {"finishReason": reason} if reason else {}
    return {"candidates": [{"index": 0, "content": {"parts": [{"functionCall": fields}]}, **more}]}


def part(path: str, text: str, **more: Any) -> dict[str, Any]:
    return call(partialArgs=[{"jsonPath": path, "stringValue": text}], willContinue=True, **more)


BEGIN, END = call(name="f", willContinue=True), call("STOP")


def test_streamed_arguments_are_apart() -> None:
    """A value that ends where the next begins would make one word of two."""
    frames = heard(listen("gemini"), events(
        BEGIN, part("$.user", "dep"), part("$.user", "loy"), part("$.key", "AKIA"), part("$.key", "IOSF"), END))
    assert said(frames) == {"choice/0/tool/0/name": "f", "choice/0/tool/0/path": "$.user$.key",
                            "choice/0/tool/0/arguments": "\ndeploy\nAKIAIOSF"}


def test_an_argument_that_comes_back_is_refused() -> None:
    with pytest.raises(FirewallError) as error:
        heard(listen("gemini"), events(BEGIN, part("$.a", "AKIA"), part("$.b", "x"), part("$.a", "IOSF"), END))
    assert code(error) == "unreadable_event"


@pytest.mark.parametrize("end", [[END], [call(), END], [call("STOP", name="g", args={})],
                                 [{"candidates": [{"index": 0, "finishReason": "STOP"}]}]],
                         ids=["with the candidate", "alone", "by the next", "by a reason"])
def test_escapes_of_streamed_arguments_are_undone(end: list[dict[str, Any]]) -> None:
    """As of a call that comes whole, however it ends and wherever the escape is cut."""
    frames = heard(listen("gemini"), events(BEGIN, part("$.a", "run \\u00"), part("$.a", "7aebra"), *end))
    assert "run zebra" in said(frames)["choice/0/tool/0/arguments/decoded"]
    assert [frame.pending for frame in frames][:3] == [True, True, True]


@pytest.mark.parametrize("text", ["see zebra", "see \\u007aebra"])
def test_redaction_of_streamed_arguments(text: str) -> None:
    reader, gate, transcript = listen("gemini"), Gate(), Transcript()
    parts = call(partialArgs=[{"jsonPath": "$.b", "stringValue": text}, {"jsonPath": "$.c", "stringValue": "more"}],
                 willContinue=True)
    frames = heard(reader, events(BEGIN, part("$.a", "first"), parts, part("$.c", "!"), END))
    for frame in frames:
        for channel, words in frame.pieces:
            transcript.add(channel, words, gate.mark)
        gate.push(frame)
    spans = [Span(channel, words.find("zebra"), words.find("zebra") + 5) for channel, words in said(frames).items()
             if "zebra" in words]
    assert spans and Redaction(gate, transcript).apply(spans, (), reader)
    gate.close()
    again = said(heard(listen("gemini"), b"".join(frame.raw for frame in gate.clear(gate.mark))))
    assert again["choice/0/tool/0/arguments"] == "\nfirst\nsee [redacted]\nmore!"
