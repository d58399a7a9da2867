"""What is found in HDF5 files: behind links, in groups, as stored entries, with names; and what is refused."""

import h5py
import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast.data import files
from lae_fast.errors import DataFileError

X = np.random.default_rng(0).normal(size=(40, 5))


def opened(spec):
    with files.open_input(str(spec)) as source:
        return source.name, source.data.shape, source.names


@pytest.fixture
def master(tmp_path):
    """As detectors write it: the frames lie in other files, a link leads round, another one nowhere."""
    (tmp_path / "parts").mkdir()
    with h5py.File(tmp_path / "parts" / "data_1.h5", "w") as file:
        file["entry/data"] = X
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry/title"] = "a"
        file["entry/data/one"] = h5py.ExternalLink("parts/data_1.h5", "/entry/data")
        file["entry/data/gone"] = h5py.ExternalLink("parts/data_2.h5", "/entry/data")
        file["entry/data/nowhere"] = h5py.SoftLink("/nothing")
        file["entry/round"] = h5py.SoftLink("/entry")
        file["signal"] = h5py.SoftLink("/entry/data/one")
    return tmp_path / "master.h5"


def test_links_are_followed(master):
    name, shape, _ = opened(master)
    assert shape == (40, 5) and name.endswith((":signal", ":entry/data/one"))
    expected = lf.PCA(2).fit(X).components_
    for member in ("signal", "entry/data/one", "entry/round/data/one"):
        np.testing.assert_array_equal(lf.PCA(2).fit(f"{master}:{member}").components_, expected)


def test_a_link_that_leads_nowhere(master):
    for member, target in (("entry/data/gone", "parts/data_2.h5:/entry/data"), ("entry/data/nowhere", "/nothing")):
        with pytest.raises(DataFileError, match=rf"master\.h5:{member} is a link to {target}, which is not there"):
            opened(f"{master}:{member}")
    with pytest.raises(DataFileError, match=r"holds no data set 'q'; it holds: .*40 x 5"):
        opened(f"{master}:q")


@pytest.mark.parametrize("member", ["entry", "/entry/data/", "entry/round"])
def test_a_group_says_what_is_below(master, member):
    with pytest.raises(DataFileError, match=r"is a group, no data set; name one as FILE\.h5:DATASET.*one 40 x 5"):
        opened(f"{master}:{member}")


