"""The embedded default guard: a small policy-conditioned encoder on onnxruntime, int8, CPU, in the package."""

from __future__ import annotations

from typing import Any

__all__ = ["EncoderGuard"]


def __getattr__(name: str) -> Any:      # the trainer reads rules.py and windows.py without onnxruntime
    if name == "EncoderGuard":
        from firewall.guards.encoder.runtime import EncoderGuard

        return EncoderGuard
    raise AttributeError(name)
