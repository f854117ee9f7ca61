"""The embedded default guard: a small policy-conditioned encoder on onnxruntime, int8, CPU, in the package."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["EncoderGuard"]

# onnxruntime's wheels for Linux send usage events to their maker and keep a device id under the home folder (1.31,
# core/platform/telemetry_1ds.cc). A firewall calls nobody it was not told to: read once, when that library is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def __getattr__(name: str) -> Any:      # the trainer reads rules.py and windows.py without onnxruntime
    if name == "EncoderGuard":
        from firewall.guards.encoder.runtime import EncoderGuard

        return EncoderGuard
    raise AttributeError(name)
