"""Columns of tables and frames: numbers are taken, missing ones as NaN, and everything else is refused by name."""

import datetime
import decimal

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast.data import sources

pandas = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

DAYS = [datetime.date(2020, 1, k + 1) for k in range(3)]
TIMES = [datetime.datetime(2020, 1, k + 1, 7) for k in range(3)]
SPANS = [datetime.timedelta(hours=k) for k in range(3)]

# An Arrow type, values, and the numbers that are taken or the kind that is refused.
ARROW = {
    "int8": (pa.int8(), [1, 2, 3], [1, 2, 3]),
    "uint64, missing": (pa.uint64(), [1, None, 3], [1, np.nan, 3]),
    "half": (pa.float16(), [np.float16(0.5), np.float16(2), None], [0.5, 2, np.nan]),
    "bool": (pa.bool_(), [True, False, True], [1, 0, 1]),
    "bool, missing": (pa.bool_(), [True, None, False], [1, np.nan, 0]),
    "decimal": (pa.decimal128(9, 2), [decimal.Decimal("1.25"), None, decimal.Decimal("-3")], [1.25, np.nan, -3]),
    "null": (pa.null(), [None, None, None], [np.nan] * 3),
    "string": (pa.string(), ["1", "2", "3"], "text"),
    "large string": (pa.large_string(), ["1", "2", "3"], "text"),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["x", "y", "x"], "categories"),
    "date": (pa.date32(), DAYS, "dates"),
    "timestamp": (pa.timestamp("us", tz="UTC"), TIMES, "dates"),
    "duration": (pa.duration("s"), SPANS, "times"),
    "time": (pa.time32("s"), [datetime.time(k) for k in range(3)], "times"),
    "list": (pa.list_(pa.float64()), [[1.0], [2.0, 3.0], []], "lists of different lengths"),
    "list of text": (pa.list_(pa.string()), [["1"], ["2"], ["3"]], "lists"),
    "empty lists": (pa.list_(pa.float64()), [[], [], []], "lists of different lengths"),
    "struct": (pa.struct([("x", pa.int8())]), [{"x": 1}] * 3, "structs"),
    "map": (pa.map_(pa.string(), pa.int8()), [[("a", 1)]] * 3, "lists"),
    "binary": (pa.binary(), [b"1", b"2", b"3"], "bytes"),
    "matrices": (pa.list_(pa.list_(pa.int8(), 2), 2), [[[1, 2], [3, 4]]] * 3, "lists"),
}


@pytest.mark.parametrize("case", ARROW)
@pytest.mark.parametrize("container", ["table", "batch", "chunks", "Parquet", "pandas"])
def test_arrow_types(case, container, tmp_path):
    type_, values, expected = ARROW[case]
    table = pa.table({"a": pa.array([1.0, 2.0, 4.0]), "b": pa.array(values, type_)})
    if container == "Parquet":
        if case == "half" and not hasattr(pa, "float16"):
            pytest.skip("this pyarrow does not write halves")
        pq.write_table(table, tmp_path / "x.parquet")
        X = tmp_path / "x.parquet"
    elif container == "pandas":
        if case in ("map", "matrices"):
            pytest.skip("pandas has no such columns")
        if "lists of" in str(expected):
            expected = "lists"
        X = table.to_pandas(types_mapper=pandas.ArrowDtype)
    else:
        X = {
            "table": table,
            "batch": table.to_batches()[0],
            "chunks": pa.concat_tables([table[:1], table[1:1], table[1:]]),
        }[container]
    if isinstance(expected, str):
        if (case, container) == ("duration", "Parquet"):
            expected = "(times|dates)"
        with pytest.raises(ValueError, match=rf"column 'b' of \S+ holds {expected} "):
            lf.PCA(1).fit(X)
        return
    with sources.opened(X) as source:
        np.testing.assert_array_equal(source.block(0, 3, False), np.array([[1, 2, 4], expected], float).T)
        np.testing.assert_array_equal(source.block(1, 2, True), np.array([expected], float))
        assert source.names == ("a", "b")


