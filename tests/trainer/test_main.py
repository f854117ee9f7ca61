"""The command line: help without torch, mistakes with exit 2, plans, and a whole small run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
TINY = str(ROOT / "trainer" / "recipes" / "tiny.toml")
BLOCK = """
import sys
for name in ("torch", "transformers", "deepspeed", "vllm", "datasets", "tokenizers"):
    sys.modules[name] = None
from trainer.__main__ import main
sys.exit(main({argv!r}))
"""


def without_torch(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCK.format(argv=list(argv))], cwd=ROOT, capture_output=True,
                          text=True, timeout=100)


def test_help_teaches_and_needs_no_torch():
    done = without_torch("--help")
    assert done.returncode == 0
    for word in ("data", "sft", "grpo", "encoder", "eval", "export", "--set", "--dry-run", "torchrun", ".[train]"):
        assert word in done.stdout, word


def test_data_and_plans_need_no_torch(tmp_path):
    done = without_torch("data", TINY, "--set", f"out={tmp_path}", "--set", "data.sources=[]")
    assert done.returncode == 2 and "names no data" in done.stderr
    done = without_torch("data", TINY, "--set", f"out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "data" / "report.json").read_text())["train"]["rows"] > 90
    done = without_torch("grpo", TINY, "--dry-run", "--gpus", "2")
    assert done.returncode == 0 and "20 steps of 8 prompts x 4 answers" in done.stdout and "memory a GPU" in done.stdout


def test_training_without_torch_names_the_extra(tmp_path):
    done = without_torch("sft", TINY, "--set", f"out={tmp_path}")
    assert done.returncode == 2 and "pip install '.[train]'" in done.stderr and "Traceback" not in done.stderr


def test_mistakes_are_listed(capsys):
    assert main(["grpo", TINY, "--set", "grpo.gruop=8", "--set", "zzz=1"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'group'" in said and "unknown key 'zzz'" in said


@pytest.mark.ml
@pytest.mark.parametrize("setting", ["model.path=/nowhere", "model.tokenizer=/nowhere", "model.path=no/such-name"])
def test_models_that_are_not_there(setting, tmp_path, monkeypatch, capsys):
    hub = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert main(["sft", TINY, "--quiet", "--set", f"out={tmp_path}", "--set", setting]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(setting.partition("=")[2]) and ("no such folder" in said or "on the hub that can be" in said)


@pytest.mark.ml
def test_nothing_to_evaluate(tmp_path, capsys):
    pytest.importorskip("transformers")
    assert main(["eval", TINY, "--set", f"out={tmp_path}"]) == 2
    assert "no model to evaluate" in capsys.readouterr().err


def test_the_plan_of_sft_says_whose_memory_it_is(capsys):
    assert main(["sft", TINY, "--dry-run"]) == 0
    assert "those of a GRPO step" in capsys.readouterr().out


def test_plan_of_data_that_are_elsewhere(capsys):
    assert main(["grpo", str(ROOT / "trainer" / "recipes" / "rsafe-7b-4x80.toml"), "--dry-run", "--gpus", "4",
                 "--set", 'data.sources=[{path="nowhere/at-all", format="toxicchat", safe=5000, unsafe=5000}]']) == 0
    said = capsys.readouterr().out
    assert "10,000 by the recipe's numbers" in said and "7,615.6 M weights" in said and "4 x A100-80GB" in said


@pytest.mark.ml
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_whole_small_run(tmp_path):
    """data, sft, grpo, eval, export, each as its own process, as a user runs them."""
    pytest.importorskip("deepspeed")
    small = [x for s in (f"out={tmp_path}", "model.shape=nano", "sft.epochs=1", "grpo.steps=2", "eval.limit=6",
                         "engine.save_every=1") for x in ("--set", s)]
    # what an earlier test of this process set for its own single-process group is not a launcher's
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR",
                                                           "MASTER_PORT")}
    for command in ("data", "sft", "grpo", "eval", "export"):
        done = subprocess.run([sys.executable, "-m", "trainer", command, TINY, "--quiet", *small], cwd=ROOT, env=env,
                              capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, (command, done.stderr[-1500:])
    papers = json.loads((tmp_path / "model" / "firewall.json").read_text())
    from firewall.template import FINGERPRINT

    assert papers["fingerprint"] == FINGERPRINT and papers["metrics"] == {"stage": "grpo", "step": 2}
    assert papers["data"]["train"]["sources"]["tiny.jsonl"]["licence"] == "Apache-2.0"
    assert "control:present" in json.loads((tmp_path / "eval-reason.json").read_text())["validation"]
    for name in ("sft.jsonl", "grpo.jsonl", "sft.png", "model/model.safetensors", "model/README.md"):
        assert (tmp_path / name).exists(), name
