"""One frame in every container: the same components and names, or the refusal that docs/storage.md states."""

import re
from pathlib import Path

import numpy as np
import pytest

import lae_fast as lf

pandas = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")

NAMES = ["height", "width", "count", "tall"]
MISSING = (7, "width")


@pytest.fixture(scope="module")
def frame():
    """Floats, whole numbers and truth values; an index of shuffled numbers, a column of text, a missing cell."""
    rng = np.random.default_rng(0)
    height = rng.normal(5, 2, 60).round(3)
    frame = pandas.DataFrame(
        {
            "kind": rng.choice(["setosa", "virginica", "x, y"], 60),
            "height": height,
            "width": (0.4 * height + rng.normal(0, 0.5, 60)).round(3),
            "count": rng.integers(0, 9, 60),
            "tall": height > 5,
        },
        index=pandas.Index(rng.permutation(60) + 100),
    )
    frame.loc[frame.index[MISSING[0]], MISSING[1]] = np.nan
    return frame


@pytest.fixture(scope="module")
def expected(frame):
    return lf.PCA(2, missing="em").fit(frame[NAMES].to_numpy(dtype=np.float64))


def polars_frame(frame):
    polars = pytest.importorskip("polars")
    return polars.from_pandas(frame[NAMES])


def embedding(frame):
    """Three columns as one list of fixed size."""
    numbers = frame[NAMES].to_numpy(dtype=np.float64)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(numbers[:, :3].ravel(), from_pandas=True), 3)
    return pa.table({"x": lists, "tall": frame["tall"].to_numpy()})


def written(frame, path, **options):
    """A CSV file of all columns, as pandas writes it, of which the text is left out."""
    frame.to_csv(path, **options)
    return lf.TableFile(path, drop=["kind"])


def r_table(frame, path):
    """As R's write.table writes it: the names of the rows have no name."""
    text = frame.drop(columns="kind").to_csv().partition(",")[2]
    path.write_text(text)
    return path


def stored(frame, path):
    frame.to_parquet(path)
    return lf.TableFile(path, drop=["kind"])


def in_hdf5(frame, path):
    with h5py.File(path, "w") as file:
        file["x"] = frame[NAMES].to_numpy(dtype=np.float64)
    return path


def in_zarr(frame, path):
    numbers = frame[NAMES].to_numpy(dtype=np.float64)
    zarr.open_array(str(path), mode="w", shape=numbers.shape, dtype=numbers.dtype)[:] = numbers
    return path


def anndata_of(frame):
    anndata = pytest.importorskip("anndata")
    numbers = frame[NAMES].to_numpy(dtype=np.float64)
    found = anndata.AnnData(numbers, obs=frame[["kind"]].set_axis(frame.index.astype(str)))
    found.var_names = NAMES
    return found


def in_h5ad(frame, path):
    anndata_of(frame).write_h5ad(path)
    return path


def data_array(frame):
    xarray = pytest.importorskip("xarray")
    numbers = frame[NAMES].to_numpy(dtype=np.float64)
    return xarray.DataArray(numbers, dims=("row", "feature"), coords={"feature": NAMES, "row": frame.index.to_numpy()})


def tensor(frame):
    torch = pytest.importorskip("torch")
    return torch.tensor(frame[NAMES].to_numpy(dtype=np.float64), requires_grad=True)


def halves(frame):
    """Blocks, the second with its columns in another order."""
    return [frame[NAMES][:25], frame[NAMES[::-1]][25:]]