@pytest.mark.parametrize("container", ["table", "chunks", "Parquet", "Parquet by batches", "polars"])
@pytest.mark.parametrize("length", [4, -1], ids=["fixed", "as they are"])
def test_lists_of_one_length(container, length, tmp_path):
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(50, 4))
    numbers[3, 2] = np.nan
    numbers[7] = np.nan
    lists = [None if k == 7 else [None if np.isnan(x) else x for x in row] for k, row in enumerate(numbers)]
    lists = pa.array(lists, pa.list_(pa.float64(), length))
    table = pa.table({"x": np.arange(50), "e": lists, "y": np.arange(50.0), "e.z": np.ones(50)})
    expected = np.column_stack([np.arange(50), numbers, np.arange(50.0), np.ones(50)])
    if container == "polars":
        table = pytest.importorskip("polars").from_arrow(table)
    if container == "chunks":
        table = pa.concat_tables([table[:20], table[20:]])
    if container.startswith("Parquet"):
        pq.write_table(table, tmp_path / "x.parquet", row_group_size=17)
        table = tmp_path / "x.parquet"
    with sources.opened(table) as source:
        if container == "Parquet by batches":
            source._dataset._whole = False
        assert source.names == ("x", "e[0]", "e[1]", "e[2]", "e[3]", "y", "e.z")
        for first, last in ((0, 50), (2, 9), (16, 36), (7, 8)):
            np.testing.assert_array_equal(source.block(first, last, False), expected[first:last])
        for first, last in ((0, 7), (0, 1), (2, 4), (3, 7), (5, 6)):
            np.testing.assert_array_equal(source.block(first, last, True), expected[:, first:last].T)


def test_embeddings_in_a_column_of_pandas(tmp_path):
    """As models return them, one array a row; written to Parquet they are lists without a fixed size."""
    numbers = np.random.default_rng(0).normal(size=(30, 5))
    frame = pandas.DataFrame({"e": list(numbers)})
    frame.to_parquet(tmp_path / "x.parquet")
    expected = lf.PCA(2).fit(numbers)
    for X in (frame, tmp_path / "x.parquet", frame.assign(e=[row.tolist() for row in numbers])):
        pca = lf.PCA(2).fit(X)
        np.testing.assert_allclose(pca.components_, expected.components_, atol=1e-12)
        assert list(pca.feature_names_in_) == [f"e[{j}]" for j in range(5)]
        np.testing.assert_allclose(pca.transform(X), expected.transform(numbers), atol=1e-12)
    with pytest.raises(ValueError, match=r"X holds objects that are no numbers.*numpy\.stack"):
        lf.PCA(2).fit(frame["e"])
    with pytest.raises(ValueError, match=r"column 'e' of X holds lists of different lengths"):
        lf.PCA(2).fit(frame.assign(e=[row[: 3 + k % 2] for k, row in enumerate(numbers)]))


