"""The same rows as Dask holds them: in many cuts and kinds."""

import numpy as np
import scipy.sparse


def rows(m=900, d=12, mean=0.0, dtype=np.float32, seed=0):
    """Rows with a falling spectrum in a random basis, about a mean."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return ((rng.standard_normal((m, d)) * 0.7 ** np.arange(d)) @ basis + mean).astype(dtype)


def sparse_rows(m=900, d=40, dtype=np.float32):
    matrix = scipy.sparse.random(m, d, 0.08, format="csr", random_state=1, dtype=dtype)
    return scipy.sparse.csr_array(matrix @ scipy.sparse.diags_array(0.8 ** np.arange(d).astype(dtype)))


def even(X):
    import dask.array as da

    return da.from_array(X, chunks=(200, -1))


def uneven(X):
    import dask.array as da

    return da.from_array(X, chunks=((1, 399, 7, len(X) - 407), -1))


def one_chunk(X):
    import dask.array as da

    return da.from_array(X, chunks=-1)


def columns_too(X):
    import dask.array as da

    return da.from_array(X, chunks=(250, 5))


def unknown_rows(X):
    """A number of rows that Dask does not know, and a chunk that turns out to be empty."""
    import dask.array as da

    padded = np.vstack([X[:300], np.zeros((100, X.shape[1]), X.dtype), X[300:]])
    kept = np.ones(len(padded), bool)
    kept[300:400] = False
    return da.from_array(padded, chunks=(100, -1))[da.from_array(kept, chunks=100)]


def delayed_blocks(X):
    import dask

    return [dask.delayed(X[first : first + 130]) for first in range(0, len(X), 130)]


def dataframe(X):
    import dask.dataframe as dd
    import pandas as pd

    return dd.from_pandas(pd.DataFrame(X, columns=[f"c{j}" for j in range(X.shape[1])]), npartitions=4)


def sparse_chunks(X):
    import dask.array as da

    return da.from_array(X, chunks=(200, -1), asarray=False)


def sparse_delayed(X):
    return delayed_blocks_of(X, 130)


def delayed_blocks_of(X, height):
    import dask

    return [dask.delayed(X[first : first + height]) for first in range(0, X.shape[0], height)]


DENSE = {cut.__name__: cut for cut in (even, uneven, one_chunk, columns_too, unknown_rows, delayed_blocks, dataframe)}
SPARSE = {cut.__name__: cut for cut in (sparse_chunks, sparse_delayed)}
