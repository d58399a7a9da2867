"""Checks at the boundary: every message names the argument, what is wrong and the way out.

Imports NumPy only, because losses, rules and optimizers check their parameters here.
"""

from .matrix import (
    MOST_EXPONENT,
    MOST_FLOAT32_SCALE,
    as_matrix,
    check_dtype,
    check_open,
    check_shape,
    check_tensor,
    is_sliceable,
    is_sparse,
    is_table,
    nonfinite_message,
    object_to_float,
    range_message,
)
from .parameters import (
    UNIT_TOLERANCE,
    ParameterTypeError,
    as_path,
    check_bool,
    check_choice,
    check_float_dtype,
    check_integer,
    check_matrix,
    check_real,
    check_vector,
    listed,
    memory_bytes,
)
from .sample_weights import (
    check_weight_sum,
    few_weights_message,
    leaves_a_denominator,
    rows_that_count,
    sample_weights,
)

__all__ = [
    "MOST_EXPONENT",
    "MOST_FLOAT32_SCALE",
    "UNIT_TOLERANCE",
    "ParameterTypeError",
    "as_matrix",
    "as_path",
    "check_bool",
    "check_choice",
    "check_dtype",
    "check_float_dtype",
    "check_integer",
    "check_matrix",
    "check_open",
    "check_real",
    "check_shape",
    "check_tensor",
    "check_vector",
    "check_weight_sum",
    "few_weights_message",
    "is_sliceable",
    "is_sparse",
    "is_table",
    "leaves_a_denominator",
    "listed",
    "memory_bytes",
    "nonfinite_message",
    "object_to_float",
    "range_message",
    "rows_that_count",
    "sample_weights",
]