# What is built of the frame and a path, and whether it brings names.
TAKEN = {
    "pandas": (lambda frame, path: frame[NAMES], True),
    "pandas, nullable": (lambda frame, path: frame[NAMES].convert_dtypes(), True),
    "pandas, Arrow": (lambda frame, path: frame[NAMES].convert_dtypes(dtype_backend="pyarrow"), True),
    "pandas, objects": (lambda frame, path: frame[NAMES].astype(object), True),
    "polars": (lambda frame, path: polars_frame(frame), True),
    "Arrow table": (lambda frame, path: pa.Table.from_pandas(frame[NAMES]), True),
    "Arrow batch": (lambda frame, path: pa.RecordBatch.from_pandas(frame[NAMES]), True),
    "Parquet": (lambda frame, path: stored(frame, path / "x.parquet"), True),
    "CSV": (lambda frame, path: written(frame, path / "x.csv"), True),
    "CSV without index": (lambda frame, path: written(frame, path / "x.csv", index=False), True),
    "CSV, German": (lambda frame, path: written(frame, path / "x.csv", sep=";", decimal=","), True),
    "CSV, quoted": (lambda frame, path: written(frame, path / "x.csv", quoting=1), True),
    "TSV": (lambda frame, path: written(frame, path / "x.tsv", sep="\t", na_rep="NA"), True),
    "CSV of R": (lambda frame, path: r_table(frame, path / "x.csv"), True),
    "AnnData": (lambda frame, path: anndata_of(frame), True),
    "h5ad": (lambda frame, path: in_h5ad(frame, path / "x.h5ad"), True),
    "xarray": (lambda frame, path: data_array(frame), True),
    "blocks": (lambda frame, path: halves(frame), True),
    "blocks once": (lambda frame, path: lambda: iter(halves(frame)), True),
    "batches": (lambda frame, path: pa.Table.from_pandas(frame[NAMES]).to_batches(13), True),
    "array": (lambda frame, path: frame[NAMES].to_numpy(dtype=np.float64), False),
    "tensor": (lambda frame, path: tensor(frame), False),
    "HDF5": (lambda frame, path: in_hdf5(frame, path / "x.h5"), False),
    "Zarr": (lambda frame, path: in_zarr(frame, path / "x.zarr"), False),
}


@pytest.mark.parametrize("container", TAKEN)
def test_the_same_components_and_names(frame, expected, container, tmp_path):
    build, has_names = TAKEN[container]
    found = lf.PCA(2, missing="em").fit(build(frame, tmp_path))
    np.testing.assert_allclose(found.components_, expected.components_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.explained_variance_, expected.explained_variance_, rtol=1e-6)
    assert found.n_samples_ == 60
    assert list(getattr(found, "feature_names_in_", [])) == (NAMES if has_names else [])


@pytest.mark.parametrize("container", TAKEN)
def test_the_missing_cell_is_named(frame, container, tmp_path):
    build, has_names = TAKEN[container]
    name = r" \('width'\)" if has_names else ""
    with pytest.raises(
        ValueError, match=rf"contains NaN: first at row 7, column 1{name} \(counting from 0\)\. .*missing='em'"
    ):
        lf.PCA(2).fit(build(frame, tmp_path))


def test_a_list_of_fixed_size_is_a_matrix(frame, expected, tmp_path):
    table = embedding(frame)
    pq.write_table(table, tmp_path / "x.parquet")
    for X in (table, tmp_path / "x.parquet"):
        found = lf.PCA(2, missing="em").fit(X)
        np.testing.assert_allclose(found.components_, expected.components_, rtol=1e-6, atol=1e-6)
        assert list(found.feature_names_in_) == ["x[0]", "x[1]", "x[2]", "tall"]


def parquet_of(frame, path):
    frame.to_parquet(path)
    return path


def csv_of(frame, path):
    frame.to_csv(path)
    return path


def lazy(frame):
    return polars_frame(frame).lazy()


def dataset(frame):
    xarray = pytest.importorskip("xarray")
    return xarray.Dataset({"x": data_array(frame)})


