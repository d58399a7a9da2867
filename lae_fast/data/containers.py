"""Containers of other libraries in memory: frames, tensors, labelled arrays; what is taken of each, or why nothing is.

The libraries are never imported here: an object of one of them shows that it is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import validation
from . import arrow, feature_names, tables
from .dask_rows import is_dask

_LEAVE_OUT = "{name}.drop(columns=[...])"


def unwrapped(X: Any, name: str) -> tuple[Any, tuple[str, ...] | None]:
    """X as an array, sparse matrix, `tables.TableRows` or sliceable object; and the names of its columns, or None.

    Raises
    ------
    TypeError, ValueError
        Some columns hold no numbers (the message names them), or the container is no matrix (it says what to pass).
    """
    if isinstance(X, np.ndarray) or validation.is_sparse(X) or is_dask(X):
        return X, None
    for library, kind, convert in _KNOWN:
        if _is(X, library, kind):
            return convert(X, name)
    streams = hasattr(X, "__arrow_c_stream__") and not (hasattr(X, "__array__") or isinstance(X, Iterator))
    if validation.is_table(X) or streams:
        rows = arrow.ArrowRows(X, name)
        return rows, rows.names
    labels = getattr(X, "names", None)
    shape: tuple[Any, ...] = getattr(X, "shape", ())
    return X, labels if isinstance(labels, tuple) and len(shape) == 2 and len(labels) == shape[1] else None


def is_pandas(X: Any) -> bool:
    """Whether X is a pandas DataFrame, whose names scikit-learn reads itself."""
    return _is(X, "pandas", "DataFrame")


def is_tensor(X: Any) -> bool:
    """Whether X is a PyTorch tensor, on whatever device."""
    return _is(X, "torch", "Tensor")


def rows_of_batch(X: Any) -> Any:
    """The rows of a batch of a PyTorch DataLoader: [rows] and [rows, labels, ...] are its rows, all else is X itself.

    Several matrices are blocks of rows, as in any list.
    """
    is_batch = type(X) in (list, tuple) and bool(X) and all(map(is_tensor, X)) and X[0].ndim == 2
    return X[0] if is_batch and all(part.ndim != 2 for part in X[1:]) else X


def as_matrix(X: Any, name: str) -> np.ndarray:
    """`validation.as_matrix`, which also takes PyTorch tensors on the host, whatever their dtype and history."""
    if is_tensor(X):
        validation.check_tensor(X, name)
        X = unwrapped(X, name)[0]
    return validation.as_matrix(X, name)


def _is(X: Any, library: str, kind: str) -> bool:
    """Whether X is, or derives from, a class of this name; the library is not imported for it."""
    if library not in sys.modules:
        return False
    return any(cls.__name__ == kind and cls.__module__.partition(".")[0] == library for cls in type(X).__mro__)


def _pandas(frame: Any, name: str) -> tuple[Any, tuple[str, ...] | None]:
    stored = [isinstance(label, str) and tables.is_stored_index(label) for label in frame.columns]
    if any(stored):
        frame = frame.loc[:, [not of_index for of_index in stored]]
    validation.check_shape(frame.shape, name)
    kinds = [_pandas_kind(dtype) for dtype in frame.dtypes]
    bad = []
    for j, (label, dtype, (kind, found)) in enumerate(zip(frame.columns, frame.dtypes, kinds)):
        if kind == "objects":
            bad += [(str(label), *fault) for fault in _object_faults(frame.iloc[:, j].to_numpy(dtype=object))]
        elif found is None:
            bad.append((str(label), kind, str(dtype)))
    tables.check_columns(bad, name, _LEAVE_OUT.format(name=name))
    labels = feature_names.of_strings(frame.columns)
    if any(kind == "sparse" for kind, _ in kinds):
        return _sparse_columns(frame, kinds, name), labels
    if all(kind == "" for kind, _ in kinds):  # NumPy's own dtypes: as they lie, where all are of one
        return frame.to_numpy(dtype=np.result_type(*{dtype for _, dtype in kinds})), labels
    parts = [_pandas_numbers(frame.iloc[:, j], *kinds[j], name) for j in range(len(kinds))]
    widths = [1 if part.ndim == 1 else part.shape[1] for part in parts]
    out = np.empty((len(frame), sum(widths)), np.result_type(*{part.dtype for part in parts}), order="F")
    place = 0
    for width, part in zip(widths, parts):
        out[:, place : place + width] = part.reshape(len(frame), width)
        place += width
    if labels is not None:
        labels = tables.feature_names(
            tables.Column(label, j, part.dtype, part.shape[1] if part.ndim == 2 else None)
            for j, (label, part) in enumerate(zip(labels, parts))
        )
    return out, labels


def _object_faults(values: np.ndarray) -> list[tuple[str, str]]:
    """Kind and an example where a column of objects holds text, or lists that are no rows of a matrix; else nothing."""
    text = next((value for value in values if isinstance(value, (str, bytes))), None)
    if text is not None:
        return [("text", f"such as {text!r}")]
    if any(map(_is_list, values)):
        lengths = {len(value) if _is_list(value) else -1 for value in values if not _is_missing(value)}
        return [("lists of different lengths", "object")] if len(lengths) > 1 else []
    return []


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, np.ndarray))


def _is_missing(value: Any) -> bool:
    """Whether an object is None, NaN or pandas' NA."""
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and np.isnan(value))


