"""CSV files: layouts, numbers and what is no number; blocks that are parsed as they are asked for."""

import importlib
import io
import itertools
import string
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lae_fast as lf
from lae_fast import cli
from lae_fast.data import csv_layout, csv_rows
from lae_fast.data.csv_rows import CsvRows
from lae_fast.data.tables import TableFile
from lae_fast.errors import DataFileError, MemoryLimitError
from tests.oracle.csv_cases import READERS, read

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

NAME = st.text(alphabet=string.ascii_letters + ',;"é\n .', min_size=1, max_size=5).filter(
    lambda name: name == name.strip() and name[0].isalpha() and name.lower() not in ("na", "nan", "inf", "none", "row")
)


@st.composite
def tables(draw):
    """A frame, and how it is written."""
    m, d = draw(st.integers(1, 30)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    numbers = rng.standard_normal((m, d)) * 10.0 ** rng.integers(-5, 5)
    frame = pandas.DataFrame(numbers, columns=draw(st.lists(NAME, min_size=d, max_size=d, unique=True)))
    frame[frame.columns[0]] = rng.integers(-9, 9, m)
    if draw(st.booleans()):
        frame[frame.columns[-1]] = rng.random(m) < 0.5
    if draw(st.booleans()) and d > 1:
        frame = frame.astype({frame.columns[1]: float})
        frame.iloc[rng.integers(m), 1] = np.nan
    separator, decimal = draw(st.sampled_from([(",", "."), (";", "."), (";", ","), ("\t", ","), ("|", ".")]))
    written = {
        "sep": separator,
        "decimal": decimal,
        "index": draw(st.booleans()),
        "quoting": draw(st.sampled_from([0, 1, 2])),
        "lineterminator": draw(st.sampled_from(["\n", "\r\n"])),
        "na_rep": draw(st.sampled_from(["", "NA", "nan"])),
    }
    if draw(st.booleans()):
        frame.index = [f"row {k}" for k in rng.permutation(m)]
    return frame, written, draw(st.booleans())


@settings(max_examples=60, deadline=None)
@given(given=tables(), reader=st.sampled_from(READERS), small=st.booleans())
def test_what_pandas_writes_is_read(tmp_path_factory, given, reader, small):
    """Names, an index, separators, decimals, quotes, missing cells, byte-order marks; in blocks of any size."""
    frame, written, mark = given
    buffer = io.StringIO()
    frame.to_csv(buffer, **written)
    text = buffer.getvalue().encode("utf-8-sig" if mark else "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(csv_rows, "_LEAST_BLOCK", 40)
            patch.setattr(csv_rows, "_ROWS_AT_ONCE", 1)
            patch.setattr(csv_rows, "_KEPT_BYTES", 0)
        # one column has no separator that could be found
        told = {"separator": written["sep"], "decimal": written["decimal"]} if frame.shape[1] < 3 else {}
        rows = read(text, tmp_path_factory.mktemp("csv") / "x.csv", reader, **told)
        expected = frame.to_numpy(dtype=np.float64)
        assert rows.shape == frame.shape and rows.header
        assert rows.names == tuple(frame.columns)
        assert rows.index == (["Unnamed: 0"] if written["index"] else [])
        np.testing.assert_allclose(rows[:], expected, rtol=1e-15)
        m, d = frame.shape
        for first, last in itertools.pairwise(sorted({0, m // 3, m // 2, m})):
            np.testing.assert_array_equal(rows[first:last], rows[:][first:last])
        for j in range(d):
            np.testing.assert_array_equal(rows[:, j : j + 1], rows[:][:, j : j + 1])


LAYOUTS = {
    "comment": ("# written by hand\n# a,b\n1,2\n3,4\n", ("a", "b"), 2),
    "words": ("# words, but no, names\n1,2\n3,4\n", None, 2),
    "savetxt": ("# a b\n1 2\n3 4\n", ("a", "b"), 2),
    "Excel": ("sep=;\na;b\n1,5;2\n3;4,5\n", ("a", "b"), 2),
    "blank lines": ("\n\na,b\n1,2\n\n3,4\n\n", ("a", "b"), 2),
    "spaces": ("a, b\n1, 2\n 3 ,4 \n", ("a", "b"), 2),
    "rownames": ('"rownames","a","b"\n"1",1,2\n"2",3,4\n', ("a", "b"), 2),
    "index twice": (",Unnamed: 0,a,b\n0,0,1,2\n1,1,3,4\n", ("a", "b"), 2),
    "no line end": ("a,b\n1,2\n3,4", ("a", "b"), 2),
    "a name without text": ("a,,b\n1,2,3\n3,4,5\n", ("a", "Unnamed: 1", "b"), 3),
    "separators at the end": ("a,b,\n1,2,\n3,4,\n", ("a", "b"), 2),
    "separators at the end of rows": ("a;b\n1;2;\n3;4;\n", ("a", "b"), 2),
    "separators at the end, no header": ("1,2,\n3,4,\n", None, 2),
    "one name twice": ("a,a\n1,2\n3,4\n", ("a", "a.1"), 2),
    "old Macintosh": ("a,b\r1,2\r3,4\r", ("a", "b"), 2),
    "inf": ("a,b\n1,inf\n3,-inf\n", ("a", "b"), 2),
    "latin-1": ("é,b\n1,2\n3,4\n".encode("latin-1"), ("é", "b"), 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reader", READERS)
def test_layouts(tmp_path, layout, reader):
    text, names, d = LAYOUTS[layout]
    rows = read(text, tmp_path / "x.csv", reader)
    assert rows.shape == (2, d) and rows.names == names
    assert rows[0:1, 0:1] == ([[1.5]] if layout == "Excel" else [[1.0]])


def test_what_is_asked_for_is_taken(tmp_path):
    text = "id,a,b,c,kind\n7,1,2,3,x\n8,4,5,6,y\n"
    path = tmp_path / "x.csv"
    for table, names, index, left_out in (
        ({"drop": ["kind"]}, ("id", "a", "b", "c"), [], ["kind"]),
        ({"drop": ["kind"], "index": "id"}, ("a", "b", "c"), ["id"], ["kind"]),
        ({"label": "kind", "index": 0}, ("a", "b", "c"), ["id"], ["kind"]),
        ({"columns": ["c", "a"]}, ("c", "a"), [], ["id", "b", "kind"]),
        ({"columns": [3, 1]}, ("c", "a"), [], ["id", "b", "kind"]),
    ):
        rows = read(text, path, **table)
        assert (rows.names, rows.index, rows.left_out) == (names, index, left_out)
        np.testing.assert_array_equal(rows[:], pandas.read_csv(path)[list(names)])
    for table, message in (
        ({"drop": ["d"]}, "drop: .*x.csv has no column 'd'; it has 'id', 'a', 'b', 'c', 'kind'"),
        ({"columns": [9]}, "columns=9: .* has columns 0 to 4"),
        ({"columns": ["a", "a"]}, "names a column twice"),
        ({}, r"not a table of numbers: .*column 'kind' of .* holds text \('x' in row 0\).*--drop"),
    ):
        with pytest.raises(ValueError, match=message):
            read(text, path, **table)
    assert read("index,a\n1,2\n2,3\n", path).index == ["index"]
    assert read("index,a\n1,2\n1,3\n", path).index == []  # tells no rows apart
    assert read("index,a\n1,2\n2,3\n", path, index=False).names == ("index", "a")


BAD = {
    "text": ("a,b\n1,2\n3,x\n", r"column 'b' of \S+ holds text \('x' in row 1\)"),
    "dates": ("t,b\n2020-01-01,2\n2020-01-02,3\n", r"column 't' of \S+ holds dates .*numbers, such as days"),
    "ragged": ("a,b\n1,2\n3\n", "row 1 has 1 fields, and not 2 .*after the header"),
    "longer below": ("a,b\n1,2,3,4\n", "the first line names 2 columns, and the row below has 4 fields"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "no text in UTF-8"),
    "late": ("a,b\n" + "1,2\n" * 5000 + "1,oops\n", r"column 'b' holds 'oops' in row 5000 \(rows count from 0, after"),
    "late text in truth": ("a,b\n" + "1,True\n" * 5000 + "1,7\n", r"column 'b' holds '7' in row 5000"),
    "behind the last separator": ("a,b,\n" + "1,2,\n" * 2000 + "1,2,3\n", "row 2000 goes on behind the last separator"),
    "text behind the last separator": ("a,b,\n" + "1,2,\n" * 2000 + "1,2,x\n", "holds 'x' in row 2000"),
    "nothing": ("", "is empty"),
    "thousands": ("a;b\n1.234,5;2\n2.345,5;3\n", r"column 'a' of \S+ holds text \('1.234,5' in row 0\)"),
    "underscores": ("a,b\n1_0,2\n3,4\n", r"holds text \('1_0' in row 0\)"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_number_is_named(tmp_path, case, reader):
    text, message = BAD[case]
    with pytest.raises(DataFileError, match=message):
        read(text, tmp_path / "x.csv", reader)


def test_lines_longer_than_what_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_layout, "HEAD_BYTES", 100)
    numbers = np.random.default_rng(0).normal(size=(30, 400))
    frame = pandas.DataFrame(numbers, columns=[f"c{j}" for j in range(400)])
    rows = read(frame.to_csv(), tmp_path / "x.csv")
    assert rows.names == tuple(frame.columns) and rows.index == ["Unnamed: 0"]
    np.testing.assert_array_equal(rows[:], numbers)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("block", [16, 40, 100])
def test_text_with_line_breaks_is_left_out_whole(tmp_path, monkeypatch, reader, block):
    monkeypatch.setattr(csv_rows, "_LEAST_BLOCK", block)
    monkeypatch.setattr(csv_rows, "_ROWS_AT_ONCE", 1)
    words = ["one\ntwo, three", 'he said "no"\n\n', "plain", "\n"]
    frame = pandas.DataFrame({"a": np.arange(40.0), "kind": words * 10, "b": np.arange(40.0) ** 2})
    text = frame.to_csv(index=False)
    rows = read(text, tmp_path / "x.csv", reader, drop=["kind"], index=False)
    assert len(rows._blocks) > 3
    np.testing.assert_array_equal(rows[:], frame[["a", "b"]])
    np.testing.assert_array_equal(rows[17:23], frame[["a", "b"]][17:23])


def test_a_stray_quote_is_no_endless_read(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows, "_LEAST_BLOCK", 100)
    monkeypatch.setattr(csv_rows, "_ROWS_AT_ONCE", 1)
    with pytest.raises(DataFileError, match="not a table of numbers"):
        read("a,b\n" + "1,2\n" * 100 + '1,"2\n' + "1,2\n" * 5000, tmp_path / "x.csv")


def test_the_limit_decides_what_is_kept(tmp_path, monkeypatch):
    numbers = np.random.default_rng(0).normal(size=(20_000, 30)).round(6)
    path = tmp_path / "x.csv"
    pandas.DataFrame(numbers, columns=[f"c{j}" for j in range(30)]).to_csv(path, index=False)
    monkeypatch.setattr(csv_rows, "_LEAST_BLOCK", 1 << 18)
    rows = CsvRows(path)
    assert rows.read_within(10**7) == numbers.nbytes
    assert rows._kept is not None
    assert rows.read_within(4 * 10**6) <= 4 * 10**6 < numbers.nbytes
    assert rows._kept is None
    np.testing.assert_array_equal(rows[500:19_000], numbers[500:19_000])
    with pytest.raises(MemoryLimitError, match=r"takes .* MB, and half of max_memory is 100 kB: raise max_memory"):
        rows.read_within(100_000)
    assert CsvRows(path, max_memory=9 * 10**6)._kept is None and CsvRows(path, max_memory=10**7)._kept is not None
    found = lf.PCA(3, max_memory="8MB").fit(path)
    np.testing.assert_allclose(found.components_, lf.PCA(3).fit(numbers).components_, atol=1e-10)


def test_the_command_says_what_was_taken(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(50, 3)), columns=["a", "b", "c, d"])
    frame.assign(kind="x").to_csv("x.csv")
    assert cli.main(["pca", "x.csv", "-k", "1"]) == 2
    assert "column 'kind' of x.csv holds text ('x' in row 0)" in capfd.readouterr().err
    assert cli.main(["pca", "x.csv", "-k", "1", "--drop", 'kind,"c, d"']) == 0
    out = capfd.readouterr().out
    assert "header: yes, index column: 'Unnamed: 0', left out: 'c, d', 'kind', read into memory" in out
    assert "columns  2: a, b" in out and "largest loadings" in out
    assert cli.main(["pca", "x.csv", "-k", "1", "--label", "kind", "--index-col", "none", "--columns", "a,0"]) == 0
    assert "columns  2: a, Unnamed: 0" in capfd.readouterr().out
    assert cli.main(["train", "x.csv", "-k", "1", "--label", "kind", "--tol", "1", "-o", "m.npz", "-q"]) == 0
    assert np.load("m.npz")["feature_names"].tolist() == list(frame.columns)
    np.save("x.npy", np.eye(3))
    capfd.readouterr()
    assert cli.main(["pca", "x.npy", "-k", "1", "--drop", "a"]) == 2
    assert "x.npy is no table" in capfd.readouterr().err


def test_without_pyarrow_it_is_slower_and_says_so(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setenv("COLUMNS", "400")
    numbers = np.random.default_rng(0).normal(size=(50, 3))
    path = tmp_path / "x.csv"
    pandas.DataFrame(numbers, columns=list("abc")).to_csv(path, sep="\t", index=False)
    assert cli.main(["pca", str(path), "-k", "1", "--separator", "tab", "-o", str(tmp_path / "m.npz")]) == 0
    assert "by Python's csv module (pip install 'lae-fast[io]' for a faster reader)" in capfd.readouterr().out
    with np.load(tmp_path / "m.npz") as model:
        np.testing.assert_allclose(model["components"], lf.PCA(1).fit(numbers).components_, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": "ab"}, "must be one character"),
        ({"decimal": ";"}, "decimal=';' must be"),
        ({"decimal": ",", "separator": ","}, "are both ','"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TableFile("x.csv", **options)
    with pytest.raises(TypeError, match="must be a sequence of names"):
        TableFile("x.csv", drop="a")


def test_commas_between_thousands_are_no_decimal_marks(tmp_path):
    text = "a\tb\n1,234\t2,345\n999\t1,000\n"
    with pytest.raises(DataFileError, match=r"such as 1,234, which is 1\.234 with .* and 1234 with .*--decimal-comma"):
        read(text, tmp_path / "x.csv")
    assert read(text, tmp_path / "x.csv", decimal=",")[0:1, 0:1] == 1.234
    with pytest.raises(DataFileError, match=r"holds text \('1,234' in row 0\)"):
        read(text, tmp_path / "x.csv", decimal=".")
    for other in ("0,123", "1,5", "1,2345", "1234,567"):  # no thousands are written so
        assert read(f"{text}{other}\t1\n", tmp_path / "x.csv")[0:1, 0:1] == 1.234


@pytest.mark.parametrize("reader", READERS)
def test_decimal_commas_of_one_column(tmp_path, reader):
    with pytest.warns(UserWarning, match=r"decimal marks of one column; if they separate two, say --separator ,"):
        rows = read("x\n1,5\n2,5\n3,7\n", tmp_path / "x.csv", reader)
    assert rows.names == ("x",) and rows[:].ravel().tolist() == [1.5, 2.5, 3.7]
    for text in ("x\n1,5\n2,5\n", "1,5\n2,5\n"):
        assert read(text, tmp_path / "x.csv", reader, decimal=",")[:].ravel().tolist() == [1.5, 2.5]
    assert read("x\n1,5\n2,5\n3,7\n", tmp_path / "x.csv", reader, separator=",").index == ["Unnamed: 0"]
    assert read("1,5\n2,5\n", tmp_path / "x.csv", reader).shape == (2, 2)


@pytest.mark.parametrize("reader", READERS)
def test_lines_of_blanks_are_skipped(tmp_path, reader):
    for text in ("a;b\n1;2\n3;4\n   \n", "a;b\n1;2\n  \n3;4", "a;b\n \n1;2\n3;4\n \n \n"):
        np.testing.assert_array_equal(read(text, tmp_path / "x.csv", reader)[:], [[1, 2], [3, 4]])
    one = read('x\n1\n""\n \n3\n', tmp_path / "x.csv", reader)  # as pandas writes a missing value of a single column
    np.testing.assert_array_equal(one[:].ravel(), [1, np.nan, 3])


@pytest.mark.parametrize(("name", "kind"), [("gzip", "gzip"), ("bz2", "bzip2"), ("lzma", "xz")])
def test_what_is_compressed_under_another_name_says_so(tmp_path, name, kind):
    text = importlib.import_module(name).compress(b"a,b\n1,2\n")
    with pytest.raises(DataFileError, match=rf"x\.csv is no text but compressed \({kind}\): decompress it first"):
        read(text, tmp_path / "x.csv")
    with pytest.raises(DataFileError, match=r"a workbook of Excel"):
        read(b"PK\x03\x04" + bytes(50), tmp_path / "x.csv")


@pytest.mark.parametrize("text", ["a  b  c\n1  2  3\n4  5  6\n", "a   b\n10   2\n3    4\n", "10   2   3\n3    4  5\n"])
def test_several_spaces_point_at_the_separator(tmp_path, text):
    with pytest.raises(DataFileError, match="several spaces separate its columns; write it with one separator"):
        read(text, tmp_path / "x.csv")
    rows = read("a b c\n1  3\n4 5 6\n", tmp_path / "x.csv")  # one is missing
    np.testing.assert_array_equal(rows[:], [[1, np.nan, 3], [4, 5, 6]])
