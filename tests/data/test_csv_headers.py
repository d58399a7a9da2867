"""CSV files: whether the first line is a header and the first column an index, and what is said in doubt."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lae_fast as lf
from lae_fast import cli
from lae_fast.data.csv_rows import CsvRows
from lae_fast.data.tables import TableFile
from lae_fast.errors import DataFileError
from tests.oracle.csv_cases import READERS, read

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


@settings(max_examples=100, deadline=None)
@given(
    m=st.integers(2, 40), d=st.integers(1, 30), seed=st.integers(0, 9999),
    kind=st.sampled_from(["normal", "counts", "bits", "sorted rows", "sorted columns", "arange"]),
)  # fmt: skip
def test_rows_are_not_taken_for_names(tmp_path_factory, m, d, seed, kind):
    rng = np.random.default_rng(seed)
    numbers = {
        "normal": lambda: rng.standard_normal((m, d)),
        "counts": lambda: rng.poisson(3.0, (m, d)),
        "bits": lambda: rng.integers(0, 2, (m, d)),
        "sorted rows": lambda: np.sort(rng.standard_normal((m, d)), axis=1),
        "sorted columns": lambda: np.sort(rng.standard_normal((m, d)), axis=0),
        "arange": lambda: np.arange(m * d).reshape(m, d),
    }[kind]()
    buffer = io.StringIO()
    pandas.DataFrame(numbers).to_csv(buffer, index=False, header=False)
    rows = read(buffer.getvalue(), tmp_path_factory.mktemp("csv") / "x.csv")
    assert not rows.header and rows.names is None and rows.index == []
    np.testing.assert_allclose(rows[:], numbers)


NUMBER_NAMES = {
    "0, 1, 2": (lambda d: range(d), None),
    "1, 2, 3": (lambda d: range(1, d + 1), None),
    "years": (lambda d: range(1980, 1980 + d), None),
    "wavelengths": (lambda d: np.linspace(400, 800, d).round(1), None),
    "falling": (lambda d: np.linspace(800, 400, d).round(1), None),
    "years, odd ones": (lambda d: [1980 + 3 * k + (k % 2) for k in range(d)], None),
    "wavelengths over rows that rise": (lambda d: np.linspace(400, 800, d).round(1), "rise"),
}


@pytest.mark.parametrize("names", NUMBER_NAMES)
@pytest.mark.parametrize("d", [4, 12, 40])
@pytest.mark.parametrize("index", [False, True])
def test_numbers_that_are_names(tmp_path, names, d, index):
    make, order = NUMBER_NAMES[names]
    numbers = np.random.default_rng(d).normal(size=(60, d))
    if order == "rise":
        numbers = np.sort(numbers, axis=1)
    pandas.DataFrame(numbers, columns=make(d)).to_csv(tmp_path / "x.csv", index=index)
    certain = index  # a field without a name stands in names only
    with warnings.catch_warnings():
        warnings.simplefilter("error" if certain else "ignore")
        pca = lf.PCA(1).fit(tmp_path / "x.csv")
    assert (pca.n_samples_, pca.n_features_in_) == (60, d)
    assert list(pca.feature_names_in_) == [str(name) for name in make(d)]
    if not certain:
        with pytest.warns(UserWarning, match="looks like names of columns.*header=False"):
            CsvRows(tmp_path / "x.csv")
        assert CsvRows(tmp_path / "x.csv", TableFile(tmp_path / "x.csv", header=False)).shape == (61, d)


def test_a_column_that_counts_the_rows_is_doubted(tmp_path):
    numbers = np.random.default_rng(0).normal(size=(40, 3)).round(3)
    frame = pandas.DataFrame(numbers, columns=list("abc"))
    path = tmp_path / "x.csv"
    frame.to_csv(path, header=False)
    with pytest.warns(UserWarning, match="Column '0' of .* count the rows, and is taken for a feature.*index='0'"):
        assert CsvRows(path).shape == (40, 4)
    frame.assign(id=np.arange(1, 41))[["id", *"abc"]].to_csv(path, index=False)
    with pytest.warns(UserWarning, match="Column 'id' of .* count the rows"):
        assert CsvRows(path).names == ("id", "a", "b", "c")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CsvRows(path, TableFile(path, index="id")).names == ("a", "b", "c")


def test_transform_goes_by_names(tmp_path):
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(50, 4)), columns=list("abcd"))
    frame.to_csv(tmp_path / "one.csv", index=False)
    frame[list("dbca")].to_csv(tmp_path / "two.csv")
    frame[list("abc")].assign(e=0.5).to_csv(tmp_path / "three.csv")
    assert cli.main(["pca", str(tmp_path / "one.csv"), "-k", "2", "-o", str(tmp_path / "m.npz"), "-q"]) == 0
    with np.load(tmp_path / "m.npz") as model:
        assert model["feature_names"].tolist() == list("abcd")
        codes = (frame.to_numpy() - model["mean"]) @ model["components"].T
    out = tmp_path / "codes.npy"
    assert cli.main(["transform", str(tmp_path / "m.npz"), str(tmp_path / "two.csv"), "-o", str(out), "-q"]) == 0
    np.testing.assert_allclose(np.load(out), codes, atol=1e-12)
    pca = lf.PCA(2).fit(tmp_path / "one.csv")
    np.testing.assert_allclose(pca.transform(tmp_path / "two.csv"), codes, atol=1e-12)
    with pytest.raises(ValueError, match=r"unseen at fit time:\n- e\n.*now missing:\n- d"):
        pca.transform(tmp_path / "three.csv")


def text_of(numbers, names=None, **written):
    return pandas.DataFrame(numbers, columns=names).to_csv(header=names is not None, index=False, **written)


DECIMALS = np.random.default_rng(3).normal(size=(12, 4)).round(3)
COUNTS = np.random.default_rng(3).integers(0, 40, (12, 4))


@pytest.mark.parametrize("lacking", [[0], [0, 1], [0, 1, 2, 3], [0, 3]])
@pytest.mark.parametrize("word", ["", "NA", "nan"])
@pytest.mark.parametrize("reader", READERS)
def test_a_first_row_that_lacks_numbers_is_a_row(tmp_path, lacking, word, reader):
    numbers = DECIMALS.copy()
    numbers[0, lacking] = np.nan
    rows = read(text_of(numbers, na_rep=word), tmp_path / "x.csv", reader)
    assert not rows.header and rows.index == []
    np.testing.assert_array_equal(rows[:], numbers)


def test_missing_words_above_numbers_and_text_are_a_row(tmp_path):
    rows = read("NA,NA,setosa\n1,2,setosa\n3,4,other\n", tmp_path / "x.csv", drop=[2])
    assert rows.names is None and rows.shape == (3, 2)
    assert read("NA,a\n1,2\n3,4\n", tmp_path / "x.csv").names == ("NA", "a")


GUESSED = {
    "scikit-learn's iris": ("150,4,setosa,versicolor\n5.1,3.5,1.4,0\n4.9,3.0,1.4,0\n4.7,3.2,1.3,0\n", True),
    "one bad cell": ("5.1,bad,3\n4.9,3.0,2\n4.7,3.2,1\n", True),
    "a blank cell above numbers that differ": (",3,7\n5,1,2\n8,3,4\n6,5,9\n", True),
    "genes": ("7157,672,1956\n" + "3,0,12\n5,1,9\n0,2,7\n" * 4, True),
    "genes over few rows": ("7157,672,1956\n" + "3,0,12\n5,1,9\n0,2,7\n", False),
}


@pytest.mark.parametrize("case", GUESSED)
def test_a_first_line_of_which_nothing_is_sure_is_marked(tmp_path, case):
    text, header = GUESSED[case]
    with pytest.warns(UserWarning, match=rf"The first line of .* (is|if it is) .*header={not header}"):
        assert read(text, tmp_path / "x.csv").header is header


def test_a_mark_for_what_is_missing_is_no_name(tmp_path):
    with pytest.raises(DataFileError, match=r"column '1' of .* holds text \('\?' in row 0\)"):
        read("5.1,?,3\n4.9,3.0,2\n4.7,3.2,1\n", tmp_path / "x.csv")


def test_a_name_that_is_asked_for_makes_the_first_line_a_header(tmp_path):
    text = "cell,7157,672\nAAAC,3,0\nAAAG,1,2\n"
    rows = read(text, tmp_path / "x.csv", index="cell")
    assert (rows.names, rows.index, rows.shape) == (("7157", "672"), ["cell"], (2, 2))


@pytest.mark.parametrize("word", ["NA", "nan"])
def test_a_last_column_of_missing_words_is_a_column(tmp_path, word):
    for text, names in (
        (f"a,b,\n1,2,{word}\n3,4,{word}\n", ("a", "b", "Unnamed: 2")),
        (f"1.5,2,{word}\n3,4,{word}\n", None),
    ):
        rows = read(text, tmp_path / "x.csv")
        assert rows.shape == (2, 3) and rows.names == names and np.isnan(rows[:, 2:3]).all()
    rows = read(f'"a" "b"\n"one" 1 {word}\n"two" 3 {word}\n', tmp_path / "x.csv")
    assert (rows.names, rows.index) == (("a", "b"), ["Unnamed: 0"])


@pytest.mark.parametrize("how", ["Python", "command"])
def test_names_of_the_fit_say_what_is_an_index_and_a_header(tmp_path, how):
    def codes(fitted, other):
        if how == "Python":
            return lf.PCA(1).fit(tmp_path / fitted).transform(tmp_path / other)
        paths = [str(tmp_path / name) for name in (fitted, other, "m.npz", "codes.npy")]
        assert cli.main(["pca", paths[0], "-k", "1", "-o", paths[2], "-q"]) == 0
        assert cli.main(["transform", paths[2], paths[1], "-o", paths[3], "-q"]) == 0
        return np.load(paths[3])

    frame = pandas.DataFrame(DECIMALS, columns=["a", "b", "1", "2"])
    frame.assign(index=[1, 1, 2, 2] * 3)[["index", "a", "b"]].to_csv(tmp_path / "feature.csv", index=False)
    frame.assign(index=range(12))[["index", "a", "b"]].to_csv(tmp_path / "unique.csv", index=False)
    frame[["a", "b"]].to_csv(tmp_path / "plain.csv", index=False)
    for fitted, other, columns in (
        ("feature.csv", "unique.csv", ["index", "a", "b"]),
        ("unique.csv", "feature.csv", ["a", "b"]),
        ("plain.csv", "feature.csv", ["a", "b"]),
    ):
        one, two = (pandas.read_csv(tmp_path / name)[columns].to_numpy(dtype=float) for name in (fitted, other))
        np.testing.assert_allclose(codes(fitted, other), lf.PCA(1).fit(one).transform(two), atol=1e-12)
    numbers = frame[["1", "2"]].assign(index=range(12))[["index", "1", "2"]]
    numbers.to_csv(tmp_path / "numbers.csv", index=False)
    pandas.DataFrame([[3, 4]], columns=["1", "2"]).to_csv(tmp_path / "row.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert codes("numbers.csv", "row.csv").shape == (1, 1)


@pytest.mark.parametrize("names", ["a,a,a.1", "a,a.1,a", "a,a,a,a.1,a.1", "a.1,a,a", ",,Unnamed: 1"])
def test_names_stay_distinct(tmp_path, names):
    d = names.count(",") + 1
    rows = read(f"{names}\n" + ",".join("123456"[:d]) + "\n", tmp_path / "x.csv", index=False)
    assert len(set(rows.names)) == d
    given = names.split(",")
    assert all(found.startswith(name) for found, name in zip(rows.names, given))
    assert all(
        found == name for found, name in zip(rows.names, given) if name and given.count(name) == 1 and names[0] != ","
    )