def _pandas_kind(dtype: Any) -> tuple[str, np.dtype | None]:
    """What a column of this dtype is, and the dtype of its numbers, None where it is refused or must be looked at."""
    if isinstance(dtype, np.dtype):
        if dtype.kind in "fiub":
            return "", dtype
        return {"M": "dates", "m": "times", "O": "objects", "c": "complex numbers"}.get(dtype.kind, "values"), None
    if hasattr(dtype, "subtype") and hasattr(dtype, "fill_value"):
        return ("sparse", dtype.subtype) if dtype.subtype.kind in "fiub" else ("values", None)
    if dtype.name == "category":
        return "categories", None
    if hasattr(dtype, "pyarrow_dtype"):
        width, kind, found = arrow.kind_of(dtype.pyarrow_dtype)
        return ("lists", None) if width is not None else ("nullable" if found is not None else kind, found)
    if hasattr(dtype, "numpy_dtype") and dtype.numpy_dtype.kind in "fiub":
        return "nullable", dtype.numpy_dtype
    if dtype.kind == "M" or dtype.name.startswith("period"):
        return "dates", None
    return ("text" if dtype.name in ("string", "str") else "values"), None


def _pandas_numbers(column: Any, kind: str, dtype: np.dtype | None, name: str) -> np.ndarray:
    """The numbers of one column, what is missing as NaN: (rows,), or (rows, width) where its entries are lists."""
    if kind == "":
        return column.to_numpy()
    if kind == "nullable":
        if column.isna().any():
            floating = dtype is not None and dtype.kind == "f"
            return column.to_numpy(dtype=dtype if floating else np.float64, na_value=np.nan)
        return column.to_numpy(dtype=dtype)
    values = column.to_numpy(dtype=object)
    if any(map(_is_list, values)):
        width = next(len(value) for value in values if _is_list(value))
        rows = [[np.nan] * width if _is_missing(value) else value for value in values]
        return validation.as_matrix(rows, f"column {str(column.name)!r} of {name}")
    return validation.object_to_float(values, f"column {str(column.name)!r} of {name}")


def _sparse_columns(frame: Any, kinds: list[tuple[str, np.dtype | None]], name: str) -> Any:
    """A frame of which some columns are sparse, as a CSC matrix of what they store."""
    import scipy.sparse

    parts, places, counts = [], [], [0]
    for j, (kind, dtype) in enumerate(kinds):
        column = frame.iloc[:, j]
        if kind != "sparse":
            values = _pandas_numbers(column, kind, dtype, name)
            if values.ndim == 2:
                raise ValueError(
                    f"Column {str(column.name)!r} of {name} holds lists, which are not taken beside sparse columns: "
                    "make those dense with .sparse.to_dense(), or the lists columns of their own."
                )
            stored = np.flatnonzero(values)
            values = values[stored]
        else:
            fill = column.array.fill_value
            if fill != 0:
                raise ValueError(
                    f"Column {str(column.name)!r} of {name} is sparse about {fill}, not about 0: make it dense with "
                    ".sparse.to_dense(), or sparse about 0."
                )
            stored, values = column.array.sp_index.indices, column.array.sp_values
        parts.append(values)
        places.append(stored)
        counts.append(len(stored))
    indptr = np.cumsum(counts)
    width = np.int32 if max(indptr[-1], *frame.shape) < 2**31 else np.int64
    data = np.concatenate(parts)
    if data.dtype == np.float16:  # SciPy has no sparse float16
        data = data.astype(np.float32)
    return scipy.sparse.csc_array((data, np.concatenate(places).astype(width), indptr.astype(width)), shape=frame.shape)


class PolarsRows(tables.TableRows):
    """The number columns of a Polars frame."""

    def __init__(self, frame: Any, name: str) -> None:
        self._frame, self._float = frame, sys.modules["polars"].Float64
        columns, bad = [], []
        for place, (label, dtype) in enumerate(frame.schema.items()):
            if tables.is_stored_index(label):
                continue
            width, kind, found = _polars_kind(dtype)
            if found is None:
                bad.append((label, kind, str(dtype)))
                continue
            part = frame.to_series(place)
            if width == 0:
                lengths = part.list.len().drop_nulls().unique().to_list()
                width = lengths[0] if len(lengths) == 1 and lengths[0] else None
                if width is None:
                    bad.append((label, "lists of different lengths", str(dtype)))
                    continue
            lacks = part.null_count() or (width is not None and part.explode().null_count())
            columns.append(
                tables.Column(label, place, np.dtype(np.float64) if lacks and found.kind != "f" else found, width)
            )
        tables.check_columns(bad, name, f"{name}.drop([...])")
        super().__init__(frame.height, columns)

    def part(self, column: tables.Column, first: int, last: int) -> np.ndarray:
        part = self._frame.to_series(column.place).slice(first, last - first)
        if column.width is None:
            if part.dtype.base_type().__name__ in ("Boolean", "Decimal", "Null", "Int128", "UInt128"):
                part = part.cast(self._float)
            return part.to_numpy()
        present = part.is_not_null().to_numpy()
        out = np.full((last - first, column.width), np.nan if not present.all() else 0, column.dtype)
        out[present] = part.drop_nulls().explode().cast(self._float).to_numpy().reshape(-1, column.width)
        return out


