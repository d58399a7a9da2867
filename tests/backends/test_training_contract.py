"""The loops of both backends keep to `training_interface.Loop`: every method, with the same arguments."""

import inspect

import pytest

from lae_fast.backends import training_interface
from lae_fast.backends.cpu.training.loop import Loop as CpuLoop
from lae_fast.backends.cuda.training.loop import Loop as CudaLoop

CONTRACT = [name for name in vars(training_interface.Loop) if not name.startswith("_") or name == "__init__"]


@pytest.mark.parametrize("kind", [CpuLoop, CudaLoop])
def test_a_loop_has_all_that_the_contract_asks_for(kind):
    assert issubclass(kind, training_interface.Loop) and not inspect.isabstract(kind)
    assert {"run", "trained", "restore", "watch", "bind", "take_products", "encoder", "__init__"} <= set(CONTRACT)
    for name in CONTRACT:
        ours, asked = getattr(kind, name), getattr(training_interface.Loop, name)
        assert isinstance(ours, property) == isinstance(asked, property), name
        if callable(asked):
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(asked).parameters), name
