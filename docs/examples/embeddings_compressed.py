"""Embeddings compressed by PCA: recall of their nearest neighbours before and after, at each width.

What is lost is known before an index is built: the share of the variance that is left out, and the recall on a sample.
The data look like sentence embeddings: topics, falling variances, turned at random, and a mean that is not zero.
"""

import numpy as np

import lae_fast as lf

rng = np.random.default_rng(0)
n, d, topics = 6000, 256, 300
spread = np.arange(1, d + 1) ** -0.8
turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
centres = rng.standard_normal((topics, d)) * spread
labels = rng.integers(topics, size=n)
vectors = ((centres[labels] + 0.35 * rng.standard_normal((n, d)) * spread + 0.01 * rng.standard_normal((n, d))) @ turn
           + 0.3).astype(np.float32)  # fmt: skip
documents, queries = vectors[:-200], vectors[-200:]


def nearest(found, asked, count=10):
    """The places of the nearest documents of each query."""
    squares = (found**2).sum(axis=1) - 2.0 * asked @ found.T
    return np.argpartition(squares, count, axis=1)[:, :count]


def recall(found, asked):
    """Share of the ten nearest documents that are the ten nearest of the whole vectors."""
    places = nearest(found, asked)
    return np.mean([len(set(one) & set(other)) / len(one) for one, other in zip(places, exact)])


exact = nearest(documents, queries)
pca = lf.PCA(128).fit(documents)
codes, asked = pca.transform(documents), pca.transform(queries)
print(f"before: {d} numbers, {documents.nbytes / 1e6:.1f} MB, recall {recall(documents, queries):.3f}")
recalls = []
for k in (16, 32, 64, 128):  # components are nested: one decomposition serves all widths
    half = codes[:, :k].astype(np.float16)
    recalls.append(recall(half.astype(np.float32), asked[:, :k]))
    kept = pca.explained_variance_ratio_[:k].sum()
    cut = recall(documents[:, :k], queries[:, :k])
    print(f"{k:4} codes of 2 bytes, {half.nbytes / 1e6:.1f} MB: {kept:6.1%} of the variance, recall {recalls[-1]:.3f}; "
          f"the first {k} numbers as they are: {cut:.3f}")  # fmt: skip
if not (recalls == sorted(recalls) and recalls[-1] > 0.9):
    raise SystemExit("recall must grow with the width, and come close to that of the whole")
