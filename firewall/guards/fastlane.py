"""A short way to the engine for one-token questions: an ASGI middleware that `vllm serve` loads (`--middleware`).

A snap judgement is one computed token, and on its way there vLLM's OpenAI front (routing, validation, rendering, the
answer's schema) costs more than the engine does. `POST /firewall/snap` goes straight to the same `AsyncLLM`: same
queue, same admission limit, same prefix cache, same abort when the caller hangs up. Every other path is vLLM's own.

Runs inside vLLM's API server, whose Python need not have the rest of the firewall: nothing of it is imported here.
Source: vLLM `AsyncLLM.generate`, ASGI 3 (asgi.readthedocs.io).
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

PATH = "/firewall/snap"
LARGEST = 16 << 20          # bytes of a question

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_numbers = itertools.count()


class FastLane:
    """`{"prompt": [ids], "watch": [ids], "salt": str, "priority": int}` ->
    `{"first": {id: log-probability}, "prompt": tokens, "cached": tokens}`; 400 for a question that is not one, 503
    when the queue is full. The next token is masked to `watch`; log-probabilities are those before the mask."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        asked = await _body(receive)
        if asked is None:
            return
        status, said = await _answer(scope["app"].state.engine_client, asked, receive)
        await send({"type": "http.response.start", "status": status, "headers": [
            (b"content-type", b"application/json"), (b"content-length", b"%d" % len(said))]})
        await send({"type": "http.response.body", "body": said})


async def _body(receive: Receive) -> bytes | None:
    """The whole question, or None when the caller left before its end."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size <= LARGEST:
            parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts) if size <= LARGEST else b""


async def _answer(engine: Any, asked: bytes, receive: Receive) -> tuple[int, bytes]:
    """(status, JSON). Cancels itself, and with that the engine's work, when the caller hangs up."""
    try:
        given = json.loads(asked)
        prompt, watch, salt, priority = given["prompt"], given["watch"], given["salt"], given["priority"]
        if not (isinstance(prompt, list) and prompt and isinstance(watch, list) and watch):
            raise TypeError
        salt, priority = str(salt) or None, int(priority)
    except (ValueError, KeyError, TypeError):
        return _refusal(400, "not a question")
    try:
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        if len(prompt) >= engine.model_config.max_model_len:
            return _refusal(400, "the prompt fills the context length")
        params = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, logprob_token_ids=watch,
                                allowed_token_ids=watch, output_kind=RequestOutputKind.FINAL_ONLY, skip_clone=True)
        question = tokens_input(prompt, cache_salt=salt)
    except (ImportError, AttributeError, TypeError):
        return _refusal(501, "this vLLM has other parts: ask the usual way")

    asking = asyncio.current_task()
    gone = asyncio.ensure_future(receive())         # the body is read: all that can come is the hang-up

    def hang_up(_: Any) -> None:
        if asking is not None:
            asking.cancel()
    gone.add_done_callback(hang_up)
    try:
        last = None
        async for output in engine.generate(question, params, f"snap-{next(_numbers)}", priority=priority):
            last = output
    except asyncio.CancelledError:
        if gone.cancelled() or not gone.done():
            raise                   # the server ends
        return _refusal(499, "the caller has gone")
    except Exception as e:          # told by its status and its kind: a message may repeat the prompt
        return _refusal(int(getattr(e, "status_code", 0) or getattr(e, "status", 0) or 500), type(e).__name__)
    finally:
        gone.remove_done_callback(hang_up)
        gone.cancel()
    if last is None or not last.outputs or not last.outputs[0].logprobs:
        return _refusal(500, "no log-probabilities")
    first = {str(token): p.logprob for token, p in last.outputs[0].logprobs[0].items()}
    return 200, json.dumps({"first": first, "prompt": len(prompt), "cached": last.num_cached_tokens or 0}).encode()


def _refusal(status: int, why: str) -> tuple[int, bytes]:
    return status, json.dumps({"error": {"message": why}}).encode()
