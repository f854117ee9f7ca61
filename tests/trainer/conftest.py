"""The small world's tokenizer and cold start, made once a session; tests that need torch are skipped without it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tok(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("transformers")
    from tests.trainer import world

    return world.tokenizer(tmp_path_factory.mktemp("world") / "tokenizer")


@pytest.fixture(scope="session")
def cold(tok: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that knows the form of an answer and half of the task."""
    pytest.importorskip("deepspeed")
    from tests.trainer import world
    from trainer import export, train
    from trainer.learner import Learner, build

    out = tmp_path_factory.mktemp("cold")
    recipe = world.recipe(out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learner = Learner(recipe, build(recipe.model, tok, 0, 1024), recipe.sft.lr)
        train.sft(recipe, learner, tok, world.rough(16 * 80), out, lesson=world.lesson, bar=False)
        return export.folder(learner.model, tok, out / "model", recipe)
