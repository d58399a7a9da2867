"""Fixtures of the tests of eigenpairs."""

import numpy as np
import pytest
import threadpoolctl

from tests.oracle.certificate_cases import CASES, made


@pytest.fixture(scope="module")
def serial_oracle():
    """The oracle's small LAPACK calls on one thread: on a busy machine BLAS threads cost more than they bring."""
    with threadpoolctl.threadpool_limits(1, "blas"):
        yield


@pytest.fixture(params=CASES)
def data(request):
    """(M, D) of one kind in one dtype."""
    function, dtype = request.param
    return made(function).astype(dtype)


@pytest.fixture
def rng():
    return np.random.default_rng(19)