def test_lists_that_get_longer_later(tmp_path):
    lists = [[1.0, float(k)] for k in range(500)] + [[1.0, 2.0, 3.0]]
    pq.write_table(pa.table({"e": lists}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"Column 'e' holds lists of different lengths, 2 and 3: leave it out"):
        lf.PCA(1).fit(tmp_path / "x.parquet")


POLARS = {
    "dates": DAYS,
    "dates ": TIMES,
    "times": SPANS,
    "times ": [datetime.time(k) for k in range(3)],
    "text": ["1", "2", "3"],
    "lists of different lengths": [[1.0], [2.0], []],
    "lists": [["x"], ["y"], ["z"]],
    "structs": [{"x": 1}] * 3,
    "bytes": [b"1", b"2", b"3"],
}


@pytest.mark.parametrize("kind", POLARS)
def test_polars_columns_are_refused_by_name(kind):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": [1.0, 2.0, 4.0], "b": POLARS[kind]})
    with pytest.raises(ValueError, match=rf"column 'b' of X holds {kind.strip()} "):
        lf.PCA(1).fit(frame)
    for dtype in (polars.Categorical, polars.Enum(["1", "2", "3"])) * (kind == "text"):
        with pytest.raises(ValueError, match=r"column 'b' of X holds categories "):
            lf.PCA(1).fit(frame.cast({"b": dtype}))


def test_polars_numbers():
    polars = pytest.importorskip("polars")
    columns = {
        "i": polars.Series([1, None, 3], dtype=polars.Int16),
        "t": [True, None, False],
        "d": polars.Series([decimal.Decimal("1.5"), None, decimal.Decimal("2")]),
        "f": polars.Series([0.5, None, 2.0], dtype=polars.Float32),
        "n": polars.Series([None] * 3, dtype=polars.Null),
        "u": polars.Series([1, 2, 3], dtype=polars.UInt8),
    }
    source = sources.as_source(polars.DataFrame(columns))
    nan = np.nan
    expected = [[1, nan, 3], [1, nan, 0], [1.5, nan, 2], [0.5, nan, 2], [nan] * 3, [1, 2, 3]]
    np.testing.assert_array_equal(source.block(0, 6, True), expected)
    small = polars.DataFrame({"u": [1, 2, 3], "v": [3, 2, 9]}, schema={"u": polars.UInt8, "v": polars.UInt8})
    assert sources.as_source(small).dtype == np.uint8


PANDAS = {
    "dates": pandas.to_datetime(DAYS),
    "dates ": pandas.date_range("2020", periods=3, tz="UTC"),
    "dates  ": pandas.period_range("2020", periods=3, freq="M"),
    "times": pandas.to_timedelta(SPANS),
    "text": pandas.array(["1", "2", "3"], dtype="string"),
    "text ": ["1", 2.0, 3.0],
    "categories": pandas.Categorical(["x", "y", "x"]),
    "categories ": pandas.Categorical([1, 2, 1]),
    "values": pandas.interval_range(0, 3),
    "complex numbers": np.array([1, 2, 3j]),
}


@pytest.mark.parametrize("kind", PANDAS)
def test_pandas_columns_are_refused_by_name(kind):
    with pytest.raises(ValueError, match=rf"column 'b' of X holds {kind.strip()} "):
        lf.PCA(1).fit(pandas.DataFrame({"a": [1.0, 2.0, 4.0], "b": PANDAS[kind]}))


def test_pandas_numbers():
    nan = np.nan
    columns = {
        "I": pandas.array([1, None, 3], dtype="Int8"),
        "B": pandas.array([True, None, False], dtype="boolean"),
        "F": pandas.array([0.5, None, 2.0], dtype="Float32"),
        "o": np.array([1, None, decimal.Decimal("2.5")], dtype=object),
        "t": [True, False, True],
        "f": np.float32([1, 2, 3]),
    }
    expected = np.array([[1, nan, 3], [1, nan, 0], [0.5, nan, 2], [1, nan, 2.5], [1, 0, 1], [1, 2, 3]]).T
    source = sources.as_source(pandas.DataFrame(columns))
    np.testing.assert_array_equal(source.block(0, 3, False), expected)
    assert sources.as_source(pandas.DataFrame(columns)[["t", "f"]]).dtype == np.float32
    whole = pandas.DataFrame({"a": pandas.array([1, 2], dtype="Int8"), "b": pandas.array([3, 4], dtype="Int8")})
    assert sources.as_source(whole).dtype == np.int8
    with pytest.raises((TypeError, ValueError), match=r"column 'o' of X holds objects that are no numbers"):
        lf.PCA(1).fit(pandas.DataFrame({"a": [1.0, 2.0], "o": [{}, {}]}))


def test_a_frame_of_one_dtype_is_not_copied():
    numbers = np.random.default_rng(0).normal(size=(20, 3))
    frame = pandas.DataFrame(numbers, columns=list("abc"), copy=False)
    assert np.shares_memory(sources.as_source(frame).array, numbers)


def test_what_hands_its_columns_out_as_arrow_does():
    """As the tables of databases do."""

    class Relation:
        shape = (3, 2)

        def __arrow_c_stream__(self, requested_schema=None):
            return pa.table({"a": [1.0, 2.0, 4.0], "b": [1, None, 3]}).__arrow_c_stream__(requested_schema)

    source = sources.as_source(Relation())
    np.testing.assert_array_equal(source.block(0, 3, False), [[1, 1], [2, np.nan], [4, 3]])
    assert source.names == ("a", "b")


def test_every_bad_column_is_named():
    table = pa.table({f"c{k}": ["x"] for k in range(7)} | {"n": [1.0]})
    with pytest.raises(ValueError, match=r"column 'c0' .*column 'c4' .*; and 2 more\. Leave them out"):
        lf.PCA(1).fit(table)


# --- sparse columns


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool"])
def test_sparse_columns_are_a_sparse_matrix(dtype):
    X = scipy.sparse.random(80, 30, 0.1, format="csc", random_state=0)
    X.data = np.ceil(X.data * 9)
    X = X.astype(dtype)
    frame = pandas.DataFrame.sparse.from_spmatrix(X, columns=[f"c{j}" for j in range(30)])
    source = sources.as_source(frame)
    assert isinstance(source, sources.SparseSource) and source.nnz == X.nnz and source.dtype == X.dtype
    np.testing.assert_array_equal(source.block(0, 80, False), X.toarray())
    assert list(lf.PCA(2).fit(frame).feature_names_in_) == list(frame.columns)
    mixed = frame.assign(dense=np.arange(80.0), truth=np.arange(80) % 2 == 0)
    np.testing.assert_array_equal(sources.as_source(mixed).block(0, 80, False)[:, :30], X.toarray())
    np.testing.assert_array_equal(sources.as_source(mixed).block(0, 80, False)[:, 30], np.arange(80.0))


def test_columns_that_are_sparse_about_something_else_are_refused():
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": pandas.arrays.SparseArray([1.0, np.nan])})
    with pytest.raises(ValueError, match=r"Column 'b' of X is sparse about nan, not about 0.*to_dense"):
        lf.PCA(1).fit(frame)


def test_a_huge_frame_of_sparse_columns_stays_sparse():
    """Dense it would take 16 GB."""
    rows = np.random.default_rng(0).integers(0, 2_000_000, 1000)
    X = scipy.sparse.csc_array((np.ones(1000), (rows, np.arange(1000))), shape=(2_000_000, 1000))
    frame = pandas.DataFrame.sparse.from_spmatrix(X)
    assert sources.as_source(frame).nnz == X.nnz


# --- tensors


def test_tensors():
    torch = pytest.importorskip("torch")
    X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    expected = lf.PCA(2).fit(X.numpy()).components_
    coarse = X.bfloat16()
    X = coarse.float()
    expected = lf.PCA(2).fit(X.numpy()).components_
    X[X.abs() < 0.5] = 0
    sparse = lf.PCA(2).fit(X.numpy()).components_
    history = coarse.float().requires_grad_() * 1
    for tensor, want in (
        (coarse, expected), (coarse.clone().requires_grad_(), expected), (history, expected),
        (X.to_sparse_coo(), sparse), (X.to_sparse_csr(), sparse), (X.to_sparse_csc(), sparse),
    ):  # fmt: skip
        pca = lf.PCA(2).fit(tensor)
        np.testing.assert_allclose(pca.components_, want, atol=2e-6)
        pca.transform(tensor)
    assert isinstance(sources.as_source(X.to_sparse_csr()), sources.SparseSource)
    with pytest.raises(TypeError, match=r"X is a tensor on the device 'meta', which has a shape but no numbers"):
        lf.PCA(2).fit(torch.empty(3, 2, device="meta"))
    with pytest.raises(ValueError, match="Complex data not supported"):
        lf.PCA(2).fit(torch.zeros(3, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D"):
        lf.PCA(2).fit(torch.zeros(3).to_sparse_coo())


# --- an index that is stored


@pytest.mark.parametrize(
    "index",
    [
        pandas.RangeIndex(9), pandas.Index(np.arange(9)[::-1]), pandas.Index(np.arange(9) * 1.5, name="id"),
        pandas.Index(list("abcdefghi"), name="who"), pandas.date_range("2020", periods=9, name="day"),
        pandas.MultiIndex.from_product([[1, 2, 3], [4, 5, 6]], names=["u", None]),
    ],
    ids=["range", "unnamed", "named", "text", "dates", "levels"],
)  # fmt: skip
def test_a_stored_index_is_no_feature(index, tmp_path):
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(9, 3)), columns=list("abc"), index=index)
    table = pa.Table.from_pandas(frame, preserve_index=True)
    frame.to_parquet(tmp_path / "x.parquet")
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "bare.parquet")
    expected = lf.PCA(2).fit(frame).components_
    for X in (frame, table, table.to_batches()[0], tmp_path / "x.parquet"):
        pca = lf.PCA(2).fit(X)
        assert list(pca.feature_names_in_) == list("abc")
        np.testing.assert_allclose(pca.components_, expected, atol=1e-12)
    if index.name is None and index.nlevels == 1:  # its name alone says what it is
        bare = pq.read_table(tmp_path / "bare.parquet")
        for X in (tmp_path / "bare.parquet", bare, bare.to_pandas(), pytest.importorskip("polars").from_arrow(bare)):
            assert list(lf.PCA(2).fit(X).feature_names_in_) == list("abc")


