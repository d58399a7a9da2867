"""`save` and `load`: every fitted estimator comes back as it was, from a file without pickle."""

import json
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.exceptions import NotFittedError

import lae_fast as lf
from lae_fast import cli
from lae_fast.errors import DataFileError

pytestmark = [pytest.mark.needs_jit, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]


def rows(dtype=np.float64):
    return (np.random.default_rng(0).standard_normal((60, 6)) * [6, 5, 4, 3, 2, 1] + 1000.0).astype(dtype)


def with_gaps():
    X = rows()
    X[::7, 2] = np.nan
    return X


FITTED = {
    "PCA": lambda: lf.PCA(3).fit(rows(np.float32)),
    "a fraction": lambda: lf.PCA(0.9, svd_solver="full").fit(rows()),
    "whitened": lambda: lf.PCA(3, whiten=True, standardize=True).fit(rows()),
    "missing": lambda: lf.PCA(2, missing="em").fit(with_gaps()),
    "stream": lambda: lf.PCA(2).partial_fit(rows()[:40]),
    "IncrementalPCA": lambda: lf.IncrementalPCA(2, forget=0.99).partial_fit(rows()[:40]).partial_fit(rows()[40:]),
    "fit of IncrementalPCA": lambda: lf.IncrementalPCA().fit(rows()),
    "TruncatedSVD": lambda: lf.TruncatedSVD(3, algorithm="arpack").fit(rows()),
    "LinearAutoencoder": lambda: lf.LinearAutoencoder(2, loss=lf.losses.sum_l2(0.1), max_iter=50).fit(rows()),
    "objects": lambda: lf.LinearAutoencoder(
        2, loss=lf.losses.nested_dropout(lf.losses.geometric_prior(0.5)), stop=[lf.stopping.gradient()],
        optimizer=lf.optimizers.adam(0.01, beta2=0.99), hidden=(4,), max_iter=20, record=("rate",),
    ).fit(rows()),
    "targets": lambda: lf.LinearAutoencoder(2, max_iter=20).fit(rows(), targets=rows()[:, :4]),
    "a pair of scales": lambda: lf.LinearAutoencoder(2, init_scale=(0.1, 0.2), max_iter=20).fit(rows()),
    "vae": lambda: lf.LinearAutoencoder(2, loss="vae", max_iter=20).fit(rows()),
    "a start": lambda: lf.LinearAutoencoder(2, init=(np.eye(6, 2), np.eye(2, 6)), max_iter=20).fit(rows()),
}  # fmt: skip


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, float):
        np.testing.assert_equal(found, expected)
    elif type(expected).__module__.startswith("lae_fast.op"):
        assert_same(vars(found), vars(expected))
    else:
        assert found == expected


@pytest.mark.parametrize("name", FITTED)
def test_comes_back_as_it_was(name, tmp_path):
    expected, path = FITTED[name](), tmp_path / "model.npz"
    expected.save(path)
    found = lf.load(str(path))
    assert_same(found.get_params(), expected.get_params())
    assert_same(found._fitted(), expected._fitted())
    X = with_gaps() if name == "missing" else rows()
    codes = found.transform(X)
    np.testing.assert_array_equal(codes, expected.transform(X))
    np.testing.assert_array_equal(found.inverse_transform(codes), expected.inverse_transform(codes))
    if hasattr(expected, "score_samples"):
        np.testing.assert_array_equal(found.score_samples(X), expected.score_samples(X))
    with np.load(path, allow_pickle=False) as file:
        assert all(file[key].dtype.kind in "biufU" for key in file.files)
        assert file["format_version"] == 2 and json.loads(str(file["meta"]))["lae_fast"] == lf.__version__
    found.fit(X if name != "targets" else rows())


@pytest.mark.parametrize("name", ["PCA", "whitened", "missing", "IncrementalPCA", "TruncatedSVD", "LinearAutoencoder"])
def test_the_command_line_reads_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected, X = FITTED[name](), with_gaps() if name == "missing" else rows()
    expected.save("model.npz")
    np.save("x.npy", X)
    assert cli.main(["transform", "model.npz", "x.npy", "-o", "codes.npy", "-q"]) == 0
    np.testing.assert_array_equal(np.load("codes.npy"), expected.transform(X))


