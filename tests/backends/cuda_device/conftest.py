"""What the tests on a CUDA card share."""

import os
import sys

import pytest

from lae_fast import backends
from tests.oracle import simulator

REQUIRED = os.environ.get("LAE_FAST_REQUIRE_CUDA", "0") == "1"


@pytest.fixture(autouse=True)
def card():
    """Skip, or fail where a card is required; the simulator is none."""
    found = backends.probe_cuda()
    if not found["available"] or simulator.SIMULATED:
        (pytest.fail if REQUIRED else pytest.skip)(f"no CUDA card: {found['reason']}")


@pytest.fixture(name="libraries")
def in_every_library():
    """The function that puts an array into each library of the card."""
    return _in_every_library


def _in_every_library(X):
    cupy = pytest.importorskip("cupy")
    there = cupy.asarray(X)
    found = {"cupy": there}
    from lae_fast.backends.cuda import target

    found["numba"] = target.cuda.as_cuda_array(there)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["torch"] = torch.from_dlpack(there)
    return found