def test_columns_of_a_parquet_file_are_chosen(tmp_path):
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(9, 3)), columns=list("abc"))
    frame.assign(kind="x").to_parquet(tmp_path / "x.parquet")
    table = lf.TableFile(tmp_path / "x.parquet", columns=["c", "a"])
    np.testing.assert_allclose(lf.PCA(1).fit(table).mean_, frame[["c", "a"]].mean())
    table = lf.TableFile(tmp_path / "x.parquet", label="kind", index="a")
    assert list(lf.PCA(1).fit(table).feature_names_in_) == ["b", "c"]


# --- columns of objects


def test_every_bad_column_of_objects_is_named_with_the_others():
    frame = pandas.DataFrame(
        {
            "a": np.array(["x", "y"], object),
            "b": [1.0, 2.0],
            "c": pandas.to_datetime(DAYS[:2]),
            "d": np.array([1, "z"], object),
            "e": [[1.0], [1.0, 2.0]],
        }
    )
    message = (
        r"column 'a' of X holds text \(such as 'x'\); column 'c' of X holds dates .*; column 'd' of X holds text "
        r"\(such as 'z'\); column 'e' of X holds lists of different lengths .* Leave them out"
    )
    with pytest.raises(ValueError, match=message):
        lf.PCA(1).fit(frame)


