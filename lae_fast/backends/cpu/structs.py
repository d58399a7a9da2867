"""Named tuples of arrays and numbers that kernels take as one pointer.

Numba hands a named tuple on field by field, and an array as its nine members: with dozens of arrays, every function
that takes such a tuple becomes hundreds of arguments, and most of the time to compile it goes there.  `by_reference`
writes the fields to a table in memory; a kernel takes the table's address and reads from it what it uses.

Fixed fields: their values belong to the type, so that kernels are compiled for them, and what is under an `if` that
they decide is compiled only where it runs.  (Numba leaves out what is under `if x == 1` where x is a constant, before
it finds types; a pass of ours writes the constants into the code before.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import numpy as np

from .jit import JIT_DISABLED, WithConstants

_WORD = 8


if JIT_DISABLED:

    def by_reference(fields: Any, fixed: Collection[str] = ()) -> Any:
        """The named tuple itself: plain Python reads its fields."""
        return fields

else:
    from llvmlite import ir
    from numba import typeof, types
    from numba.core.imputils import impl_ret_borrowed
    from numba.core.typing.templates import AttributeTemplate
    from numba.extending import (
        NativeValue,
        infer_getattr,
        lower_getattr_generic,
        models,
        register_model,
        typeof_impl,
        unbox,
    )
    from numba.np.arrayobj import make_array, populate_array

    class StructType(WithConstants):
        """A named tuple by reference: the types of its fields by their names; `places` says where in the table each is.

        constants : the values of the fixed fields, by name; see `jit.WithConstants`

        Its own name is short, because it becomes part of the symbol of every function that takes one.
        """

        def __init__(self, name: str, fields: tuple[tuple[str, types.Type], ...], constants: dict[str, Any]) -> None:
            listed = ", ".join(f"{field}: {kind} {constants.get(field, '')}" for field, kind in fields)
            super().__init__(f"{name}_{hashlib.sha256(listed.encode()).hexdigest()[:12]}")
            self.kinds, self.constants = dict(fields), constants
            self.places, self.words = {}, 0
            for field, kind in fields:
                self.places[field] = self.words
                self.words += _n_words(kind)

    def _n_words(kind: types.Type) -> int:
        if isinstance(kind, types.Array):
            return 1 + 2 * kind.ndim
        return kind.count if isinstance(kind, types.UniTuple) else 1

    class _Struct:
        """A table of fields for compiled code; it keeps what it points to alive."""

        def __init__(self, fields: Any, fixed: Collection[str]) -> None:
            self._fields = fields
            kinds = tuple((name, _kind(value)) for name, value in zip(fields._fields, fields))
            constants = {name: getattr(fields, name) for name in fields._fields if name in fixed}
            self._numba_type_ = StructType(type(fields).__name__, kinds, constants)
            self._table = np.concatenate([_words(value) for value in fields])
            self._address = self._table.ctypes.data

    def by_reference(fields: Any, fixed: Collection[str] = ()) -> Any:
        """A named tuple of arrays, integers, floats, truth values and pairs of them, for kernels.

        Kernels read the fields as they were: what they hold may change, which array or number it is may not.
        fixed : names of numbers for whose values kernels are compiled; see the module's text
        """
        return _Struct(fields, fixed)

    def _kind(value: Any) -> types.Type:
        if isinstance(value, (bool, np.bool_)):
            return types.boolean
        if isinstance(value, (int, np.integer)):
            return types.int64
        return typeof(value)

    def _words(value: Any) -> np.ndarray:
        """A field's part of the table: an array's address, lengths and strides; a number's bits."""
        if isinstance(value, np.ndarray):
            return np.array([value.ctypes.data, *value.shape, *value.strides], np.int64)
        real = isinstance(value, float) or (isinstance(value, tuple) and isinstance(value[0], float))
        return np.atleast_1d(np.array(value, np.float64 if real else np.int64)).view(np.int64)

    @typeof_impl.register(_Struct)
    def _typeof_struct(value: Any, _context: Any) -> types.Type:
        return value._numba_type_

    @register_model(StructType)
    class _StructModel(models.PrimitiveModel):  # type: ignore[misc]  # Numba's types are Any
        def __init__(self, manager: Any, kind: StructType) -> None:
            super().__init__(manager, kind, ir.IntType(8).as_pointer())

    @unbox(StructType)
    def _unbox_struct(kind: StructType, struct: Any, c: Any) -> NativeValue:
        address = c.pyapi.object_getattr_string(struct, "_address")
        value = c.pyapi.long_as_voidptr(address)
        c.pyapi.decref(address)
        return NativeValue(value)

    @infer_getattr
    class _StructAttributes(AttributeTemplate):  # type: ignore[misc]  # Numba's types are Any
        key = StructType

        def generic_resolve(self, kind: StructType, field: str) -> types.Type | None:
            return kind.kinds.get(field)

    @lower_getattr_generic(StructType)
    def _read_field(context: Any, builder: Any, struct: StructType, address: Any, field: str) -> Any:
        kind, first = struct.kinds[field], struct.places[field]

        def word(number: int, of: Any) -> Any:
            """The word of a field; the table does not change, so it may be read once and kept."""
            place = builder.gep(address, [ir.Constant(ir.IntType(64), _WORD * (first + number))])
            loaded = builder.load(builder.bitcast(place, of.as_pointer()), align=_WORD)
            loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
            return loaded

        def number(index: int, of: types.Type) -> Any:
            if of == types.boolean:
                return builder.trunc(word(index, ir.IntType(64)), ir.IntType(1))
            return word(index, context.get_value_type(of))

        if isinstance(kind, types.Array):
            array = make_array(kind)(context, builder)
            long, n = ir.IntType(64), kind.ndim
            shape, strides = [word(1 + i, long) for i in range(n)], [word(1 + n + i, long) for i in range(n)]
            item = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
            populate_array(array, word(0, array.data.type), shape, strides, item, meminfo=None)
            found = array._getvalue()
        elif isinstance(kind, types.UniTuple):
            found = context.make_tuple(builder, kind, [number(i, kind.dtype) for i in range(kind.count)])
        else:
            found = number(0, kind)
        return impl_ret_borrowed(context, builder, kind, found)
