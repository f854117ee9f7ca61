"""Gemini and Vertex `generateContent` / `streamGenerateContent`: SSE with `?alt=sse`, else one JSON array.

Whether it streams, and the model, stand in the URL: `ask` says False and nothing, and who knows the URL replaces that.
A refused answer is a candidate with `finishReason: "SAFETY"` (and the policy's message as `finishMessage`), in an
array where one streams; errors have Google's shape.

Channels: `choice/0/text`, `choice/0/reasoning` (parts with `thought`), `choice/0/tool/1/name|arguments`,
`choice/0/code`, `choice/0/output`; anything else by its path. A function call that streams its arguments is pending
until a part says that nothing more will come; then arguments whose escapes hide words are shown decoded. Streamed values
are lines of one channel, each begun by a line feed: what ends one and what begins the next are no word. A channel is
one field's for the whole answer (`owners.py`): a part's `text` is not its candidate's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from firewall.errors import FirewallError
from firewall.wire.leaves import BASE64, LINK, MEDIA, TOKEN, Inert, Leaf, decoded, leaves, passes, trie, unplaced, words
from firewall.wire.openai_words import judgeable
from firewall.wire.owners import Owners
from firewall.wire.reader import reader
from firewall.wire.request import Words, inspectable, integer, items, sizes
from firewall.wire.sealed import Unread
from firewall.wire.speech import Array
from firewall.wire.vocabulary import KEYS
from firewall.wire.wire import Asked, Reader, StreamLimits, malformed, unreadable

ROLES = {"user": "user", "model": "assistant", "function": "tool", "tool": "tool"}
_PART: Inert = {
    "thoughtSignature": BASE64, "thought_signature": BASE64,
    "inlineData.data": MEDIA, "inlineData.mimeType": TOKEN, "inline_data.data": MEDIA, "inline_data.mime_type": TOKEN,
    "fileData.mimeType": TOKEN, "file_data.mime_type": TOKEN, "fileData.fileUri": LINK, "file_data.file_uri": LINK,
    "functionResponse.parts[].inlineData.data": MEDIA, "functionResponse.parts[].inlineData.mimeType": TOKEN,
    "function_response.parts[].inline_data.data": MEDIA, "function_response.parts[].inline_data.mime_type": TOKEN,
    "functionCall.id": TOKEN, "function_call.id": TOKEN, "functionResponse.id": TOKEN, "function_response.id": TOKEN,
    "executableCode.language": words("PYTHON LANGUAGE_UNSPECIFIED"),
    "codeExecutionResult.outcome": words("OUTCOME_OK OUTCOME_FAILED OUTCOME_DEADLINE_EXCEEDED OUTCOME_UNSPECIFIED"),
}
_TEXT = ("TEXT", "Text", "text")
INERT: Inert = {
    "model": TOKEN,
    "contents[].role": frozenset(ROLES),
    **{f"contents[].parts{one}.{path}": shape for path, shape in _PART.items() for one in ("[]", "")},   # a list, or one
    "systemInstruction.role": words("user system model"),
    "system_instruction.role": words("user system model"),
    **{f"{place}.{name}": TOKEN for place in ("safetySettings[]", "safety_settings[]")
       for name in ("category", "threshold", "method")},
    **{f"{place}.{name}": TOKEN for place in ("generationConfig", "generation_config")
       for name in ("responseMimeType", "response_mime_type", "mediaResolution")},
    **{f"{place}.{name}{one}": frozenset(_TEXT) for place in ("generationConfig", "generation_config")
       for name in ("responseModalities", "response_modalities") for one in ("[]", ".")},
    "generationConfig.thinkingConfig.thinkingLevel": words("MINIMAL LOW MEDIUM HIGH minimal low medium high"),
    "toolConfig.functionCallingConfig.mode": words("AUTO ANY NONE VALIDATED MODE_UNSPECIFIED"),
    "tool_config.function_calling_config.mode": words("AUTO ANY NONE VALIDATED MODE_UNSPECIFIED"),
}
_FINISH = words("STOP MAX_TOKENS SAFETY RECITATION LANGUAGE OTHER BLOCKLIST PROHIBITED_CONTENT SPII "
                "MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL FINISH_REASON_UNSPECIFIED IMAGE_SAFETY")
_MODALITY = words("TEXT IMAGE AUDIO VIDEO DOCUMENT MODALITY_UNSPECIFIED")
ANSWER: Inert = {
    "modelVersion": TOKEN, "responseId": TOKEN, "createTime": TOKEN,
    "candidates[].finishReason": _FINISH,
    "candidates[].content.role": words("model"),
    **{f"candidates[].content.parts[].{path}": shape for path, shape in _PART.items()},
    **{f"candidates[].groundingMetadata.groundingChunks[].{kind}.uri": LINK for kind in ("web", "retrievedContext", "maps")},
    "candidates[].groundingMetadata.searchEntryPoint.renderedContent": LINK,        # HTML of such links
    "candidates[].urlContextMetadata.urlMetadata[].retrievedUrl": LINK,
    "candidates[].citationMetadata.citationSources[].uri": LINK, "candidates[].citationMetadata.citations[].uri": LINK,
    "candidates[].safetyRatings[].category": TOKEN,
    "candidates[].safetyRatings[].probability": TOKEN,
    "candidates[].safetyRatings[].severity": TOKEN,
    "candidates[].safetyRatings[].overwrittenThreshold": words("""HARM_BLOCK_THRESHOLD_UNSPECIFIED BLOCK_LOW_AND_ABOVE
        BLOCK_MEDIUM_AND_ABOVE BLOCK_ONLY_HIGH BLOCK_NONE OFF"""),
    "promptFeedback.blockReason": TOKEN,
    "promptFeedback.safetyRatings[].category": TOKEN,
    "promptFeedback.safetyRatings[].probability": TOKEN,
    "usageMetadata.trafficType": TOKEN,
    **{f"usageMetadata.{name}[].modality": _MODALITY for name in (
        "promptTokensDetails", "candidatesTokensDetails", "cacheTokensDetails", "toolUsePromptTokensDetails")},
}
_PLACE, _ANSWER = trie(INERT), trie(ANSWER)
_CANDIDATE = _ANSWER["candidates"]["[]"]
_SAID = _CANDIDATE["content"]["parts"]["[]"]
SCALARS = frozenset((int, float, bool, type(None)))
STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
          429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}


class Gemini:
    """`POST /v1beta/models/{model}:generateContent` and `:streamGenerateContent`."""

    name = "gemini"
    inert = INERT
    inert_answer = ANSWER

    def ask(self, document: dict[str, Any]) -> Asked:
        asked = inspectable(document)
        for name in ("generationConfig", "generation_config"):
            config = document.get(name)
            if config is None:
                continue
            if type(config) is not dict:
                raise malformed(name)
            asked += sizes(config, name + ".", digits=True)
            for said in ("responseModalities", "response_modalities"):
                spoken = config.get(said)
                if spoken and spoken not in (*_TEXT, *([name] for name in _TEXT)):
                    raise malformed(f"{name}.{said}")       # only text can be judged before it is shown
        found = Words()
        for name in ("systemInstruction", "system_instruction"):
            found.each("system", document.get(name), _PLACE[name], name)
        alone = type(document.get("contents")) is dict      # Google takes one where a list is meant, and shows that
        for i, content in enumerate([document["contents"]] if alone else items(document, "contents")):
            role = content.get("role", "user")
            found.each(ROLES.get(role, "user") if type(role) is str else "user", content, _PLACE["contents"]["[]"],
                       "contents" if alone else f"contents.{i}")
        found.rest(document, frozenset(("contents", "systemInstruction", "system_instruction")), _PLACE)
        return Asked("", False, found.said(), document, tuple(found.opaque), asked)

    def reader(self, asked: Asked, content_type: bytes, limits: StreamLimits | None = None) -> Reader:
        return reader(Candidates(asked), content_type, limits or StreamLimits())

    def error(self, error: FirewallError, request_id: str) -> bytes:
        return envelope(error.status, error.named, error.code)

    def blocked(self, message: str, rules: tuple[str, ...], request_id: str) -> bytes:
        return envelope(400, message or "The request was blocked by the content policy of this service.",
                        "content_policy_violation")

    def withheld(self, asked: Asked, message: str, request_id: str) -> bytes:
        return Candidates(asked).withheld(message)


def envelope(status: int, message: str, code: str) -> bytes:
    """Google's error body (google.rpc.Status as JSON)."""
    return orjson.dumps({"error": {"code": status, "message": message, "status": STATUS.get(status, "INTERNAL"),
                                   "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo",
                                                "reason": code.upper(), "domain": "firewall"}]}})


