"""A fitted estimator in a file that needs no pickle: for another process, the command line, or NumPy alone."""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import lae_fast as lf

X, _ = load_digits(return_X_y=True)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.npz"
    stream = lf.IncrementalPCA(10).partial_fit(X[:900])
    stream.save(path)
    again = lf.load(path)  # elsewhere, later: lae-fast transform model.npz INPUT -o codes.npy reads it too
    again.partial_fit(X[900:])
    with np.load(path, allow_pickle=False) as file:
        codes = (X - file["mean"]) @ file["components"].T
    print(f"written after {stream.n_samples_seen_} rows, gone on to {again.n_samples_seen_}")
    same = np.allclose(codes, stream.transform(X))
if not same or not np.allclose(again.explained_variance_, lf.PCA(10).fit(X).explained_variance_):
    raise SystemExit("the file was to hold the model, and the stream to go on")
