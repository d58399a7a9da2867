"""Files larger than what may be held: the memory taken stays under a stated bound, and the answer is right.

120 MB of float32 in a .npy, an HDF5 and a Parquet file; each measurement runs in a process of its own
(benchmarks/lib/memory.py).
"""

import json
import shutil

import numpy as np
import pytest

from benchmarks.lib import memory

h5py = pytest.importorskip("h5py")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

M, D, P = 60_000, 500, 10
LIMIT = 40 * 10**6
KINDS = ("npy", "h5", "parquet")
# Rows of a row group of the Parquet file.
GROUP = 5000

pytestmark = [
    pytest.mark.needs_jit,
    pytest.mark.full,
    pytest.mark.skipif(not memory.measurable(), reason="reads /proc/self/status, which Linux has"),
]

_PROBE = """
    import json, sys
    import numpy as np
    import h5py, pyarrow.parquet
    import lae_fast as lf
    from benchmarks.lib import memory
    from lae_fast import cli
    from lae_fast.data import files

    directory, kind, what, limit, p, m = json.loads(sys.argv[1])
    path = f"{directory}/x.{kind}"

    # kernels, readers and thread stacks are loaded once; what counts is what the size of the data adds
    lf.set_num_threads(2)
    warm = np.random.default_rng(0).standard_normal((4000, 40)).astype(np.float32)
    lf.PCA(3, max_memory=limit).fit_transform(warm)
    np.save(f"{directory}/warm-{kind}.npy", warm)
    peak, found = memory.Peak(), {}
    if what == "fit":
        with peak, files.open_input(path) as source:
            pca = lf.PCA(p, max_memory=limit).fit(source.data)
        found = {"values": pca.explained_variance_.tolist(), "stated": pca.workspace_bytes_}
        np.savez(f"{directory}/model-{kind}.npz", components=pca.components_, mean=pca._exact_mean, format_version=1)
    elif what == "transform":
        with files.open_input(path) as source, np.load(f"{directory}/model-npy.npz") as model:
            pca = lf.PCA.__new__(lf.PCA)
            pca.__dict__.update(
                components_=model["components"], _exact_mean=model["mean"], scale_=None, whiten=False, missing="error",
                n_features_in_=model["mean"].size, backend="auto",
            )
            out = np.lib.format.open_memmap(f"{directory}/out-{kind}.npy", "w+", np.float32, (m, p))
            with peak:
                pca.transform(source.data, out=out)
            out.flush()
    else:
        model, out = f"{directory}/model-npy.npz", f"{directory}/out-{kind}.npy"
        few = f"{directory}/few-{kind}.npy"
        np.save(few, np.zeros((4, np.load(model)["mean"].size), np.float32))
        options = ["-o", out, "-q", "--max-memory", str(limit)]
        assert cli.main(["transform", model, few, *options]) == 0  # what the command imports
        with peak:
            assert cli.main(["transform", model, path, *options]) == 0
    print(json.dumps({"peak": peak.above, **found}))
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The directory of the three files, with the true variances and the float64 covariance's vectors."""
    directory = tmp_path_factory.mktemp("large")
    if shutil.disk_usage(directory).free < 10**9:
        pytest.skip("needs 1 GB of free disk space")
    random = np.random.default_rng(0)
    spread = 0.99 ** np.arange(D, dtype=np.float32)
    rows = np.lib.format.open_memmap(directory / "x.npy", "w+", np.float32, (M, D))
    gram, total = np.zeros((D, D)), np.zeros(D)
    with h5py.File(directory / "x.h5", "w") as file:
        data = file.create_dataset("x", (M, D), np.float32, chunks=(500, D))
        for first in range(0, M, 5000):
            block = random.standard_normal((5000, D), dtype=np.float32) * spread + 50
            rows[first : first + 5000] = data[first : first + 5000] = block
            centred = block.astype(np.float64) - 50
            gram += centred.T @ centred
            total += centred.sum(axis=0)
    rows.flush()
    table = pyarrow.table({f"c{j}": np.ascontiguousarray(rows[:, j]) for j in range(D)})
    parquet.write_table(table, directory / "x.parquet", row_group_size=GROUP, compression="none", use_dictionary=False)
    values, vectors = np.linalg.eigh((gram - np.outer(total, total) / M) / (M - 1))
    yield directory, values[::-1][:P], vectors[:, ::-1][:, :P], 50 + total / M
    shutil.rmtree(directory)


def measure(directory, kind, what):
    arguments = json.dumps([str(directory), kind, what, LIMIT, P, M])
    return json.loads(memory.run(arguments, code=_PROBE, **memory.RETURNED))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_holds_less_than_twice_its_limit(here, kind):
    directory, values, _, _ = here
    found = measure(directory, kind, "fit")
    np.testing.assert_allclose(found["values"], values, rtol=1e-5)
    assert found["peak"] < 2 * LIMIT, found


@pytest.mark.parametrize(("what", "kind"), [("transform", "npy"), *(("command", kind) for kind in KINDS)])
def test_codes_are_written_in_less_than_the_limit(here, what, kind):
    directory, _, vectors, mean = here
    model = directory / "model-npy.npz"
    if not model.exists():
        np.savez(model, components=vectors.T.astype(np.float32), mean=mean, format_version=1)
    found = measure(directory, kind, what)
    codes = np.load(directory / f"out-{kind}.npy", mmap_mode="r")
    assert codes.shape == (M, P)
    with np.load(model) as held:
        rows = np.load(directory / "x.npy", mmap_mode="r")[::1000]
        exact = (rows - held["mean"]) @ held["components"].astype(np.float64).T
    np.testing.assert_allclose(codes[::1000], exact, atol=2e-4)
    # what decodes a Parquet file takes up to half of the limit, beside what the pass holds
    assert found["peak"] < (1.5 if kind == "parquet" else 1) * LIMIT, found
