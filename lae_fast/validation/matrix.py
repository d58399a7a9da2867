"""Checks of X: its kind, dimensions, dtype and numbers."""

from __future__ import annotations

import datetime
import math
import numbers
import sys
from collections.abc import Mapping, Set
from typing import Any

import numpy as np

# Squares of data further than 2^505 = 1e152 from one, either way, leave the range of float64.
MOST_EXPONENT = 505
# A scale is a number of the compute dtype itself; of numbers near the end of float32's range it is cut to this.
MOST_FLOAT32_SCALE = 126

_REAL_KINDS = "fiub"


def is_sparse(X: Any) -> bool:
    """Whether X is a SciPy sparse matrix or array, without importing SciPy for those who do not use it."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(X))


def is_sliceable(X: Any) -> bool:
    """Whether X is an array on disk such as an HDF5 dataset: shape, dtype and slicing, but no array interface."""
    if isinstance(X, np.ndarray) or hasattr(X, "__array_interface__") or hasattr(X, "iloc"):
        return False
    return all(hasattr(X, name) for name in ("shape", "dtype", "__getitem__", "chunks"))


def check_open(X: Any, name: str) -> None:
    """Refuse an HDF5 dataset whose file has been closed: it has neither shape nor numbers."""
    if type(X).__module__.startswith("h5py") and not X:
        raise ValueError(f"{name} is a dataset of an HDF5 file that is closed: keep it open, or pass its path.")


def check_tensor(X: Any, name: str) -> None:
    """Refuse PyTorch tensors that are no matrix of numbers."""
    if X.is_nested:
        raise TypeError(
            f"{name} is a nested tensor, which holds tensors of different shapes: pass one matrix, such as "
            f"torch.cat({name}.unbind()) where they are rows of the same width."
        )
    if X.device.type == "meta":
        raise TypeError(
            f"{name} is a tensor on the device 'meta', which has a shape but no numbers: pass one with them."
        )
    if "sparse" in str(X.layout) and X.ndim == 2 and X.dense_dim() > 0:
        raise TypeError(
            f"{name} is a hybrid sparse tensor, whose stored entries are whole rows: pass {name}.to_dense(), or "
            f"{name}.to_dense().to_sparse()."
        )


def is_table(X: Any) -> bool:
    """Whether X is an Arrow table: typed columns that can be sliced by rows."""
    return all(hasattr(X, name) for name in ("num_rows", "column_names", "columns", "slice"))


def check_shape(shape: Any, name: str) -> None:
    """Two dimensions, known and not empty."""
    if len(shape) != 2:
        raise ValueError(
            f"Expected 2D array, got {len(shape)}D array instead: {name} has shape {tuple(shape)}. Reshape your data "
            "with array.reshape(-1, 1) if it has a single feature, or array.reshape(1, -1) if it is a single sample."
        )
    if not all(isinstance(size, numbers.Integral) for size in shape):
        raise ValueError(
            f"{name} does not know its number of rows yet (shape {tuple(shape)}): compute it first, with "
            f"{name}.compute_chunk_sizes() for a Dask array, or pass the rows in blocks."
        )
    if shape[0] == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={tuple(shape)}) while a minimum of 1 is required in {name}."
        )
    if shape[1] == 0:
        raise ValueError(
            f"Found array with 0 feature(s) (shape={tuple(shape)}) while a minimum of 1 is required in {name}."
        )


def check_dtype(dtype: Any, name: str) -> None:
    """A real numeric dtype or bool."""
    kind = np.dtype(dtype).kind
    if kind == "c":
        raise ValueError(
            f"Complex data not supported: {name} has dtype {dtype}. Pass {name}.real, or real and imaginary parts side "
            "by side."
        )
    if np.dtype(dtype).names is not None:
        raise ValueError(
            f"{name} has dtype {dtype} with named fields, which is no matrix of numbers: convert it with "
            f"numpy.lib.recfunctions.structured_to_unstructured({name})."
        )
    if kind not in _REAL_KINDS:
        raise ValueError(
            f"{name} has dtype {dtype}, which holds no real numbers; convert it to a float or integer dtype."
        )


def as_matrix(X: Any, name: str = "X") -> np.ndarray:
    """X as a 2-D NumPy array of real numbers: arrays as they are, other containers converted.

    Raises
    ------
    ValueError
        Wrong dimensions, no entries, complex numbers, strings, objects that are no numbers, ragged lists.
    TypeError
        Objects that cannot be turned into numbers at all, sparse matrices, sets.
    """
    if type(X) is np.ndarray and X.ndim == 2 and X.size and X.dtype.kind in _REAL_KINDS and X.itemsize <= 8:
        return X  # the usual case: nothing to convert, nothing to refuse
    if is_sparse(X):
        raise TypeError(f"{name} is sparse where a dense array is needed; use {name}.toarray().")
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            f"{name} is a masked array with masked entries, whose numbers are not to be used: pass "
            f"{name}.astype(float).filled(np.nan) with missing='em' where they are missing, or {name}.data to use them."
        )
    if isinstance(X, Set):
        raise TypeError(f"{name} is a {type(X).__name__}, which has no order: pass a list of rows or a 2-D array.")
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise ValueError(f"{name} cannot be made into an array (ragged rows?): {error}") from error
    if array.dtype.kind == "O" and array.ndim == 0 and X is not None:
        raise TypeError(
            f"{name} is an object of the type {type(X).__name__!r}, which is no matrix: pass a 2-D array, a list of "
            "rows, a table, a sparse matrix, a path or blocks of rows."
        )
    if array.dtype.kind == "O":
        array = object_to_float(array, name)
    elif array.dtype.kind in "US":
        raise ValueError(
            f"{name} holds strings (dtype {array.dtype}), which are no numbers: encode or convert them first."
        )
    if array.ndim == 0:
        raise ValueError(
            f"Expected 2D array, got scalar array instead: {name}={X!r}. Reshape your data with array.reshape(-1, 1) "
            "or array.reshape(1, -1)."
        )
    if array.dtype.kind == "V" and array.dtype.name.startswith(("bfloat16", "float8")):  # of other libraries
        array = array.astype(np.float32)
    check_dtype(array.dtype, name)
    check_shape(array.shape, name)
    if array.dtype == np.longdouble and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return array


def object_to_float(array: np.ndarray, name: str) -> np.ndarray:
    """Objects that are numbers, None and pandas' NA among them, as float64; the others raise, naming `name`."""
    if any(isinstance(value, complex) for value in array.flat):
        raise ValueError(f"Complex data not supported: {name} holds complex objects.")
    missing = [type(value).__name__ == "NAType" for value in array.flat]  # of pandas, which float() refuses
    if any(missing):
        array = np.where(np.reshape(missing, array.shape), np.nan, array)
    if array.size and isinstance(array.flat[0], (list, tuple, np.ndarray)):
        raise ValueError(
            f"{name} holds objects that are no numbers: its entries are lists or arrays. Make a matrix of them with "
            f"numpy.stack(list({name}))."
        )
    try:
        return array.astype(np.float64)
    except TypeError as error:
        # scikit-learn's words
        raise TypeError(
            f"{name} holds objects that are no numbers: argument must be a string or a number. {_way_out(array)}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{name} holds objects that are no numbers: {error}") from error


