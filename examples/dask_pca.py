"""Principal components of rows on Dask: `python examples/dask_pca.py [ADDRESS OF A SCHEDULER]`."""

import sys

import dask.array as da
from dask.distributed import Client

import lae_fast as lf

if __name__ == "__main__":
    client = Client(sys.argv[1]) if len(sys.argv) > 1 else None
    X = da.random.normal(100, 1, size=(1_000_000, 200), chunks=(50_000, 200)).astype("float32")
    pca = lf.PCA(10).fit(X)
    print(pca.explained_variance_, pca.residuals_.max(), pca.route_reason_, sep="\n")