def test_one_matrix_under_two_names_is_one(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = X
        file["b"] = file["a"]
        file["c"] = h5py.SoftLink("/a")
        file["empty"] = h5py.Empty("f8")
    assert opened(tmp_path / "x.h5")[1] == (40, 5)


def test_a_long_list_is_cut(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for k in range(50):
            file[f"x{k:02}"] = X
    with pytest.raises(DataFileError, match=r"holds 50 matrices; .*x29 40 x 5, and 20 more"):
        opened(tmp_path / "x.h5")


@pytest.mark.parametrize("layout", ["csr", "csc"])
@pytest.mark.parametrize("legacy", [False, True])
def test_stored_entries_of_anndata(tmp_path, layout, legacy):
    matrix = scipy.sparse.random(40, 5, 0.3, format=layout, random_state=0)
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        group = file.create_group("X")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        if legacy:
            group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = layout, matrix.shape
            file["var"] = np.array([(f"g{j}".encode(), j) for j in range(5)], [("index", "S3"), ("n", "i4")])
        else:
            group.attrs["encoding-type"], group.attrs["shape"] = f"{layout}_matrix", matrix.shape
            file["var/gene"] = [f"g{j}" for j in range(5)]
            file["var"].attrs["_index"] = "gene"
        file.create_group("obs")
        file["layers/counts"] = X
    pca = lf.PCA(2).fit(tmp_path / "x.h5ad")
    np.testing.assert_allclose(pca.components_, lf.PCA(2).fit(matrix).components_, atol=1e-12)
    assert list(pca.feature_names_in_) == [f"g{j}" for j in range(5)]
    assert list(lf.PCA(2).fit(f"{tmp_path / 'x.h5ad'}:layers/counts").feature_names_in_) == list(pca.feature_names_in_)


@pytest.mark.parametrize("dense", [True, False])
def test_anndata_files_and_objects_go_by_names(tmp_path, dense):
    anndata = pytest.importorskip("anndata")
    matrix = np.where(X > 0.5, X, 0.0)
    data = anndata.AnnData(matrix if dense else scipy.sparse.csr_matrix(matrix))
    data.var_names = list("abcde")
    data.write_h5ad(tmp_path / "x.h5ad")
    data[:, list("ecdab")].copy().write_h5ad(tmp_path / "y.h5ad")
    pca = lf.PCA(2).fit(data)
    assert list(pca.feature_names_in_) == list("abcde")
    for other in (tmp_path / "x.h5ad", tmp_path / "y.h5ad"):
        np.testing.assert_allclose(pca.transform(other), pca.transform(data), atol=1e-12)
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    np.testing.assert_allclose(lf.PCA(2).fit(backed).components_, pca.components_, atol=1e-12)
    backed.file.close()


@pytest.mark.parametrize(
    ("attributes", "packed"),
    [
        ({"scale_factor": 0.1}, "scale_factor = 0.1"), ({"add_offset": np.float32(3)}, "add_offset = 3"),
        ({"_FillValue": np.int16([-999])}, "_FillValue = -999"), ({"missing_value": 1e20}, "missing_value = 1e"),
        ({"_Unsigned": "true"}, "_Unsigned = true"),
        ({"scale_factor": 1.0, "add_offset": 0.0, "_FillValue": np.nan}, None), ({"units": "K"}, None),
        ({"missing_value": [-9.0, -99.0]}, r"missing_value = \[-9\.0, -99\.0\]"),
        ({"scale_factor": [0.1, 0.1]}, r"scale_factor = \[0\.1, 0\.1\]"),
        ({"_FillValue": "none at all"}, "_FillValue = none at all"), ({"_Unsigned": b"true"}, "_Unsigned = true"),
        ({"missing_value": [np.nan, np.nan], "scale_factor": [1.0, 1.0], "_FillValue": "NaN"}, None),
    ],
)  # fmt: skip
def test_packed_numbers_are_not_taken_as_they_are(tmp_path, attributes, packed):
    with h5py.File(tmp_path / "x.nc", "w") as file:
        file["t"] = X
        file["t"].attrs.update(attributes)
    if packed is None:
        assert opened(tmp_path / "x.nc")[1] == (40, 5)
        return
    with pytest.raises(DataFileError, match=rf"x.nc:t holds packed numbers \({packed}.*xarray\.open_dataset"):
        opened(tmp_path / "x.nc")
    with (
        h5py.File(tmp_path / "x.nc") as file,
        pytest.raises(DataFileError, match=rf"X holds packed numbers \({packed}"),
    ):
        lf.PCA(2).fit(file["t"])
    if "Unsigned" in packed:
        return
    zarr = pytest.importorskip("zarr")
    stored = zarr.open_array(str(tmp_path / "x.zarr"), mode="w", shape=X.shape, dtype=X.dtype)
    stored.attrs.update({name: np.asarray(value).tolist() for name, value in attributes.items()})
    with pytest.raises(DataFileError, match=r"x\.zarr holds packed numbers"):
        lf.PCA(2).fit(tmp_path / "x.zarr")


def test_links_that_lead_back_to_themselves(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
        file["x"] = X
    assert opened(tmp_path / "x.h5")[0].endswith(":x")
    for member in ("a", "a/x"):
        with pytest.raises(DataFileError, match=rf"x\.h5:{member} is a link that leads back to itself"):
            opened(f"{tmp_path / 'x.h5'}:{member}")


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
@pytest.mark.filterwarnings("ignore")
def test_anndata_takes_x_and_no_other_matrix(tmp_path, suffix, layout):
    anndata, pandas = pytest.importorskip("anndata"), pytest.importorskip("pandas")
    pytest.importorskip("zarr")
    matrix = np.where(X > 0.5, X, 0.0)
    names = pandas.DataFrame(index=list("abcde"))
    of_anndata = anndata.AnnData(
        matrix if layout == "dense" else getattr(scipy.sparse, f"{layout}_matrix")(matrix), var=names
    )
    of_anndata.obsm["X_pca"] = np.ones((40, 2))
    path = tmp_path / f"x.{suffix}"
    write = of_anndata.write_h5ad if suffix == "h5ad" else of_anndata.write_zarr
    write(path)
    name, shape, found = opened(path)
    assert name.endswith(":X") and shape == (40, 5) and found == tuple("abcde")
    np.testing.assert_allclose(lf.PCA(2).fit(path).components_, lf.PCA(2).fit(matrix).components_, atol=1e-12)
    assert opened(f"{path}:obsm/X_pca")[1:] == ((40, 2), None)
    with pytest.raises(DataFileError, match=r"obsm is a group, no .* Below it are: X_pca 40 x 2"):
        opened(f"{path}:obsm")


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("held", ["layers", "obsm"])
@pytest.mark.filterwarnings("ignore")
def test_anndata_without_x_is_refused(tmp_path, suffix, held):
    anndata, pandas = pytest.importorskip("anndata"), pytest.importorskip("pandas")
    pytest.importorskip("zarr")
    rows = pandas.DataFrame(index=list(map(str, range(40))))
    of_anndata = anndata.AnnData(obs=rows, var=pandas.DataFrame(index=list("abcde")))
    getattr(of_anndata, held)["one"] = X
    path = tmp_path / f"x.{suffix}"
    (of_anndata.write_h5ad if suffix == "h5ad" else of_anndata.write_zarr)(path)
    with pytest.raises(DataFileError, match=rf"without X: name a layer as x\.{suffix}:layers/NAME.*{held}/one 40 x 5"):
        opened(path)
    assert opened(f"{path}:{held}/one")[1:] == ((40, 5), tuple("abcde") if held == "layers" else None)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("fill", [None, np.nan, -999.0])
@pytest.mark.filterwarnings("ignore")
def test_fill_values_that_xarray_writes_to_zarr(tmp_path, version, fill):
    xarray, _ = pytest.importorskip("xarray"), pytest.importorskip("zarr")
    data = xarray.Dataset({"t": (("a", "b"), X)})
    data["t"].encoding["_FillValue"] = fill
    data.to_zarr(tmp_path / "x.zarr", zarr_format=version, consolidated=False)
    if fill == -999:
        with pytest.raises(DataFileError, match=r"t holds packed numbers \(_FillValue = -999"):
            opened(tmp_path / "x.zarr")
    else:
        assert opened(tmp_path / "x.zarr")[1] == (40, 5)
