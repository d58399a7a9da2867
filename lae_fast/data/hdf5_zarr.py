"""HDF5 files and Zarr stores: opening them, and what they hold.

They hold matrices, also behind links; sparse matrices, names of observations and variables as AnnData writes them; and
attributes that say how the numbers are packed.  h5py, zarr and SciPy are imported when a file needs them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataFileError
from .opened_file import UNREADABLE, OpenedFile, checked, listed, only_matrix, unreadable

# Attributes by which netCDF says that the stored numbers are not the ones that are meant.
_PACKED = ("scale_factor", "add_offset", "_FillValue", "missing_value")


def open_hdf5(path: Path, member: str | None, stack: contextlib.ExitStack) -> OpenedFile:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"reading {path} needs h5py; install it with: pip install 'lae-fast[io]'") from error
    try:
        file = stack.enter_context(h5py.File(path, "r"))
    except OSError as error:
        raise DataFileError(unreadable(path, error)) from error
    try:
        return checked(_in_hdf5(path, file, member))
    except UNREADABLE as error:
        raise DataFileError(str(error) if isinstance(error, DataFileError) else unreadable(path, error)) from error


def _in_hdf5(path: Path, file: Any, member: str | None) -> OpenedFile:
    if member is None:
        member = _main_matrix(path, file, members, "FILE.h5:DATASET")
    item = look_up(file, member)
    if item is None:
        raise DataFileError(f"{path} holds no data set {member!r}; it holds: {listed(members(file))}")
    return _in_group(path, file, member, item, "HDF5")


def open_zarr(path: Path, member: str | None) -> OpenedFile:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"reading {path} needs zarr; install it with: pip install 'lae-fast[io]'") from error
    try:
        opened = zarr.open(path, mode="r")
        if isinstance(opened, zarr.Array):
            if member is not None:
                raise DataFileError(f"{path} is one array; leave out :{member}")
            check_unpacked(opened, str(path))
            return checked(OpenedFile(str(path), opened, "read from Zarr block by block"))
        if member is None:
            member = _main_matrix(path, opened, members_of_store, "FILE.zarr:ARRAY")
        elif member.strip("/") not in opened:
            held = listed(members_of_store(opened))
            raise DataFileError(f"{path} holds no array {member!r}; it holds: {held}")
        return checked(_in_group(path, opened, member, opened[member.strip("/")], "Zarr"))
    except UNREADABLE as error:
        raise DataFileError(str(error) if isinstance(error, DataFileError) else unreadable(path, error)) from error


def _main_matrix(path: Path, group: Any, list_members: Callable[[Any], dict[str, tuple[int, ...]]], how: str) -> str:
    """Name of the matrix that is meant where the user names none: AnnData's X, or the only one."""
    if not is_anndata(group) and path.suffix.lower() != ".h5ad":
        return only_matrix(path, list_members(group), how)
    if "X" not in group:
        raise DataFileError(
            f"{path} is an AnnData file without X: name a layer as {path.name}:layers/NAME. It holds: "
            f"{listed(list_members(group))}"
        )
    return "X"


def _in_group(path: Path, group: Any, member: str, item: Any, storage: str) -> OpenedFile:
    """A dataset, array or sparse matrix of an HDF5 file or Zarr store."""
    name, names = f"{path}:{member}", variable_names(group, member)
    if hasattr(item, "shape"):
        check_unpacked(item, name)
        return OpenedFile(name, item, f"read from {storage} block by block", column_names=names)
    if sparse_format(item) is None:
        what, how = ("data set", "FILE.h5:DATASET") if storage == "HDF5" else ("array", "FILE.zarr:ARRAY")
        below = listed(members(item) if storage == "HDF5" else members_of_store(item))
        raise DataFileError(f"{name} is a group, no {what}; name one as {how}. Below it are: {below}")
    matrix = read_sparse(item)
    where = f"sparse {matrix.format}, {matrix.nnz} stored entries, read into memory"
    return OpenedFile(name, matrix, where, column_names=names)


