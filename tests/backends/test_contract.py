"""Both backends have what backends/interface.py says: every function, with the same parameters and defaults.

A type checker compares them too, with their types.  The CUDA backend is loaded, which needs no card and no CuPy;
nothing of it runs.
"""

import inspect

import pytest

from lae_fast import backends
from lae_fast.backends import interface

PARTS = {
    "gram": interface.GramPasses,
    "rows": interface.RowPasses,
    "sparse": interface.SparsePasses,
    "panels": interface.Panels,
}


def parameters(function):
    """Names and defaults, in order, without `self`."""
    found = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.default) for parameter in found if parameter.name != "self"]


def differences(module, protocol):
    """What a module lacks of a protocol, or has otherwise."""
    functions = {name: value for name, value in vars(protocol).items() if inspect.isfunction(value) and name[0] != "_"}
    assert functions
    wrong = []
    for name, wanted in functions.items():
        found = getattr(module, name, None)
        if not inspect.isfunction(found):
            wrong.append(f"{module.__name__} has no function {name}")
        elif parameters(found) != parameters(wanted):
            wrong.append(f"{module.__name__}.{name}{inspect.signature(found)} takes other parameters than the contract")
    constants = inspect.get_annotations(protocol)
    return wrong + [f"{module.__name__} has no {name}" for name in constants if not hasattr(module, name)]


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_backend_has_every_function_of_the_contract(name):
    backend = backends.get_backend(name)
    assert backend.name == name and backend.n_workers >= 1
    assert [wrong for part, protocol in PARTS.items() for wrong in differences(getattr(backend, part), protocol)] == []


def test_arrays_on_a_device():
    assert differences(backends.device_arrays(), interface.DeviceArrays) == []


def test_the_comparison_sees_what_is_missing_and_what_is_other():
    found = differences(backends.get_backend("cpu").rows, interface.SparsePasses)
    assert any("has no function tile_bytes" in wrong for wrong in found)
    assert any("row_pass(view" in wrong and "other parameters" in wrong for wrong in found)
    assert any("has no LONGEST_RUN" in wrong for wrong in found)
