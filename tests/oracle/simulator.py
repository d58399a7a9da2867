"""What tests in Numba's CUDA simulator share: run them with NUMBA_ENABLE_CUDASIM=1, in a process of their own."""

import os
import sys

import numpy as np
import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") == "1"
only = pytest.mark.skipif(not SIMULATED, reason="the CUDA simulator wants NUMBA_ENABLE_CUDASIM=1 and its own process")

if SIMULATED:  # its threads take turns; Python's usual five milliseconds a turn are ages
    sys.setswitchinterval(1e-5)


class OnDevice:
    """A stand-in for an array of a device library: memory behind `__cuda_array_interface__`, and no conversion."""

    def __init__(self, array):
        self.array = array
        self.__cuda_array_interface__ = array.__array_interface__
        self.shape, self.dtype = array.shape, array.dtype

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __len__(self):
        return len(self.array)


def layouts(array):
    """The same matrix as rows, as columns, and with gaps: name -> array."""
    wide = np.zeros((array.shape[0], 2 * array.shape[1]), array.dtype)
    wide[:, ::2] = array
    return {"rows": np.ascontiguousarray(array), "columns": np.asfortranarray(array), "gaps": wide[:, ::2]}