WITH_TEXT = {
    "pandas": lambda frame, path: frame,
    "pandas, string": lambda frame, path: frame.convert_dtypes(),
    "pandas, category": lambda frame, path: frame.astype({"kind": "category"}),
    "pandas, Arrow": lambda frame, path: frame.convert_dtypes(dtype_backend="pyarrow"),
    "polars": lambda frame, path: pytest.importorskip("polars").from_pandas(frame),
    "Arrow table": lambda frame, path: pa.Table.from_pandas(frame),
    "Parquet": lambda frame, path: parquet_of(frame, path / "x.parquet"),
    "Parquet, category": lambda frame, path: parquet_of(frame.astype({"kind": "category"}), path / "x.parquet"),
    "CSV": lambda frame, path: csv_of(frame, path / "x.csv"),
}


@pytest.mark.parametrize("container", WITH_TEXT)
def test_text_is_refused_by_name(frame, container, tmp_path):
    with pytest.raises(ValueError, match=r"column 'kind' of \S+ holds (text|categories).*Leave it out \(.*drop"):
        lf.PCA(2).fit(WITH_TEXT[container](frame, tmp_path))


REFUSED = {
    "masked array": (lambda f: np.ma.masked_invalid(f[NAMES].to_numpy(dtype=float)), ValueError, "masked entries"),
    "records": (lambda f: f[NAMES].to_records(index=False).reshape(-1, 1), ValueError, "structured_to_unstructured"),
    "dict": (lambda f: dict(f[NAMES]), TypeError, "X is a dict, which is no matrix: pass a table"),
    "lazy frame": (lazy, TypeError, r"X\.collect\(\)"),
    "xarray Dataset": (dataset, TypeError, "pass one of them, such as X"),
    "unknown length": (lambda f: Unknown(), ValueError, r"number of rows yet.*compute_chunk_sizes"),
    "AnnData without X": (lambda f: without_X(f), ValueError, r"without X: pass one of its layers"),
}


class Unknown:
    """What a Dask array is after x[mask]."""

    shape, dtype, chunks, ndim = (float("nan"), 4), np.dtype("f8"), ((float("nan"),), (4,)), 2

    def __getitem__(self, key):
        raise IndexError("unknown chunk sizes")


def without_X(frame):
    anndata = pytest.importorskip("anndata")
    return anndata.AnnData(obs=frame[["kind"]].set_axis(frame.index.astype(str)))


@pytest.mark.parametrize("container", REFUSED)
@pytest.mark.parametrize("estimator", [lf.PCA(2), lf.IncrementalPCA(2), lf.TruncatedSVD(2), lf.LinearAutoencoder(2)])
def test_what_is_no_matrix_is_refused_with_the_way_out(frame, container, estimator):
    build, kind, message = REFUSED[container]
    with pytest.raises(kind, match=message):
        estimator.fit(build(frame))


def test_the_table_of_the_docs_names_every_container():
    """What is tested here is what the table promises: each of its rows has a case."""
    text = (Path(__file__).parents[2] / "docs" / "storage.md").read_text()
    table = text[text.index("| container |") :].split("\n\n")[0]
    for word in (
        "pandas",
        "Polars",
        "Arrow",
        "Parquet",
        "CSV",
        "AnnData",
        "xarray",
        "tensor",
        "HDF5",
        "Zarr",
        "blocks",
    ):
        assert re.search(word, table), word


@pytest.mark.parametrize("library", ["h5py", "zarr"])
def test_a_group_is_no_matrix_and_says_what_it_holds(library, tmp_path):
    opened = (
        h5py.File(tmp_path / "x.h5", "w") if library == "h5py" else zarr.open_group(str(tmp_path / "x.zarr"), mode="w")
    )
    group = opened.create_group("g")
    make = group.create_dataset if library == "h5py" else group.create_array
    make("x", shape=(4, 3), dtype="f8")
    for X, path in ((opened, "g/x"), (group, "x")):
        with pytest.raises(TypeError, match=rf"X is a group, which is no matrix: .*It holds: {path} 4 x 3\."):
            lf.PCA(1).fit(X)
