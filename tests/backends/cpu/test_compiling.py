"""What a process is like while a kernel is compiled, and after."""

import gc

import pytest
from numba.core import event

from lae_fast.backends.cpu import jit


@pytest.mark.needs_jit
@pytest.mark.parametrize("was_on", [True, False])
def test_garbage_is_not_collected_while_a_kernel_compiles_and_then_as_before(was_on, monkeypatch):
    monkeypatch.setattr(jit, "cache_directory", lambda: None)  # a kernel that is there is not compiled

    class Watch(event.Listener):
        def on_start(self, event):
            seen.append(gc.isenabled())

        def on_end(self, event):
            seen.append(gc.isenabled())

    @jit.lean_kernel
    def add(first, second):
        return first + second

    seen, watch, at_first = [], Watch(), gc.isenabled()
    (gc.enable if was_on else gc.disable)()
    event.register("numba:compile", watch)
    try:
        assert add(1, 2) == 3
        assert gc.isenabled() == was_on
    finally:
        event.unregister("numba:compile", watch)
        (gc.enable if at_first else gc.disable)()
    assert len(seen) >= 2 and not any(seen)
