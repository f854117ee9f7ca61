"""D27: base64 passes as opaque where it is a picture, a sound, a film or a PDF by name, or no text by itself."""

from __future__ import annotations

import os
import zlib
from base64 import b64encode, urlsafe_b64encode
from typing import Any

import pytest

from firewall.wire.dialects import WIRES
from firewall.wire.leaves import DATA, MEDIA, TOKEN, leaves, trie
from firewall.wire.wire import Asked

WORDS = "how to build a zebra, as told in the Café"
PNG = b"\x89PNG\r\n\x1a\n" + zlib.compress(os.urandom(600))
PLACE = trie({"data": MEDIA, "url": DATA, "mimeType": TOKEN, "mime_type": TOKEN, "media_type": TOKEN})
OPAQUE = ["image/png", "IMAGE/PNG", " image/jpeg ; q=1", "audio/wav", "video/mp4", "application/pdf", "font/woff2"]
READ = ["text/plain", "Text/plain", "TEXT/PLAIN; charset=utf-8", "", " ", ";base64", "application/yaml", "application/json",
        "application/x-javascript", "image/svg+xml", "Image/SVG+xml; a=b", "application/xml", "application/octet-stream",
        "application/zip", "zebra", "textplain", "x" * 200]


def b64(data: bytes | str) -> str:
    return b64encode(data if isinstance(data, bytes) else data.encode()).decode()


def read(**holder: Any) -> tuple[list[str], list[str]]:
    """(words, opaque paths) of a document."""
    opaque: list[str] = []
    return [leaf.text for leaf in leaves(holder, PLACE, opaque=opaque)], opaque


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("name", ["mimeType", "mime_type", "media_type"])
def test_text_is_read_however_its_kind_is_spelled(kind: str, name: str) -> None:
    said, opaque = read(data=b64(WORDS), **{name: kind})
    assert WORDS in said and not opaque
    if kind.strip() == kind:
        said, opaque = read(url=f"data:{kind};base64,{b64(WORDS)}")
        assert WORDS in said and not opaque


@pytest.mark.parametrize("kind", OPAQUE)
def test_what_is_no_text_by_name_is_opaque(kind: str) -> None:
    assert read(data=b64(WORDS), mimeType=kind)[1] == ["data"]
    assert read(data=b64(PNG), mimeType=kind)[1] == ["data"]
    assert read(url=f"data:{kind};base64,{b64(PNG)}") == ([], ["url"])


@pytest.mark.parametrize("kind", [None, "application/zip", "application/octet-stream", "application/msword", "zebra"])
@pytest.mark.parametrize("data", [PNG, b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0" + bytes(2000), bytes(64)],
                         ids=["picture", "silence", "zeros"])
def test_what_does_not_read_as_text_is_opaque(kind: str | None, data: bytes) -> None:
    said, opaque = read(data=b64(data), **({} if kind is None else {"mimeType": kind}))
    assert opaque == ["data"] and b64(data) not in said


def test_one_kind_of_many_that_is_text() -> None:
    """Readers differ in which of two names they believe."""
    assert WORDS in read(data=b64(WORDS), media_type="image/png", mimeType="text/plain")[0]
    assert WORDS in read(data=b64(WORDS), media_type="text/plain", mimeType="image/png")[0]
    assert WORDS in read(data=f"data:image/png;base64,{b64(WORDS)}", mimeType="text/plain")[0]


@pytest.mark.parametrize("data", [
    b64(WORDS).rstrip("="), "\r\n".join((b64(WORDS)[:20], b64(WORDS)[20:])), urlsafe_b64encode(WORDS.encode()).decode(),
    b64(WORDS.encode("utf-16")), b64("\ufeff" + WORDS), b64(b"\xff" + WORDS.encode()), b64(b"\0" + WORDS.encode()),
    b64(WORDS.encode("utf-16-le")), b64(WORDS.encode("latin-1")),
], ids=["unpadded", "lines", "alphabet", "utf-16", "mark", "bad byte", "zero", "utf-16-le", "latin-1"])
@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/octet-stream", None])
def test_text_in_disguise(data: str, kind: str | None) -> None:
    said, opaque = read(data=data, **({} if kind is None else {"mimeType": kind}))
    assert any("how to build a zebra" in words for words in said) and not opaque


@pytest.mark.parametrize("data", ["not base64!", "aGk=aGk=", "a"])
def test_what_is_no_base64_is_words(data: str) -> None:
    assert read(data=data, mimeType="application/zip") == ([data], [])
    assert read(data="aGVsbG8gd29ybGQ", type="text", media_type="image/png")[0][0] == "aGVsbG8gd29ybGQ"


def asked(kind: str) -> list[Asked]:
    data = b64(WORDS)
    return [
        WIRES["gemini"].ask({"contents": [{"parts": [{"inlineData": {"mimeType": kind, "data": data}}]}]}),
        WIRES["openai-chat"].ask({"model": "m", "messages": [{"role": "user", "content": [
            {"type": "file", "file": {"filename": "a.txt", "file_data": f"data:{kind};base64,{data}"}}]}]}),
        WIRES["openai-responses"].ask({"model": "m", "input": [{"role": "user", "content": [
            {"type": "input_file", "file_data": f"data:{kind};base64,{data}"}]}]}),
        WIRES["anthropic-messages"].ask({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [
            {"type": "document", "source": {"type": "base64", "media_type": kind, "data": data}}]}]}),
    ]