@pytest.mark.parametrize("lacking", [[0], [3], [0, 5]])
@pytest.mark.parametrize("missing", [None, np.nan, pandas.NA])
def test_missing_lists_are_missing_rows(lacking, missing):
    numbers = np.random.default_rng(0).normal(size=(9, 3))
    lists = pandas.Series([missing if k in lacking else row.tolist() for k, row in enumerate(numbers)], dtype=object)
    source = sources.as_source(pandas.DataFrame({"e": lists, "x": np.arange(9.0)}))
    numbers[lacking] = np.nan
    np.testing.assert_array_equal(source.block(0, 9, False), np.column_stack([numbers, np.arange(9.0)]))
    assert source.names == ("e[0]", "e[1]", "e[2]", "x")


def test_lists_beside_sparse_columns_are_refused():
    frame = pandas.DataFrame(
        {"s": pandas.arrays.SparseArray([0.0, 1.0], fill_value=0.0), "e": [[1.0, 2.0], [3.0, 4.0]]}
    )
    with pytest.raises(ValueError, match=r"Column 'e' of X holds lists, which are not taken beside sparse columns"):
        lf.PCA(1).fit(frame)


@pytest.mark.parametrize("container", ["table", "batch", "Parquet"])
def test_two_columns_of_one_name_are_refused(container, tmp_path):
    X = pa.table([[1.0, 2.0], [3.0, 4.0]], names=["a", "a"])
    if container == "Parquet":
        pq.write_table(X, tmp_path / "x.parquet")
        X = tmp_path / "x.parquet"
    elif container == "batch":
        X = X.to_batches()[0]
    with pytest.raises(ValueError, match="has two columns of one name, 'a'; rename one of them"):
        lf.PCA(1).fit(X)
