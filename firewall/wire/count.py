"""`POST /v1/messages/count_tokens`: a request's words, judged as if they were sent, and a number for an answer.

Agents (Claude Code) count before they ask. What is blocked there is blocked here; whatever the answer holds beside numbers
is words, judged like any answer's, and a count that was stopped is zero.
"""

from __future__ import annotations

import orjson

from firewall.wire.anthropic import Anthropic
from firewall.wire.models import Names, document
from firewall.wire.wire import Asked, Reader, StreamLimits


class Count(Anthropic):
    """The dialect of Anthropic Messages, but for the answer."""

    name = "anthropic-count"

    def reader(self, asked: Asked, content_type: bytes, limits: StreamLimits | None = None) -> Reader:
        return document(Names(self, asked, {}), content_type, limits)

    def withheld(self, asked: Asked, message: str, request_id: str) -> bytes:
        return orjson.dumps({"input_tokens": 0})