def members(group: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the datasets and sparse matrices below a group, by path; each once, by the first path that leads there.

    Soft and external links are followed; broken ones are left out.
    """
    import h5py

    found, seen, waiting = {}, {group}, [("", group)]
    while waiting:
        prefix, parent = waiting.pop(0)
        for name in parent:
            try:
                item = parent[name]
            except (KeyError, OSError, RuntimeError):
                continue
            if item in seen or isinstance(item, h5py.Datatype):
                continue
            seen.add(item)
            path = f"{prefix}{name}"
            if isinstance(item, h5py.Dataset):
                found[path] = item.shape or ()
            elif sparse_format(item):
                found[path] = _sparse_shape(item)
            else:
                waiting.append((f"{path}/", item))
    return found


def members_of_store(group: Any) -> dict[str, tuple[int, ...]]:
    """As `members`, of a Zarr group: shapes of its arrays and sparse matrices, by path."""
    found, waiting = {}, [("", group)]
    while waiting:
        prefix, parent = waiting.pop(0)
        for name, item in parent.members():
            if hasattr(item, "shape"):
                found[f"{prefix}{name}"] = tuple(item.shape)
            elif sparse_format(item):
                found[f"{prefix}{name}"] = _sparse_shape(item)
            else:
                waiting.append((f"{prefix}{name}/", item))
    return found


def refuse_group(X: Any, name: str) -> None:
    """Refuse an HDF5 file, or a group of HDF5 or Zarr, passed as X: it holds matrices, and is none.

    Raises
    ------
    TypeError
        Lists what is in it.
    """
    library = type(X).__module__.partition(".")[0]
    if library not in ("h5py", "zarr") or hasattr(X, "shape") or not (hasattr(X, "attrs") and hasattr(X, "keys")):
        return
    found = members(X) if library == "h5py" else members_of_store(X)
    raise TypeError(
        f"{name} is a group, which is no matrix: pass a dataset in it, such as {name}['NAME']. It holds: "
        f"{listed(found)}."
    )


def look_up(file: Any, member: str) -> Any:
    """The dataset or group of this name in an HDF5 file, or None where there is none.

    Raises
    ------
    DataFileError
        It is a broken or circular link; the message says where it points.
    """
    try:
        return file[member]
    except (KeyError, OSError, RuntimeError) as error:
        if "too many" in str(error):
            raise DataFileError(f"{file.filename}:{member} is a link that leads back to itself") from error
        link = file.get(member, getlink=True)
        if link is None or not hasattr(link, "path"):
            return None
        target = f"{link.filename}:{link.path}" if hasattr(link, "filename") else link.path
        raise DataFileError(f"{file.filename}:{member} is a link to {target}, which is not there") from error


def sparse_format(item: Any) -> str | None:
    """ "csr" or "csc" where a group holds a sparse matrix as AnnData writes it."""
    kind = _text(item.attrs.get("encoding-type", item.attrs.get("h5sparse_format", ""))).removesuffix("_matrix")
    return kind if kind in ("csr", "csc") and "indptr" in item else None


def bytes_to_read(dataset: Any) -> int:
    """What a reader of chunks holds beside the rows it hands out: one chunk, and those in HDF5's cache."""
    if not getattr(dataset, "chunks", None):
        return 0
    chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if not hasattr(dataset, "id"):  # Zarr
        return chunk
    cache: int = dataset.id.get_access_plist().get_chunk_cache()[1]
    return chunk if chunk > cache else chunk + cache


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _sparse_shape(group: Any) -> tuple[int, ...]:
    shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
    return () if shape is None else tuple(map(int, shape))


def read_sparse(group: Any) -> Any:
    """The matrix, in memory."""
    import scipy.sparse

    kind = getattr(scipy.sparse, f"{sparse_format(group)}_array")
    arrays = tuple(group[name][:] for name in ("data", "indices", "indptr"))
    return kind(arrays, shape=_sparse_shape(group))


def is_anndata(file: Any) -> bool:
    """Whether a file or store is AnnData's: observations in rows, and their names and the variables' beside them."""
    return _text(file.attrs.get("encoding-type", "")) == "anndata" or all(name in file for name in ("X", "var", "obs"))


def variable_names(file: Any, member: str) -> tuple[str, ...] | None:
    """Names of the columns of X or a layer of an AnnData file; None where there are none."""
    member = member.strip("/")
    if not is_anndata(file) or not (member == "X" or member.startswith("layers/")):
        return None
    if "var" not in file:
        return None
    variables = file["var"]
    key = variables.attrs.get("_index", "_index") if hasattr(variables, "keys") else "index"
    key = key.decode() if isinstance(key, bytes) else key
    names = variables.dtype.names if variables.__class__.__name__ == "Dataset" else variables
    if names is None or key not in names:
        return None
    column = variables[key]
    if not hasattr(column, "shape"):  # a group: names of another kind, such as with missing ones
        return None
    return tuple(map(_text, np.asarray(column[:])))


def check_unpacked(data: Any, where: str) -> None:
    """Refuse an array whose attributes say that its numbers must be unpacked, or that one of them means "missing".

    data : of h5py, Zarr or xarray, which all have `attrs`

    Raises
    ------
    DataFileError
        Says which attributes, and the way out.
    """
    told = {}
    attributes = {name: data.attrs[name] for name in _PACKED if name in data.attrs}
    if "_ARRAY_DIMENSIONS" in data.attrs and getattr(getattr(data, "metadata", None), "zarr_format", 2) == 2:
        attributes.setdefault("_FillValue", getattr(data, "fill_value", None))  # as xarray writes it
    for name, value in attributes.items():
        values, harmless = _numbers(value), {"scale_factor": 1.0, "add_offset": 0.0}.get(name)
        if values is None or not np.all(np.isnan(values) | (values == harmless)):
            shown = value if values is None else values.tolist()
            told[name] = shown[0] if isinstance(shown, list) and len(shown) == 1 else shown
    if _text(data.attrs.get("_Unsigned", "")).lower() == "true":
        told["_Unsigned"] = "true"
    if told:
        said = ", ".join(f"{name} = {value}" for name, value in told.items())
        raise DataFileError(
            f"{where} holds packed numbers ({said}), which are not the ones that are meant: read it with "
            "xarray.open_dataset or open_zarr and pass the variable, or write it unpacked."
        )


def _numbers(value: Any) -> np.ndarray | None:
    """Numbers in an attribute: as such, as text, or as xarray writes them in Zarr 3; None where there are none."""
    if value is None:
        return np.empty(0)
    if isinstance(value, (str, bytes)):
        try:
            return np.array([float(value)])
        except ValueError:
            pass
        try:
            return np.frombuffer(base64.b64decode(value, validate=True), "<f8")
        except (ValueError, binascii.Error):
            return None
    values = np.ravel(value)
    return values.astype(np.float64) if values.dtype.kind in "iufb" else None
