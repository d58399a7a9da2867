"""Files larger than what may be held: the memory taken stays under a stated bound, and the answer is right.

300 MB of float32 in a .npy, an HDF5 and a Parquet file; each measurement runs in a process of its own (test_memory.py
says how).
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

M, D, P = 75_000, 1000, 10
LIMIT = 60 * 10**6
KINDS = ("npy", "h5", "parquet")
# Of a Parquet file a page of every column is held, which here is a row group, and some 120 kB a column by the reader.
GROUP = 4000
PARQUET = 240 * 10**6

pytestmark = [
    pytest.mark.needs_jit,
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc/self/status, which Linux has"),
]

_PROBE = """
    import ctypes, gc, json, sys, threading, time
    import numpy as np
    import h5py, pyarrow.parquet
    import lae_fast as lf
    from lae_fast import cli, files

    directory, kind, what, limit, p, m = json.loads(sys.argv[1])
    path = f"{directory}/x.{kind}"

    def anonymous():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

    # kernels, readers and thread stacks are loaded once; what counts is what the size of the data adds
    lf.set_num_threads(2)
    warm = np.random.default_rng(0).standard_normal((4000, 40)).astype(np.float32)
    lf.PCA(3, max_memory=limit).fit_transform(warm)
    np.save(f"{directory}/warm-{kind}.npy", warm)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before, peak, stop = anonymous(), 0, threading.Event()

    def watch():
        global peak
        while not stop.is_set():
            peak = max(peak, anonymous())
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = {}
    if what == "fit":
        with files.open_input(path) as source:
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
            pca.transform(source.data, out=out)
            out.flush()
    else:
        model, out = f"{directory}/model-npy.npz", f"{directory}/out-{kind}.npy"
        assert cli.main(["transform", model, path, "-o", out, "-q", "--max-memory", str(limit)]) == 0
    stop.set()
    watcher.join()
    print(json.dumps({"peak": peak - before, **found}))
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The directory of the three files, with the true variances and the float64 covariance's vectors."""
    directory = tmp_path_factory.mktemp("large")
    if shutil.disk_usage(directory).free < 3 * 10**9:
        pytest.skip("needs 3 GB of free disk space")
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
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROBE), arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        # every allocation of 128 kB and more goes back when it is freed: the peak is what is held, not what was
        env={
            **os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072",
            "ARROW_DEFAULT_MEMORY_POOL": "system",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_holds_less_than_twice_its_limit(here, kind):
    directory, values, _, _ = here
    found = measure(directory, kind, "fit")
    np.testing.assert_allclose(found["values"], values, rtol=1e-5)
    assert found["peak"] < (PARQUET if kind == "parquet" else 2 * LIMIT), found


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
    assert found["peak"] < (PARQUET if kind == "parquet" else LIMIT), found