def _way_out(array: np.ndarray) -> str:
    """What to pass in place of objects that `float` refuses."""
    bad = next(value for value in array.flat if value is not None and not _is_a_number(value))
    ways = {Mapping: "a table made of the rows, such as pandas.DataFrame(rows)"} | {
        datetime.date: "numbers, such as days: numpy.asarray(dates, 'datetime64[D]').astype(float)"  # datetime is one
    }
    way = next((way for kind, way in ways.items() if isinstance(bad, kind)), "numbers in their place")
    return f"Some entries are of the type {type(bad).__name__!r}: pass {way}."


def _is_a_number(value: Any) -> bool:
    try:
        float(value)
    except TypeError:
        return False
    except ValueError:  # of a string
        return True
    return True


def range_message(size: float) -> str:
    """For data whose squares leave the range of float64; size : about how large entries are."""
    order = f"of the order of {size:.0e}" if np.isfinite(size) else "too large"
    return (
        f"Entries of X are {order}: sums of their squares leave the range of float64; multiply X by a power of ten "
        "that brings it nearer to one (components do not depend on it)."
    )


def nonfinite_message(row: int, column: str, value: float, suggests_em: bool = True) -> str:
    """The message for NaN or inf in X.

    column : in words (`feature_names.label`);  suggests_em : PCA(missing='em') would take these data
    """
    what = "NaN" if math.isnan(value) else "infinity (inf)"
    way = ", or use PCA(missing='em'), the only estimator that takes NaN as missing" if suggests_em else ""
    way = way if math.isnan(value) else ""
    return (
        f"Input X contains {what}: first at row {row}, {column} (counting from 0). Finite numbers are needed: drop "
        f"or impute those entries first{way} (NaN and inf are both refused)."
    )
