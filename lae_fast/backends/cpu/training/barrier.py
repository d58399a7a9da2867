"""A barrier for a small team of threads inside nopython code.

A training iteration has three points where every thread must wait for the others, some tens of microseconds apart: too
often to go back to Python, or to wake sleeping threads.  So the threads of a team stay inside one kernel and meet at a
counter in memory.  A waiting thread spins, then offers its core to others, then sleeps in between, so that on a loaded
machine those it waits for get to run.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..jit import JIT_DISABLED, kernel

# Entries of the shared array, a cache line apart: arrivals, generation, abort.
_ARRIVED, _GENERATION, _ABORT, _SIZE = 0, 8, 16, 24
# About forty microseconds; a partner that takes longer has probably lost its core.
_SPINS = 4000
# Offers of the core before the thread sleeps: a scheduler may hand an offered core straight back.
_OFFERS = 50
_SLEEP_MICROSECONDS = 50


def shared_state() -> np.ndarray:
    """The (24,) int64 array of one team, all zero."""
    return np.zeros(_SIZE, np.int64)


def abort(state: np.ndarray) -> None:
    """Let every waiting thread go, for good: a member of the team could not be started."""
    state[_ABORT] = 1


if not JIT_DISABLED:
    import llvmlite.binding as llvm
    from llvmlite import ir

    if sys.platform == "win32":
        _library = ctypes.windll.kernel32
        _routines = _library.SwitchToThread, _library.Sleep
        _sleep = types.ExternalFunction("lae_fast_sleep", types.void(types.uint32))
        _PAUSE = np.uint32(0)  # it counts milliseconds; 0 lets any thread go first that is ready
    else:
        _library = ctypes.CDLL(None)
        _routines = _library.sched_yield, _library.usleep
        _sleep = types.ExternalFunction("lae_fast_sleep", types.int32(types.uint32))
        _PAUSE = np.uint32(_SLEEP_MICROSECONDS)
    for _name, _routine in zip(("lae_fast_yield", "lae_fast_sleep"), _routines):
        llvm.add_symbol(_name, ctypes.cast(_routine, ctypes.c_void_p).value)
    _offer_core = types.ExternalFunction("lae_fast_yield", types.int32())

    def _element(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.gep(array.data, [args[1]])

    @intrinsic
    def _add(typingctx, array, index, value):
        """array[index] += value as one atomic operation; returns the old value."""

        def codegen(context, builder, signature, args):
            return builder.atomic_rmw("add", _element(context, builder, signature, args), args[2], "seq_cst")

        return types.int64(array, types.intp, types.int64), codegen

    @intrinsic
    def _read(typingctx, array, index):
        """array[index], read from memory now."""

        def codegen(context, builder, signature, args):
            pointer = _element(context, builder, signature, args)
            return builder.load_atomic(pointer, "acquire", 8, typ=ir.IntType(64))

        return types.int64(array, types.intp), codegen

    @kernel
    def meet(state, n_team):
        """Wait until all `n_team` threads have come here; what they wrote before is visible after.

        state : the array of `shared_state`, int64.  The last to arrive opens the next generation.
        """
        if n_team == 1:
            return
        generation: int = _read(state, _GENERATION)
        if _add(state, _ARRIVED, 1) == n_team - 1:
            _add(state, _ARRIVED, -n_team)
            _add(state, _GENERATION, 1)
            return
        spins = 0
        while _read(state, _GENERATION) == generation and _read(state, _ABORT) == 0:
            spins += 1
            if spins > _SPINS + _OFFERS:
                _sleep(_PAUSE)
            elif spins > _SPINS:
                _offer_core()

else:

    def meet(state, n_team):
        """Nothing to wait for: without compiled code a team has one thread (see loop.py)."""
