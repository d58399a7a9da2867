"""Fixtures of the tests on the CUDA simulator."""

import pytest

from lae_fast import plan


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(plan, "DEVICE_TILE", 5)
    monkeypatch.setattr(plan, "DEVICE_LINES", 9)
