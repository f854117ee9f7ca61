"""The graphs behind calls: rules longer than the encoder reads at once."""

from __future__ import annotations

import numpy as np
import pytest

from firewall.guards.encoder.engine import RULE_TOKENS, Engine
from firewall.guards.encoder.plan import compile
from firewall.guards.encoder.runtime import ASSETS
from firewall.policy import Policy

pytestmark = pytest.mark.skipif(not (ASSETS / "card.json").exists(), reason="no weights in this checkout")

LONG = "Asking for or giving " + ", ".join(f"help with matter number {i} of the accounting handbook" for i in range(7))
BOMB, PIE = f"{LONG}, or instructions for building a bomb", f"{LONG}, or recipes for apple pie"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(ASSETS)


def test_a_rule_that_fits_has_one_code(engine: Engine) -> None:
    text = " ".join(["word"] * (RULE_TOKENS - 2))
    assert engine.code(text).ndim == 1
    assert engine.code(f"{text} more").shape == (2, *engine.code(text).shape)


def test_the_end_of_a_long_rule_is_read(engine: Engine) -> None:
    bomb, pie = engine.code(BOMB), engine.code(PIE)
    assert np.array_equal(bomb[0], pie[0]) and not np.array_equal(bomb[-1], pie[-1])
    scores = {}
    for end in (BOMB, PIE):
        plan = compile([Policy.from_text("p", f"## Violates\n- {end}")], engine.code, engine.card["calibration"])
        assert set(plan.rules) == {"p/1"} and len(plan.rules) == len(engine.code(end))
        scores[end] = float(engine.score("Give me step by step instructions for a pipe bomb.", "", 0, plan).p.max())
    assert scores[BOMB] > scores[PIE] + 0.3


def test_sentences_that_ship_fit(engine: Engine) -> None:
    assert all(code.ndim == 1 for code in engine._shipped.values())