@pytest.mark.parametrize("options", [["pca", "-k", "2"], ["pca", "-k", "0.9", "--standardize"], ["train", "-k", "2"]])
def test_what_the_command_line_writes_is_loaded(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", rows())
    assert cli.main([options[0], "x.npy", *options[1:], "-o", "model.npz", "-q"]) == 0
    found = lf.load("model.npz")
    expected = (
        lf.LinearAutoencoder(2, random_state=0)
        if options[0] == "train"
        else lf.PCA(0.9 if "0.9" in options else 2, standardize="--standardize" in options)
    ).fit(rows())
    np.testing.assert_array_equal(found.components_, expected.components_)
    np.testing.assert_array_equal(found.transform(rows()), expected.transform(rows()))


@pytest.mark.parametrize("scaled", [False, True])
def test_a_file_of_the_first_version(scaled, tmp_path):
    path, expected = tmp_path / "old.npz", lf.PCA(3, standardize=scaled).fit(rows())
    names = ["components", "explained_variance", "explained_variance_ratio", "singular_values", "residuals"]
    arrays = {name: getattr(expected, f"{name}_") for name in names + ["scale"] * scaled}
    np.savez(
        path, **arrays, mean=expected.mean_, noise_variance=expected.noise_variance_, n_samples=60, format_version=1,
        feature_names=list("abcdef"), meta=json.dumps({"lae_fast": "0"}),
    )  # fmt: skip
    found = lf.load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names
        np.testing.assert_allclose(found.transform(rows()), expected.transform(rows()), rtol=1e-12)
        np.testing.assert_allclose(found.score_samples(rows()), expected.score_samples(rows()), rtol=1e-12)
    assert found.n_samples_ == 60 and list(found.feature_names_in_) == list("abcdef") and found.standardize == scaled


STREAMS = {
    "PCA": lambda: lf.PCA(2),
    "IncrementalPCA": lambda: lf.IncrementalPCA(2),
    "forgetting": lambda: lf.IncrementalPCA(2, forget=0.9),
    "sketch": lambda: lf.IncrementalPCA(2, max_memory="5kB"),
    "forgetting sketch": lambda: lf.IncrementalPCA(2, max_memory="5kB", forget=0.9),
}


@pytest.mark.parametrize("kept", STREAMS)
@pytest.mark.parametrize("cuts", [(50,), (5, 12, 50), (2, 40)], ids=str)
def test_a_stream_goes_on_with_the_same_bits(kept, cuts, tmp_path):
    """As one that was never saved: rows that wait to be added are in the file as they are."""
    X = np.random.default_rng(1).standard_normal((90, 20)).astype(np.float32)
    found, other = STREAMS[kept](), STREAMS[kept]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a sketch is approximate
        for batch in np.split(X, cuts):
            found.partial_fit(batch).save(tmp_path / "stream.npz")
            found = lf.load(tmp_path / "stream.npz")
            other.partial_fit(batch)
        for name in ("components_", "explained_variance_", "mean_", "noise_variance_"):
            np.testing.assert_array_equal(getattr(found, name), getattr(other, name), err_msg=name)
        assert "sketch" not in kept or not found.exact_
    assert found.n_samples_ == 90


def test_a_warm_start_goes_on(tmp_path):
    one = lf.LinearAutoencoder(2, max_iter=30, warm_start=True, optimizer="adam").fit(rows())
    one.save(tmp_path / "model.npz")
    found = lf.load(tmp_path / "model.npz").fit(rows())
    one.fit(rows())
    assert found.n_iter_ == one.n_iter_ == 60
    np.testing.assert_array_equal(found.encoder_, one.encoder_)
    np.testing.assert_array_equal(found.history_["loss"], one.history_["loss"])


def test_the_state_of_partial_fit_is_not_kept_and_the_message_says_so(tmp_path):
    one = lf.LinearAutoencoder(2).partial_fit(rows())
    one.save(tmp_path / "model.npz")
    found = lf.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(found.transform(rows()), one.transform(rows()))
    with pytest.raises(ValueError, match=r"from a file.*init=\(model"):
        found.partial_fit(rows())


@pytest.mark.parametrize("options", [{"callback": print}, {"random_state": np.random.default_rng(0)}])
def test_what_has_no_place_in_a_file_is_named(options, tmp_path):
    fitted = lf.LinearAutoencoder(
        2, max_iter=10, **({"callback": lambda state: None} if "callback" in options else options)
    )
    fitted.fit(rows())
    with pytest.warns(UserWarning, match=f"{next(iter(options))} of this LinearAutoencoder cannot be saved"):
        fitted.save(tmp_path / "model.npz")
    found = lf.load(tmp_path / "model.npz")
    assert getattr(found, next(iter(options))) is None
    np.testing.assert_array_equal(found.encoder_, fitted.encoder_)


def test_names_of_columns_and_subclasses(tmp_path):
    pandas = pytest.importorskip("pandas")

    class Own(lf.PCA):
        pass

    frame = pandas.DataFrame(rows(), columns=list("abcdef"))
    Own(2).fit(frame).save(tmp_path / "model.npz")
    found = lf.load(tmp_path / "model.npz")
    assert type(found) is lf.PCA and list(found.feature_names_in_) == list("abcdef")
    with pytest.raises(ValueError, match="feature names"):
        found.transform(frame[list("fedcba")])


def test_fitted_to_arrays_of_another_library(tmp_path, monkeypatch):
    strict = pytest.importorskip("array_api_strict")
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    with sklearn.config_context(array_api_dispatch=True):
        fitted = lf.PCA(2).fit(strict.asarray(rows()))
        fitted.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(lf.load(tmp_path / "model.npz").components_, np.from_dlpack(fitted.components_))


def changed(**arrays):
    def change(path):
        with np.load(path) as file:
            kept = {name: file[name] for name in file.files}
        np.savez(path, **{name: value for name, value in (kept | arrays).items() if value is not None})

    return change


def with_meta(**changes):
    def change(path):
        with np.load(path) as file:
            meta = json.loads(str(file["meta"]))
        changed(meta=json.dumps(meta | changes))(path)

    return change


BAD = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-300]), "cannot be read"),
    "text": (lambda path: path.write_text("hello"), "cannot be read"),
    "newer": (changed(format_version=3), "reads up to 2: use a newer"),
    "no version": (changed(format_version=None), "no array 'format_version'"),
    "a part is missing": (changed(explained_variance=None), "parts of it are missing: .*explained_variance"),
    "another width": (changed(mean=np.zeros(5)), "do not fit together"),
    "another count": (changed(explained_variance=np.ones(9)), "do not fit together"),
    "nan": (changed(components=np.full((2, 6), np.nan)), "no finite numbers"),
    "another class": (with_meta(estimator="SparsePCA"), "holds a SparsePCA"),
    "another parameter": (with_meta(parameters={"rotation": {"value": 1}}), "does not know: .*rotation"),
    "no description": (
        with_meta(parameters={"tol": {"object": ["losses", "names"], "fields": {}}}), "no description losses.names",
    ),
    "another kind": (with_meta(parameters={"tol": {"code": "1"}}), "a value of the kind 'code'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused(case, tmp_path):
    path = tmp_path / "model.npz"
    lf.PCA(2).fit(rows()).save(path)
    spoil, message = BAD[case]
    spoil(path)
    with pytest.raises(DataFileError, match=message):
        lf.load(path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: lf.Moments.from_data(rows()).save(path), "Moments.load reads it"),
        (lambda path: path.write_text("once upon a time"), "it is in none of NumPy's formats"),
        (lambda path: np.save(path.open("wb"), rows()), "is a single array"),
    ],
)
def test_another_file_says_what_it_is(write, message, tmp_path):
    write(tmp_path / "model.npz")
    with pytest.raises(DataFileError, match=message):
        lf.load(tmp_path / "model.npz")