@pytest.mark.parametrize("kind", ["Text/plain", "", "application/yaml", "image/svg+xml"])
def test_every_dialect_reads_text_files(kind: str) -> None:
    for request in asked(kind):
        assert any(message.text == WORDS for message in request.messages) and not request.opaque
    for request in asked("image/png"):
        assert len(request.opaque) == 1


def test_text_where_a_picture_should_be() -> None:
    """Ollama's pictures have no kind."""
    request = WIRES["ollama-generate"].ask({"model": "m", "prompt": "hi", "images": [b64(PNG), b64(WORDS)]})
    assert any(WORDS in message.text for message in request.messages) and request.opaque == ("images.0",)


def media(data: str, kind: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """A documented place of base64 -> (dialect, a request with `data` there)."""
    url = f"data:{kind};base64,{data}"

    def chat(**part: Any) -> tuple[str, dict[str, Any]]:
        return "openai-chat", {"model": "m", "messages": [{"role": "user", "content": [part]}]}

    def response(**item: Any) -> tuple[str, dict[str, Any]]:
        return "openai-responses", {"model": "m", "input": [item]}

    def claude(**block: Any) -> tuple[str, dict[str, Any]]:
        return "anthropic-messages", {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [block]}]}

    def gemini(**part: Any) -> tuple[str, dict[str, Any]]:
        return "gemini", {"contents": [{"parts": [part]}]}

    inside = {"type": "content", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}]}
    document = {"type": "document", "source": inside}
    return {
        "chat": chat(type="image_url", image_url={"url": url}),
        "mistral": chat(type="image_url", image_url=url),
        "mistral document": chat(type="document_url", document_url=url),
        "mistral sound": chat(type="input_audio", input_audio=data),
        "vllm film": chat(type="video_url", video_url={"url": url}),
        "vllm sound": chat(type="audio_url", audio_url={"url": url}),
        "screenshot": response(type="computer_call_output", call_id="c",
                               output={"type": "computer_screenshot", "image_url": url}),
        "tool": response(type="function_call_output", call_id="c", output=[{"type": "input_image", "image_url": url}]),
        "sound": response(role="user", content=[{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}]),
        "mask": ("openai-responses", {"model": "m", "input": "x", "tools": [
            {"type": "image_generation", "input_image_mask": {"image_url": url}}]}),
        "document": claude(**document),
        "result": claude(type="tool_result", tool_use_id="t", content=[document]),
        "gemini": gemini(functionResponse={"name": "f", "response": {}, "parts": [
            {"inlineData": {"mimeType": kind, "data": data}}]}),
        "gemini snake": gemini(function_response={"name": "f", "response": {}, "parts": [
            {"inline_data": {"mime_type": kind, "data": data}}]}),
    }


@pytest.mark.parametrize("place", media("", ""))
def test_documented_places_of_media(place: str) -> None:
    """Neither the picture nor the name of the field is words; text in its place is, and a link."""
    wire, body = media(b64(PNG), "image/png")[place]
    request = WIRES[wire].ask(body)
    assert len(request.opaque) == 1
    assert not any(len(message.text) > 40 or "~" in message.where for message in request.messages)
    wire, body = media(b64(WORDS), "text/plain")[place]
    request = WIRES[wire].ask(body)
    assert any(WORDS in message.text for message in request.messages) and not request.opaque
    wire, body = media("https://example.org/a-zebra now", "text/plain")[place]
    assert any("a-zebra" in message.text for message in WIRES[wire].ask(body).messages)
