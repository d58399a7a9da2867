"""A grid search over the number of components from one decomposition of each training fold.

The first k scores of a PCA with p components are those of a PCA with k: components are nested.  So the largest PCA is
fitted once for each fold, kept by the pipeline's `memory`, and the grid cuts its scores.
"""

import tempfile

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import lae_fast as lf

fits = []


class CountedPCA(lf.PCA):
    """A PCA that says when it is fitted."""

    def fit(self, X, y=None, sample_weight=None):
        fits.append(X.shape)
        return super().fit(X, y, sample_weight)


def first(scores, k):
    """The first k columns."""
    return scores[:, :k]


X, y = load_digits(return_X_y=True)
widths = [2, 5, 10, 20, 40]
with tempfile.TemporaryDirectory() as folder:
    pipeline = Pipeline(
        [
            ("pca", CountedPCA(max(widths), whiten=True)),
            ("cut", FunctionTransformer(first)),
            ("classify", LogisticRegression(max_iter=200)),
        ],
        memory=folder,
    )
    search = GridSearchCV(pipeline, {"cut__kw_args": [{"k": k} for k in widths]}, cv=3).fit(X, y)

for k, score in zip(widths, search.cv_results_["mean_test_score"]):
    print(f"{k:3} components: accuracy {score:.3f}")
print(f"{len(fits)} decompositions for {len(widths)} widths, 3 folds and the last fit on all rows")
if len(fits) != 4:
    raise SystemExit("each training fold, and all rows at the end, were to be decomposed once")
