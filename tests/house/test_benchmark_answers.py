"""What benchmarks compare: answers and their errors, data of known spectra, contestants, ceilings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # benchmarks/ is not part of the installed package
    sys.path.insert(0, str(ROOT))

from benchmarks import ceilings, pca, report  # noqa: E402
from benchmarks.lib import accuracy, first_call, harness, peers, profiling, race, shapes  # noqa: E402


def naive_residuals(X, values, components):
    """|S u - l u| / l from the definition, entry by entry, in float64."""
    m, d = X.shape
    X = X.astype(np.float64)
    mean = [sum(X[k, j] for k in range(m)) / m for j in range(d)]
    S = np.zeros((d, d))
    for i in range(d):
        for j in range(d):
            S[i, j] = sum((X[k, i] - mean[i]) * (X[k, j] - mean[j]) for k in range(m)) / (m - 1)
    return np.array(
        [
            np.sqrt(sum((sum(S[i, j] * u[j] for j in range(d)) - value * u[i]) ** 2 for i in range(d))) / value
            for value, u in zip(values, components)
        ]
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("blocks", [1, 5])
def test_residuals_against_the_definition(dtype, blocks, monkeypatch):
    rng = np.random.default_rng(3)
    X = (rng.random((23, 6)) * 200).astype(dtype)
    values, components = np.array([900.0, 700.0, 30.0]), rng.standard_normal((3, 6))
    monkeypatch.setattr(accuracy, "_BLOCK_BYTES", 8 * 6 * -(-23 // blocks))
    found = accuracy.measure(X, values, components)
    np.testing.assert_allclose(found.residuals, naive_residuals(X, values, components), rtol=1e-12)
    np.testing.assert_allclose(accuracy.column_means(X), X.mean(axis=0, dtype=np.float64), rtol=1e-14)
    assert found.worst == found.residuals.max()


def eigenpairs(X, p):
    values, vectors = np.linalg.eigh(np.cov(X, rowvar=False))
    return values[::-1][:p], vectors[:, ::-1][:, :p].T


def test_a_right_answer_is_accurate_and_a_wrong_one_is_not():
    X = shapes.synthetic(300, 20, "float64")
    values, components = eigenpairs(X, 4)
    assert accuracy.measure(X, values, components).meets(1e-8)
    assert not accuracy.measure(X, values * (1 + 1e-6), components).meets(1e-8)
    assert not accuracy.measure(X, values, components + 1e-6).meets(1e-8)
    assert not accuracy.measure(X, values[::-1], components[::-1]).meets(1e-8)  # right pairs, wrong order
    twice = [0, 1, 1, 3]
    assert not accuracy.measure(X, values[twice], components[twice]).meets(1e-8)
    broken = components.copy()
    broken[2, 5] = np.nan
    assert accuracy.measure(X, values, broken).worst == np.inf
    assert accuracy.measure(X, np.zeros(4), components).worst == np.inf


def test_a_missed_eigenpair_shows_against_the_others():
    X = shapes.synthetic(300, 20, "float64")
    values, components = eigenpairs(X, 5)
    right = accuracy.measure(X, values[:4], components[:4])
    skipped = accuracy.measure(X, values[[0, 1, 3, 4]], components[[0, 1, 3, 4]])
    assert skipped.meets(1e-8)  # the residuals cannot see it
    assert accuracy.missed(skipped, [right, skipped], 1e-8) == 2
    assert accuracy.missed(right, [right, skipped], 1e-8) == 0
    # Nobody is found guilty by an answer that returns the first pair four times.
    same = accuracy.measure(X, values[[0, 0, 0, 0]], components[[0, 0, 0, 0]])
    assert accuracy.missed(right, [same], 1e-8) == 0


def test_the_tolerance_follows_the_dtype_of_the_computation():
    assert accuracy.tolerance_for(np.float32) == accuracy.tolerance_for("uint8") == 1e-4
    assert accuracy.tolerance_for("float64") == 1e-8


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_synthetic_data_have_the_documented_spectrum_and_means(dtype):
    X = shapes.synthetic(20_000, 40, dtype)
    assert X.dtype == dtype
    assert X.flags.c_contiguous
    np.testing.assert_array_equal(X[:3], shapes.synthetic(20_000, 40, dtype)[:3])
    values, _ = eigenpairs(X.astype(np.float64), 40)
    np.testing.assert_allclose(values, shapes.spectrum(40), rtol=0.08)
    assert shapes.spectrum(40).mean() == pytest.approx(1.0)
    means = X.mean(axis=0, dtype=np.float64)
    assert means.min() > -0.05
    assert 0.7 < means.mean() < 1.3
    assert means.max() < 2.05


def test_the_promised_shapes_are_there():
    full = {(c.n_samples, c.n_features, c.dtype, c.n_components) for c in shapes.FULL}
    assert {
        (60_000, 784, "float32", 20),
        (60_000, 784, "float32", 100),
        (60_000, 784, "float32", 30),
        (20_000, 5_000, "float32", 50),
        (5_000, 20_000, "float32", 50),
        (500_000, 200, "float32", 10),
        (20_000, 2_000, "float64", 20),
    } <= full
    names = [case.name for case in (*shapes.FULL, *shapes.SMOKE)]
    assert len(set(names)) == len(names)


OF_OURS = [peer for peer in peers.contestants() if peer.module in ("sklearn", "scipy", "numpy")]  # our dependencies


@pytest.mark.parametrize("peer", OF_OURS, ids=lambda peer: peer.name)
def test_peers_of_our_own_dependencies_find_the_components(peer):
    X = shapes.synthetic(400, 60, "float64", seed=5)
    answer = peer(X, 3, *([40] if peer.tune_from else []))
    assert answer.components.shape == (3, 60)
    np.testing.assert_allclose(answer.mean, X.mean(axis=0), atol=1e-12)
    found = accuracy.measure(X, answer.values, answer.components)
    assert found.orthogonality < 1e-8
    assert found.worst < (1e-2 if "randomized" in peer.name and not peer.tune_from else 1e-6)


@pytest.mark.parametrize(
    ("m", "d", "p"),
    [(600, 60, 5), (599, 60, 5), (400, 60, 5), (501, 60, 47), (501, 60, 49), (60, 501, 5)],
)
def test_the_automatic_choice_of_scikit_learn_is_as_documented(m, d, p):
    answer = peers.scikit_learn(shapes.synthetic(m, d), p)
    assert answer.info["solver"] == peers.automatic_solver(m, d, p)


def test_the_others_are_listed_whether_installed_or_not(monkeypatch):
    monkeypatch.setattr(peers, "is_installed", lambda module: False)
    absent = peers.Peer("absent", "no_such_module", fit=lambda X, p: pytest.fail("must not run"))
    case = shapes.Case("tiny", "tiny", 50, 8, "float32", 2, lambda: shapes.synthetic(50, 8), aim=None)
    run = race.CaseRun(case, case.load(), [absent], say=lambda text: None)
    run.measure_ceilings(repeats=1)
    run.try_all(deadline=np.inf)
    assert run.records["absent"].status == harness.NOT_INSTALLED
    assert "no_such_module" in run.records["absent"].reason


def test_flops_of_the_routes():
    assert ceilings.gram_flops(1000, 10) == ceilings.gram_flops(10, 1000) == 1000 * 10 * 11
    assert ceilings.pass_flops(1000, 10, 3) == 4 * 1000 * 10 * 3
    tall = shapes.Case("t", "t", 1000, 10, "float32", 3, lambda: None)
    wide = shapes.Case("w", "w", 10, 1000, "float32", 3, lambda: None)
    assert race.needed_flops("gram", 1, tall, 5) == (1000 * 10 * 11, 0)
    assert race.needed_flops("krylov", 4, tall, 5) == (0, 4 * 4 * 1000 * 10 * 5)
    # Wide data: two passes with the block, half a pass that carries p vectors over, one that refines them.
    assert race.needed_flops("krylov", 4, wide, 5) == (0, 4 * 1000 * 10 * (2 * 5 + 0.5 * 3 + 3))
    assert race.needed_flops("krylov", 4, wide, 5, long=True) == (0, 4 * 4 * 1000 * 10 * 5)
    assert race.needed_flops("gram", 3, wide, 5) == (1000 * 10 * 11, 4 * 1000 * 10 * (0.5 * 3 + 3))


def test_the_share_of_the_ceiling_is_taken_within_rounds():
    case = shapes.Case("t", "t", 1000, 10, "float32", 3, lambda: None)
    limits = ceilings.Ceilings(syrk_gflops=1.0, gemm_gflops=2.0, square_gflops=3.0, read_gbps=1.0, block=5)
    mine = harness.Record("lae_fast", "ours", times=[2.0, 8.0], rounds=[0, 1], detail={"solver": "gram", "n_passes": 1})
    # BLAS does half of the flops, in a quarter of the time of that round: it would do all in half of the time.
    blas = harness.Record("BLAS alone", "ceiling", times=[0.5, 2.0], rounds=[0, 1])
    found = race.work(mine, blas, 1000 * 10 * 11 / 2, case, limits)
    assert found["ceiling_share"]["median"] == pytest.approx(0.5)
    assert found["ceiling_share"]["iqr"] == pytest.approx(0.0)


@pytest.mark.parametrize("shape", [(90, 20), (20, 90)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_ceilings_compute_what_they_claim(shape, dtype):
    X = shapes.synthetic(*shape, dtype)
    run, flops = ceilings.gram_alone(X)
    expected = X.T @ X if shape[0] > shape[1] else X @ X.T
    np.testing.assert_allclose(np.triu(run()), np.triu(expected), rtol=1e-4, atol=1e-4)
    assert flops == 90 * 20 * 21
    _, fewer = ceilings.gram_alone(X, most_flops=10 * 20 * 21)
    assert fewer == 10 * 20 * 21
    _, flops = ceilings.pass_alone(X, 3)
    assert flops == 4 * 90 * 20 * 3


def test_time_in_a_file_is_counted_once():
    def own(*callers):
        return (1, 1, 0.0, 0.0, {caller: (1, 1, 0.0, seconds) for caller, seconds in callers})

    outer, inner, outside = ("a/certificate.py", 1, "outer"), ("a/certificate.py", 9, "inner"), ("a/solve.py", 3, "fit")
    functions = {outer: own((outside, 2.0)), inner: own((outer, 1.5), (outside, 0.25)), outside: own()}
    assert profiling._entered_s(functions, "certificate.py") == 2.25


@pytest.mark.full
def test_ours_is_compared_profiled_and_certified(tmp_path, monkeypatch, capsys):
    def fit(X, p, factor=1.0):
        values, components = eigenpairs(X.astype(np.float64), p)
        info = {"solver": "gram", "route_reason": "r", "n_passes": 1, "workspace_bytes": 8, "certificate": np.ones(p)}
        return peers.Answer(values * factor, components, X.mean(axis=0), info)

    case = shapes.Case("tiny", "tiny", 200, 12, "float32", 2, lambda: shapes.synthetic(200, 12), aim=None)
    chosen = [peers.Peer("lae_fast", "numpy", fit, kind="ours")]
    chosen += [p for p in peers.contestants() if p.name == "scikit-learn full"]
    monkeypatch.setattr(shapes, "SMOKE", (case,))
    monkeypatch.setattr(pca, "select_peers", lambda names, routes: chosen)
    monkeypatch.setattr(first_call, "measure", lambda: {"failed": "not tried"})
    out = tmp_path / "pca-smoke.json"
    assert pca.main(["--smoke", "--out", str(out), "--budget", "4"]) == 0
    found = json.loads(out.read_text())["cases"][0]
    assert found["best_peer"] == "scikit-learn full"
    assert found["speedup"]["scikit-learn full"]["n"] == 3
    assert found["work"]["flops"] == 200 * 12 * 13
    assert found["work"]["ceiling_share"]["n"] == 3
    assert "BLAS alone" not in found["speedup"]
    assert found["profile"]["certificate_share"] == 0.0
    assert any("eigh" in name for name, _ in found["profile"]["own"])
    ours = found["contestants"][0]["detail"]
    assert (ours["certificate"], ours["certificate_holds"], ours["missed"]) == (1.0, True, 0)
    assert report.main([str(out)]) == 0
    assert "the bound holds" in capsys.readouterr().out
    chosen[0] = peers.Peer("lae_fast", "numpy", fit, kind="ours", options={"factor": 1.01})
    assert pca.main(["--smoke", "--out", str(out), "--budget", "4"]) == 1  # ours misses the tolerance