class Seen(NamedTuple):
    """What a client has seen open."""

    model: str = ""
    closed: tuple[int, ...] = ()
    ended: bool = False


class Candidates:
    """The answer to one request (a `Speech`)."""

    done: bytes | None = None
    names: frozenset[bytes] = frozenset()
    plain = True        # not after a function call: those are counted

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        config = asked.document.get("generationConfig") or asked.document.get("generation_config") or {}
        self.expected = integer(config.get("candidateCount", config.get("candidate_count")), digits=True) or 1
        self.after: Seen | None = None
        self.last = self.complete = False
        self.opaque: list[str] = Unread()
        self._calls: dict[int, int] = {}        # candidate -> calls begun
        self._open: set[int] = set()            # candidates with a call under way
        self._owners = Owners()
        self._paths: dict[int, dict[str, str]] = {}     # candidate -> arguments of its call, the last being written; kind
        self._written: dict[int, dict[str, list[str]]] = {}     # candidate -> channel -> what was written of them

    @property
    def pending(self) -> bool:
        return bool(self._open)

    def again(self) -> Candidates:
        return Candidates(self.asked)

    @property
    def state(self) -> Any:
        return self.after

    def heard(self, channel: str, text: str, number: int) -> None:
        return

    def finish(self) -> list[Leaf]:
        return [leaf for index in sorted(self._open) for leaf in self._called(index)]

    def drop(self, document: dict[str, Any]) -> None:
        for part in document["[]"] if isinstance(document, Array) else (document,):
            for candidate in part.get("candidates") or ():
                candidate.pop("logprobsResult", None)
        unplaced(document)

    def glance(self, document: dict[str, Any]) -> list[Leaf] | None:
        return None

    def read(self, document: dict[str, Any], whole: bool) -> list[Leaf]:
        if isinstance(document, Array):         # an unframed stream
            if not all(type(part) is dict for part in document["[]"]):
                raise unreadable("a part of the stream is no object")
            return [leaf for part in document["[]"] for leaf in self.read(part, False)]
        out: list[Leaf] = []
        self.plain = True
        seen = self.after or Seen()
        for key, value in document.items():
            if key == "candidates" and type(value) is list:
                for place, candidate in enumerate(value):
                    seen = self._candidate(candidate, place, seen, out)
            elif type(value) not in SCALARS or key not in KEYS:
                self._other(document, key, value, _ANSWER, "", "answer", out)
        version = document.get("modelVersion")
        if not seen.model and type(version) is str and passes(TOKEN, version):
            seen = seen._replace(model=version)
        feedback = document.get("promptFeedback")
        blocked = type(feedback) is dict and bool(feedback.get("blockReason"))
        if blocked or document.get("error") or len(seen.closed) >= self.expected:
            self.last = self.complete = True
            seen = seen._replace(ended=True)
        if seen != self.after:
            self.after = seen
        return out

    def _candidate(self, candidate: Any, place: int, seen: Seen, out: list[Leaf]) -> Seen:
        if type(candidate) is not dict:
            raise unreadable("a candidate is no object")
        index = candidate.get("index")
        index = place if index is None else index
        if type(index) is not int or not 0 <= index < 128:
            raise unreadable("a candidate's index is no small number")
        for key, value in candidate.items():
            if key == "content" and type(value) is dict:
                for name, inner in value.items():
                    if name == "parts" and type(inner) is list:
                        for part in inner:
                            self._part(part, index, out)
                    else:
                        self._other(value, name, inner, _CANDIDATE["content"], f"choice.{index}", "content", out)
            else:
                self._other(candidate, key, value, _CANDIDATE, f"choice.{index}", "candidate", out)
        if candidate.get("finishReason") and index not in seen.closed:
            out += self._called(index)
            seen = seen._replace(closed=(*seen.closed, index))
        return seen

    def _part(self, part: Any, index: int, out: list[Leaf]) -> None:
        if type(part) is not dict:
            raise unreadable("a part is no object")
        if type(part.get("thought")) not in (bool, type(None)):
            raise unreadable("whether a part is a thought is not said")
        for key, value in part.items():
            if key == "text" and type(value) is str:
                name = "reasoning" if part.get("thought") is True else "text"
                out += [Leaf(self._owners.of(f"choice/{index}/{name}", "part"), value, part, key)] if value else []
            elif key == "functionCall" and type(value) is dict:
                self._call(value, index, out)
            elif key == "executableCode" and type(value) is dict and type(value.get("code")) is str:
                out.append(Leaf(self._owners.of(f"choice/{index}/code", key), value["code"], value, "code"))
                self._others(value, ("code",), _SAID[key], f"choice.{index}.{key}", out)
            elif key == "codeExecutionResult" and type(value) is dict and type(value.get("output")) is str:
                out.append(Leaf(self._owners.of(f"choice/{index}/output", key), value["output"], value, "output"))
                self._others(value, ("output",), _SAID[key], f"choice.{index}.{key}", out)
            else:
                self._other(part, key, value, _SAID, f"choice.{index}", "part/other", out)

    def _call(self, call: dict[str, Any], index: int, out: list[Leaf]) -> None:
        self.plain = False
        if call.get("name") or index not in self._open:
            out += self._called(index)
            self._calls[index] = self._calls.get(index, -1) + 1
            self._open.add(index)
        channel = f"choice/{index}/tool/{self._calls[index]}"
        for key, value in call.items():
            if key == "name" and type(value) is str:
                out += [Leaf(self._owners.of(channel + "/name", key), value, call, key)] if value else []
            elif key == "args" and type(value) is dict:
                said = orjson.dumps(value).decode()
                self._write(Leaf(channel + "/arguments", said, call, key), key, index, out)
            elif key == "partialArgs" and type(value) is list:
                for piece in value:
                    self._piece(piece, index, channel, out)
            else:
                self._other(call, key, value, _SAID["functionCall"], channel.replace("/", "."), "call", out)
        if call.get("willContinue") is not True:
            out += self._called(index)

    def _called(self, index: int) -> list[Leaf]:
        """A call is whole: what the escapes of its arguments hide."""
        self._open.discard(index)
        self._paths.pop(index, None)
        written = self._written.pop(index, {})
        return [Leaf(channel + "/decoded", inside) for channel in written if (inside := decoded("".join(written[channel])))]

    def _write(self, leaf: Leaf, field: str, index: int, out: list[Leaf]) -> None:
        leaf = leaf._replace(path=self._owners.of(leaf.path, field))
        self._written.setdefault(index, {}).setdefault(leaf.path, []).append(leaf.text)
        out.append(leaf)

    def _piece(self, piece: Any, index: int, channel: str, out: list[Leaf]) -> None:
        """A fragment of one argument; where it belongs is said when that changes. One that was left does not come back,
        and has values of one kind: whoever puts its fragments together would read what nobody judged."""
        if type(piece) is not dict:
            raise unreadable("a partial argument is no object")
        paths = self._paths.setdefault(index, {})
        path = piece.get("jsonPath")
        if type(path) is str and path != next(reversed(paths), None):
            if path in paths:
                raise unreadable("partial arguments are mixed")
            paths[path] = ""
            out.append(Leaf(self._owners.of(channel + "/path", "jsonPath"), path, piece, "jsonPath"))
            self._write(Leaf(channel + "/arguments", "\n"), "partialArgs", index, out)
        for key, value in piece.items():
            if (key == "stringValue" and type(value) is str) or (key == "numberValue" and type(value) in (int, float)):
                if said := str(value):
                    place = next(reversed(paths), "")
                    if (paths.get(place) or key) != key:
                        raise unreadable("partial arguments are mixed")
                    paths[place] = key
                    self._write(Leaf(channel + "/arguments", said, piece, key), "partialArgs", index, out)
            elif key != "jsonPath" or type(value) is not str:
                self._other(piece, key, value, {}, channel.replace("/", "."), "piece", out)

    def _others(self, holder: dict[str, Any], known: tuple[str, ...], place: Any, path: str, out: list[Leaf]) -> None:
        for key, value in holder.items():
            if key not in known:
                self._other(holder, key, value, place, path, "part", out)

    def _other(self, holder: dict[str, Any], key: str, value: Any, place: Any, path: str, field: str,
               out: list[Leaf]) -> None:
        if type(value) in SCALARS and key in KEYS:
            return
        for leaf in leaves({key: value}, place, path, opaque=self.opaque):
            judgeable(leaf)
            if type(value) is str and "#" not in leaf.path:
                leaf = leaf._replace(holder=holder, key=key)
            out.append(leaf._replace(path=self._owners.of(leaf.path, field)))

    def ending(self, after: Any, message: str) -> bytes:
        seen = after or Seen()
        return b"" if seen.ended else b"data: " + self._composed(seen, message) + b"\r\n\r\n"

    def fault(self, after: Any, error: FirewallError) -> bytes:
        return b"data: " + self.error(error) + b"\r\n\r\n"

    def error(self, error: FirewallError) -> bytes:
        return envelope(error.status, error.public, error.code)

    def withheld(self, message: str) -> bytes:
        body = self._composed(Seen(), message)
        return b"[" + body + b"]" if self.asked.stream else body        # a stream that is no SSE is one array

    def _composed(self, seen: Seen, message: str) -> bytes:
        rows = [{"index": index, "content": {"role": "model", "parts": []}, "finishReason": "SAFETY",
                 **({"finishMessage": message} if message else {})}
                for index in range(self.expected) if index not in seen.closed]
        return orjson.dumps({"candidates": rows, "usageMetadata": {}, "modelVersion": seen.model})
