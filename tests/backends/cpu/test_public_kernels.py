"""The kernels of lae_fast.kernels: what they refuse, and that a compiled kernel calls its own copies only."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from lae_fast import kernels
from lae_fast.backends.cpu import jit
from tests.oracle import cases
from tests.oracle.tile_cases import column_slice, f_order, read_only


@pytest.mark.needs_jit
def test_a_kernel_calls_its_own_copies_only(monkeypatch):
    """Weak symbols would let a process choose between two copies of a callee, which may round differently."""
    monkeypatch.setattr(jit, "cache_directory", lambda: None)

    @jit.lean_kernel
    def inner(x, out):
        for i in range(x.shape[0]):
            out[i] = np.sqrt(x[i]) / (x[i] + 1)

    @jit.lean_kernel
    def middle(x, out):
        inner(x, out)
        inner(out, x)

    @jit.kernel
    def outer(x, out):
        middle(x, out)
        inner(x, out)

    for kernel in (inner, middle, outer):
        x, out = np.full(3, 4.0), np.zeros(3)
        kernel(x, out)
        (compiled,) = kernel.overloads.values()
        own = {compiled.fndesc.llvm_func_name, compiled.fndesc.llvm_cpython_wrapper_name}
        own.add(compiled.fndesc.llvm_cfunc_wrapper_name)
        for function in compiled.library.get_defined_functions():
            assert function.name in own or function.linkage.name == "internal", function.name


MATRIX, VECTOR = 2, 1
CHECKED = {
    kernels.gemm: lambda f: (1.0, f("a"), False, f("b"), False, 0.0, f("c", written=True)),
    kernels.syrk: lambda f: (f("a"), 0.0, f("c", written=True)),
    kernels.masked_gram: lambda f: (f("gram"), f("prefix", VECTOR), f("out", written=True)),
    kernels.rotation: lambda f: (f("gram"), f("out", written=True)),
    kernels.tril: lambda f: (f("gram"), 1, f("out", written=True)),
    kernels.quotients: lambda f: (f("gram"), f("out", written=True)),
    kernels.normalise_rows: lambda f: (f("weights", written=True),),
    kernels.gram: lambda f: (
        f("rows", real=True), f("shift", VECTOR), f("weights", VECTOR, double=True), f("tile", written=True),
        f("out", written=True),
    ),
    kernels.row_pass: lambda f: (
        f("rows", real=True), f("shift", VECTOR), f("weights", VECTOR, double=True), f("block"),
        f("tile", written=True), f("codes", written=True), f("out", written=True),
    ),
    kernels.fused_step: lambda f: (
        kernels.SGD, f("scalars", VECTOR, double=True), 0.1, 0, f("dense"), f("product"), f("on_product", VECTOR),
        f("on_weights", VECTOR), f("penalty", VECTOR), f("prefix", VECTOR), True, f("weights", written=True),
        f("first", written=True), f("second", written=True), f("sums", VECTOR, double=True, written=True),
        f("row_sums", double=True, written=True), f("row_squares", VECTOR, double=True, written=True),
    ),
}  # fmt: skip


def named(kernel):
    """What a kernel takes, by the names of its arrays."""
    found = {}
    CHECKED[kernel](lambda name, ndim=MATRIX, **rules: found.setdefault(name, {"ndim": ndim, **rules}))
    return found


def called(kernel, odd="", change=np.copy):
    """The kernel called with arrays that fit, but for one that is changed."""

    def make(name, ndim=MATRIX, real=False, **_):
        fitting = np.ones((4,) * ndim, np.int16 if real else np.float64)
        return change(fitting) if name == odd else fitting

    return kernel(*CHECKED[kernel](make))


LARGE = kernels.row_pass, kernels.fused_step  # each refusal compiles what lies around them


@pytest.mark.parametrize(
    "kernel",
    [*(kernel for kernel in CHECKED if kernel not in LARGE), *cases.only_full(*LARGE)],
    ids=lambda kernel: kernel.__name__,
)
def test_public_kernels_refuse_what_does_not_go_together(kernel):
    """Each array in turn: of another dtype, of one without arithmetic, in F order, of other dimensions, read-only."""

    def refuses(message, name, change):
        with pytest.raises(TypeError, match=f"{kernel.__name__}: {message}"):
            called(kernel, name, change)

    called(kernel)
    one = [name for name, rules in named(kernel).items() if not rules.keys() & {"real", "double"}]
    for name, rules in named(kernel).items():
        if rules.get("double"):
            refuses(f"{name} must be float64.*: float32", name, np.float32)
            refuses(f"{name} must be float64.*: int64", name, np.int64)
        elif rules.get("real"):
            refuses(f"{name} must hold real numbers.*complex", name, np.complex128)
            refuses(f"{name} must be C-contiguous", name, column_slice)
        else:
            refuses(f"all arrays must have one dtype, .*{name} int64", name, np.int64)
            if len(one) > 1:
                refuses(f"all arrays must have one dtype, .*{name} float32", name, np.float32)
        if rules["ndim"] == MATRIX:
            refuses(f"{name} must hold rows", name, f_order)
        refuses(f"{name} must have {rules['ndim']} dim.*not {rules['ndim'] + 1}", name, lambda x: x[None])
        if rules.get("written"):
            refuses(f"{name} is written to", name, read_only)


@pytest.mark.needs_jit
def test_a_read_only_output_of_a_caller_is_refused_and_keeps_its_values():
    @numba.njit
    def mine(a, c):
        kernels.gemm(1.0, a, False, a, False, 0.0, c)

    c = read_only(np.full((3, 3), 7.0))
    with pytest.raises(TypeError, match="gemm: c is written to, and the array is read-only"):
        mine(read_only(np.ones((3, 3))), c)
    assert (c == 7.0).all()
    mine(read_only(np.ones((3, 3))), out := np.zeros((3, 3)))
    assert (out == 3.0).all()


@pytest.mark.needs_jit
def test_a_caller_of_a_public_kernel_is_refused_when_it_is_compiled():
    @numba.njit
    def mine(a, c):
        if a.shape[0] == 0:  # not even reached
            kernels.syrk(a, 0.0, c)

    with pytest.raises(TypeError, match="syrk: all arrays must have one dtype, float32 or float64; here: a float32, c"):
        mine(np.ones((3, 3), np.float32), np.ones((3, 3)))
