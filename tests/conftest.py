"""Shared fixtures: the hypothesis profile, and where the recorded material lies when it is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, so that a change is judged by what it changed; new ones: `--hypothesis-profile explore`.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("house", settings.get_profile("explore"), derandomize=True)
settings.load_profile("house")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Recorded vendor streams and benchmark data; users do not have them."""
    if not (SHARED / "fixtures").is_dir():
        pytest.skip("no shared material beside the checkout")
    return SHARED
