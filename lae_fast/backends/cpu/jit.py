"""All Numba policy of the CPU backend: one decorator, one fast-math set, one compile cache.

Fast-math: `contract` (FMA), `reassoc` (vectorised reductions) and `nsz`; never `nnan` or `ninf`, because NaN and Inf in
the data must reach the finiteness check.

Cache: see kernel_cache.py; the digest is of every kernel source and of the Numba and llvmlite versions.

Parts: what a kernel calls is compiled as a part of it: neither optimised nor turned into machine code by itself,
without a wrapper that Python could call, and without an entry in the cache.  All of this happens once, in the kernel
that Python calls.  A function that Python and kernels call is compiled for each.  (Numba does all of it for every
function, however small, and then again for whatever calls it.)

Bits: so a kernel has its own copy of every function it calls, optimised with it.  Numba leaves such copies as weak
symbols, and then the process decides which copy runs: one that has just compiled the callee calls that one, one that
has loaded the kernel from the cache calls the copy.  The two were optimised in different places and may round
differently.  Here the copies are internal symbols, so that the same code runs however the kernel got there.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite
import numba
from llvmlite.binding import Linkage
from numba.core import config as numba_config
from numba.core import event, ir, ir_utils, types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.dispatcher import _FunctionCompiler  # type: ignore[attr-defined]  # its stubs leave it out
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature
from numba.core.typing import make_concrete_template
from numba.core.untyped_passes import RewriteSemanticConstants

from ... import progress
from .. import kernel_cache

FASTMATH = frozenset({"contract", "reassoc", "nsz"})
JIT_DISABLED = bool(numba_config.DISABLE_JIT)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` without the GIL, with the fast-math set above, cached across processes."""
    return _compiled(function)


def ordered_kernel(function: Callable[..., Any]) -> Any:
    """As `lean_kernel`, with sums in the order in which they are written: without `reassoc`."""
    return _compiled(function, _nrt=False, fastmath=set(FASTMATH - {"reassoc"}))


def lean_kernel(function: Callable[..., Any]) -> Any:
    """As `kernel`, without reference counting: such a kernel cannot allocate, or it does not compile.

    For code that passes dozens of arrays around: counting them takes a third of the time to compile it.
    """
    return _compiled(function, _nrt=False)


def settled_kernel(function: Callable[..., Any]) -> Any:
    """As `lean_kernel`; as a part of other kernels it is optimised by itself first.

    For sums and divisions that LLVM may reorder: so they round in the same way whoever calls them.
    """
    return _compiled(function, _OptimisedPartCompiler, _nrt=False)


_kernels: list[Any] = []  # all that were made


def counts() -> tuple[int, int]:
    """How many kernels this process has loaded from the cache, and how many it has compiled."""
    hits, misses = (
        sum(sum(getattr(made.stats, kind).values()) for made in _kernels) for kind in ("cache_hits", "cache_misses")
    )
    return hits, misses


def _compiled(function: Callable[..., Any], part: type[Compiler] | None = None, **options: Any) -> Any:
    if JIT_DISABLED:
        return function
    policy = {"nopython": True, "nogil": True, "error_model": "numpy", "fastmath": set(FASTMATH)}
    dispatcher = _Kernel(function, policy | options, part or _PartCompiler)
    if cache_directory() is not None:
        dispatcher._cache = _HouseCache(dispatcher.py_func)
    _kernels.append(dispatcher)
    return dispatcher


class _Kernel(CPUDispatcher):
    """A compiled function, or a part of others that are; see the module's text, "Parts"."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any], part: type[Compiler]) -> None:
        super().__init__(function, targetoptions=options | {"no_cfunc_wrapper": True}, pipeline_class=_HouseCompiler)
        self._part_compiler = _PartFunctionCompiler(function, self.targetdescr, options, {}, part)
        # By the types of the arguments: the name under which other functions find the part, and the part.
        self._parts: dict[tuple[Any, ...], tuple[object, Any]] = {}

    def compile(self, sig: Any) -> Any:
        """As Numba's, without looking for garbage meanwhile: among its many small objects that takes an eighth."""
        with _no_garbage_collection():
            return super().compile(sig)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """What Numba asks when it compiles a function that calls this one: the types of the call."""
        signature, args = self._compiler.fold_argument_types(args, kws)
        args = tuple(args)
        if args not in self._parts:
            with event.trigger_event("numba:compile", data={"dispatcher": self, "args": args, "return_type": None}):
                part = self._part_compiler.compile(args, None)
            name = object()
            self.targetctx.insert_user_function(name, part.fndesc, [part.library])
            self._parts[args] = name, part
        signatures = [part.signature for _, part in self._parts.values()]
        called = self.py_func.__name__
        return make_concrete_template(f"CallTemplate({called})", called, signatures), signature, args, {}

    def get_overload(self, sig: Any) -> object:
        """What Numba asks when it generates code for the call: the name of the part."""
        args, _ = normalize_signature(sig)
        return self._parts[tuple(args)][0]


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Only who switched it off switches it on: where threads compile in turns, it ends as it began."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _HouseLibrary(JITCodeLibrary):
    """A compiled kernel that calls its own copies of other functions only; see the module's text, "Bits"."""

    def _optimize_final_module(self) -> None:
        super()._optimize_final_module()
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.linkonce_odr:
                function.linkage = Linkage.internal