def test_not_fitted_and_not_there(tmp_path):
    with pytest.raises(NotFittedError):
        lf.PCA().save(tmp_path / "model.npz")
    with pytest.raises(FileNotFoundError):
        lf.load(tmp_path / "model.npz")


# With an array of more bytes than are read at once, so that its header is parsed before its checksum is known.
WIDE = np.random.default_rng(1).standard_normal((60, 40))
WRITERS = {
    "model": (lambda path: lf.PCA(20).fit(WIDE).save(path), lf.load),
    "moments": (lambda path: lf.Moments.from_data(WIDE).save(path), lf.Moments.load),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_cannot_be_a_file_is_named(kind, tmp_path):
    save, load = WRITERS[kind]
    with pytest.raises(FileNotFoundError, match=r"the directory .*none does not exist; make it first$"):
        save(tmp_path / "none" / "model.npz")
    with pytest.raises(IsADirectoryError, match="is a directory; name a file"):
        save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    for no_path in (3, None, b"model.npz"):  # open(3) would read whatever is open there
        with pytest.raises(TypeError, match=f"path={no_path!r} must be a path"):
            load(no_path)
        with pytest.raises(TypeError, match=f"path={no_path!r} must be a path"):
            save(no_path)


@pytest.mark.parametrize("kind", WRITERS)
def test_any_changed_bit_is_one_kind_of_error_or_none(kind, tmp_path):
    """Most bits of a .npz have a checksum; others, such as times, change nothing."""
    save, load = WRITERS[kind]
    path = tmp_path / "file.npz"
    save(path)
    content = path.read_bytes()
    places = [*range(60, 120), *range(120, len(content) - 150, 397), *range(len(content) - 150, len(content), 2)]
    refused = 0
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(bytes(changed))
        try:
            load(path)
        except DataFileError as error:
            assert "file.npz" in str(error)
            refused += 1
    assert refused > 0.5 * len(places)
    # a header with an open bracket, for which Python's parser has an error of its own
    path.write_bytes(content.replace(b"40), }", b"40(, }"))
    with pytest.raises(DataFileError, match=r"file\.npz"):
        load(path)


def test_a_file_without_its_description_is_not_taken_for_an_old_one(tmp_path):
    path = tmp_path / "model.npz"
    lf.LinearAutoencoder(2, rule="alternating").fit(rows()).save(path)
    changed(meta=None)(path)
    with pytest.raises(DataFileError, match="parts of it are missing: KeyError"):
        lf.load(path)