def _polars_kind(dtype: Any) -> tuple[int | None, str, np.dtype | None]:
    """As `arrow.kind_of`."""
    kind = dtype.base_type().__name__
    if kind == "Array":
        width, _, found = _polars_kind(dtype.inner)
        return (int(dtype.size), "", found) if width is None and found is not None else (None, "lists", None)
    if kind == "List":
        width, _, found = _polars_kind(dtype.inner)
        return (0, "", found) if width is None and found is not None else (None, "lists", None)
    if kind in ("Decimal", "Null", "Int128", "UInt128"):
        return None, "", np.dtype(np.float64)
    if kind == "Boolean":
        return None, "", np.dtype(bool)
    if dtype.is_numeric():
        return None, "", np.dtype(kind.lower())
    kinds = {
        "String": "text", "Categorical": "categories", "Enum": "categories", "Date": "dates", "Datetime": "dates",
        "Time": "times", "Duration": "times", "Struct": "structs", "Binary": "bytes",
    }  # fmt: skip
    return None, kinds.get(kind, "values"), None


def _polars(frame: Any, name: str) -> tuple[Any, tuple[str, ...] | None]:
    rows = PolarsRows(frame, name)
    return rows, rows.names


def _tensor(X: Any, name: str) -> tuple[Any, None]:
    """A PyTorch tensor on the host: its numbers, without the history that gradients need."""
    X = X.detach()
    if X.device.type != "cpu":
        raise TypeError(f"{name} is a tensor on the device {str(X.device)!r}: pass {name}.cpu().")
    if X.is_quantized:
        raise TypeError(f"{name} is a quantized tensor: pass {name}.dequantize().")
    if str(X.dtype).removeprefix("torch.").startswith(("bfloat16", "float8")):
        X = X.float()  # exact; NumPy has no such dtype
    if "sparse" not in str(X.layout):
        return X.resolve_conj().resolve_neg().numpy(), None
    import scipy.sparse

    validation.check_shape(tuple(X.shape), name)
    X = X.to_sparse_coo().coalesce()
    return scipy.sparse.coo_array((X.values().numpy(), tuple(X.indices().numpy())), shape=tuple(X.shape)).tocsr(), None


def _anndata(X: Any, name: str) -> tuple[Any, tuple[str, ...] | None]:
    """The matrix X of observations by variables; `obs`, `layers` and the other parts are not used."""
    matrix = X.X
    if matrix is None:
        raise ValueError(f"{name} is an AnnData object without X: pass one of its layers, {name}.layers[...].")
    if not hasattr(matrix, "dtype") or hasattr(matrix, "to_memory"):  # stored entries that are still in their file
        matrix = matrix.to_memory()
    return unwrapped(matrix, f"{name}.X")[0], feature_names.of_strings(X.var_names)


def _data_array(X: Any, name: str) -> tuple[Any, tuple[str, ...] | None]:
    """An xarray DataArray: the first dimension is the rows; names where the second has text for coordinates."""
    validation.check_shape(X.shape, name)
    coordinates = X.coords.get(X.dims[1])
    rows = X.data if is_dask(X.data) else X
    return rows, None if coordinates is None else feature_names.of_strings(coordinates.values.tolist())


def _refused(message: str) -> Any:
    def refuse(X: Any, name: str) -> Any:
        raise TypeError(message.format(name=name))

    return refuse


# Library, class, and what makes of its objects what `unwrapped` returns.
_KNOWN = (
    ("pandas", "DataFrame", _pandas),
    ("polars", "DataFrame", _polars),
    ("torch", "Tensor", _tensor),
    (
        "torch", "DataLoader",
        _refused(
            "{name} is a DataLoader: pass its batches to partial_fit one by one, or to fit as blocks of rows, such as "
            "lambda: (rows for rows, *_ in {name})."
        ),
    ),
    ("anndata", "AnnData", _anndata),
    ("xarray", "DataArray", _data_array),
    ("polars", "LazyFrame", _refused("{name} is a LazyFrame, which has not been computed: pass {name}.collect().")),
    (
        "xarray", "Dataset",
        _refused("{name} is an xarray Dataset, which holds several arrays: pass one of them, such as {name}['name']."),
    ),
    (
        "builtins", "dict",
        _refused(
            "{name} is a dict, which is no matrix: pass a table made of it, such as pandas.DataFrame({name}), or "
            "numpy.column_stack(list({name}.values()))."
        ),
    ),
)  # fmt: skip
