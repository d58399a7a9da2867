"""A program written for scikit-learn, run with our classes; what an option does not do here is told once."""

import lae_fast

lae_fast.patch_sklearn()

from sklearn.datasets import load_digits  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

X, _ = load_digits(return_X_y=True)
model = make_pipeline(StandardScaler(), PCA(10, svd_solver="randomized", random_state=0)).fit(X)
pca = model[-1]
print(f"{type(pca).__name__} of {type(pca).__module__.partition('.')[0]}: route {pca.solver_}, {pca.route_reason_}")
print(f"residuals of the components: at most {pca.residuals_.max():.1e}")

lae_fast.unpatch_sklearn()
from sklearn.decomposition import PCA  # noqa: E402

if PCA.__module__.startswith("lae_fast"):
    raise SystemExit("scikit-learn was to have its own PCA back")
