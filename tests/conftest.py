"""Shared fixtures: the hypothesis profile, and where the recorded material lies when it is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Recorded vendor streams and benchmark data; users do not have them."""
    if not (SHARED / "fixtures").is_dir():
        pytest.skip("no shared material beside the checkout")
    return SHARED
