"""The embedded guard's trainer: rows -> items -> late-interaction encoder -> calibrated int8 ONNX."""

from __future__ import annotations


def main(argv: list[str]) -> int:
    """`python -m trainer encoder ...`; returns the exit status."""
    from trainer.encoder.command import run

    return run(argv)