class _PartLibrary(JITCodeLibrary):
    """The code of a part, not yet optimised, with that of its own parts; no machine code."""

    def finalize(self) -> None:
        """Link what the part calls; where two parts call one function, its weak copies are merged."""
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._optimize_part()
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.external:
                function.linkage = Linkage.linkonce_odr
        self._shared_module = self._final_module
        self._finalized = True

    def _optimize_part(self) -> None:
        """Nothing: a part is optimised where it is linked in."""


class _OptimisedPartLibrary(_PartLibrary):
    """See `settled_kernel`."""

    def _optimize_part(self) -> None:
        self._optimize_final_module()


class WithConstants(types.Type):
    """The type of an argument some of whose fields have values that are known when a kernel is compiled."""

    constants: dict[str, Any]  # by the names of the fields; they must be part of the type's own name


@register_pass(mutates_CFG=False, analysis_only=False)
class _WriteConstants(FunctionPass):
    """Writes the constants of arguments into the code, before Numba leaves out the branches that they decide."""

    _name = "write_constants"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        code, changed = state.func_ir, False
        for block in code.blocks.values():
            for assignment in block.find_insts(ir.Assign):
                read = assignment.value
                if not (isinstance(read, ir.Expr) and read.op == "getattr"):
                    continue
                of = ir_utils.guard(ir_utils.get_definition, code, read.value)
                kind = state.args[of.index] if isinstance(of, ir.Arg) else None
                if isinstance(kind, WithConstants) and read.attr in kind.constants:
                    assignment.value = ir.Const(kind.constants[read.attr], assignment.loc)
                    known = code._definitions[assignment.target.name]
                    known[known.index(read)] = assignment.value
                    changed = True
        return changed


class _HouseCompiler(Compiler):
    """Numba's compiler, with the pass above, putting what it compiles into a library of ours."""

    _library: type[JITCodeLibrary] = _HouseLibrary

    def define_pipelines(self) -> Any:
        pipelines = super().define_pipelines()
        for pipeline in pipelines:
            pipeline.add_pass_after(_WriteConstants, RewriteSemanticConstants)
            pipeline.finalize()
        return pipelines

    def compile_extra(self, func: Callable[..., Any]) -> Any:
        self.state.library = self._library(self.state.targetctx.codegen(), func.__qualname__)
        self.state.library.enable_object_caching()
        return super().compile_extra(func)


class _PartCompiler(_HouseCompiler):
    _library = _PartLibrary


class _OptimisedPartCompiler(_PartCompiler):
    _library = _OptimisedPartLibrary


class _PartFunctionCompiler(_FunctionCompiler):
    """Compiles parts: nothing that Python could call."""

    def _customize_flags(self, flags: Any) -> Any:
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        return flags


class _Announcer(event.Listener):
    """Tells bars that are up of compilations, which Numba announces and runs one at a time."""

    def on_start(self, event: Any) -> None:
        self._tell(event, True)

    def on_end(self, event: Any) -> None:
        self._tell(event, False)

    def _tell(self, event: Any, running: bool) -> None:
        if event.data["dispatcher"].py_func.__module__.startswith("lae_fast."):
            progress.compiling(running)


event.register("numba:compile", _Announcer())


def source_files() -> list[pathlib.Path]:
    """The files that compiled code comes from; a test checks that none is missing."""
    package = kernel_cache.PACKAGE
    backends = package / "backends"
    shared = [backends / f"{name}.py" for name in ("formulas", "training_interface", "kernel_cache")]
    return sorted([*(backends / "cpu").rglob("*.py"), *shared, package / "kernels" / "__init__.py"])


@functools.cache
def source_digest() -> str:
    """What the cache directory is named after."""
    return kernel_cache.digest(source_files(), f"{numba.__version__} {llvmlite.__version__} {sorted(FASTMATH)}")


@functools.cache
def cache_directory() -> pathlib.Path | None:
    """Directory of the compile cache, or None where caching is off or no directory can be written."""
    return kernel_cache.directory(source_digest())


_HouseCache = kernel_cache.house_cache(
    FunctionCache, CompileResultCacheImpl, _CacheLocator, lambda: cache_directory(), source_digest
)
