"""The latency benchmark: ready to run in one command, and honest about what it needs."""

from __future__ import annotations

import json

import pytest

from benchmarks import guard_latency
from firewall.policy import PolicySet


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert guard_latency.main(["--gpu"]) == 3
    said = capsys.readouterr().err
    assert "No CUDA device" in said and "--gpu --json" in said and "7B" in said


def test_its_figures_and_policies() -> None:
    assert guard_latency.summary([1.0, 2.0, 3.0, 10.0]) == {"p50": 2.5, "p99": 10.0, "mean": 4.0}
    made = guard_latency.policies(600, lambda t: len(t) // 5)
    assert isinstance(made, PolicySet) and len(made.rule_ids) > 5


@pytest.mark.ml
@pytest.mark.timeout(600)
def test_it_runs_on_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert guard_latency.main(["--engine", "transformers", "--shape", "nano", "--calls", "3", "--concurrent", "2"]) == 0
    out = capsys.readouterr().out
    figures = json.loads(out[out.index("{"):])
    assert figures["snap"]["computed tokens"] < figures["prefix tokens"] and figures["streams"]["ratio"] > 1
