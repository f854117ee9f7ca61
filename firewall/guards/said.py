"""A guard's answer in JSON, read strictly: a key that stands twice could mean either, so it means nothing."""

from __future__ import annotations

import json
from typing import Any

import orjson


def said(text: bytes | str) -> Any:
    """The document. Raises ValueError for what is no JSON, is nested absurdly deep, or has a key twice in one object."""
    orjson.loads(text)                  # no NaN, no stray bytes, no depth: what the next reader would let pass
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands twice")
    return out
