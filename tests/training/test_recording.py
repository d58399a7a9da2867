"""What a run records: which quantities, at which iterations; what a callback sees; and the criteria that end a run."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone

import lae_fast as lf
from lae_fast import losses, metrics, stopping
from lae_fast.errors import ConvergenceWarning
from tests.oracle import naive_autoencoder as naive
from tests.oracle.training_cases import MOMENTS, TRUTH, D, M, P, X, quiet_fit

pytestmark = pytest.mark.needs_jit
CENTRED = X - X.mean(axis=0)
SXX = naive.second_moments(CENTRED, scale="mean")[0]
SETTINGS = {"optimizer": "sgd", "learning_rate": 0.01, "init_scale": 0.1, "tol": 0.0}


def start(p=P, d=D, scale=0.1):
    rng = np.random.default_rng(0)
    b, at = scale * rng.standard_normal((p, d)), scale * rng.standard_normal((p, d))
    return at.T, b


@pytest.mark.parametrize(
    ("record_every", "expected"),
    [
        (5, [0, 5, 10, 12]),
        (100, [0, 12]),
        ([3, 7, 3, 40], [0, 3, 7, 12]),
        ("log", [0, 1, 2, 3, 4, 5, 6, 8, 10, 12]),
        (np.array([12]), [0, 12]),
    ],
    ids=str,
)
@pytest.mark.parametrize("options", [
    {}, {"regime": "rows"}, {"batch_size": 16}, {"hidden": (6,)},
    {"rule": "alternating", "optimizer": "auto", "learning_rate": "auto"},
], ids=str)  # fmt: skip
def test_the_first_and_the_last_iterate_are_recorded(record_every, expected, options):
    model = lf.LinearAutoencoder(P, max_iter=12, record_every=record_every, **{**SETTINGS, **options}).fit(X)
    np.testing.assert_array_equal(model.history_["iteration"], expected)
    assert all(len(values) == len(expected) for values in model.history_.values())
    other = lf.LinearAutoencoder(P, max_iter=12, record_every=1, **{**SETTINGS, **options}).fit(X)
    np.testing.assert_array_equal(model.encoder_, other.encoder_)  # recording moves nothing
    np.testing.assert_array_equal(model.history_["loss"], other.history_["loss"][expected])
    np.testing.assert_array_equal(model.history_["gradient_norm"], other.history_["gradient_norm"][expected])


def test_every_quantity_is_that_of_the_weights_of_its_iteration():
    names = ("d_align", "d_sub", "matched_alignment", "ratio_tp", "ratio_fp", "ratio_total", "streak", "transpose_gap",
             "nondiagonality", "loss_ratio", "excess_loss", "update_norm", "rate")  # fmt: skip
    model = lf.LinearAutoencoder(P, max_iter=60, record_every=20, record=names, **SETTINGS).fit(X, reference=TRUTH)
    path = naive.train("gradient", "sgd", *start(), SXX, iterations=61, rate=0.01, kind="ordered")
    path = [start(), *path]
    assert set(names) < set(model.history_)
    minimum = lf.theory.minimum(MOMENTS, P, "ordered")
    for k, t in enumerate([0, 20, 40, 60]):
        a, b = path[t]
        loss = naive.loss("ordered", a, b, CENTRED, scale="mean")
        zero = P * np.trace(SXX)
        expected = {
            "loss": loss,
            "d_align": metrics.axis_alignment_distance(TRUTH, a),
            "alignment": metrics.axis_alignment_distance(TRUTH, a),
            "d_sub": metrics.subspace_distance(TRUTH, a),
            "matched_alignment": metrics.matched_alignment(TRUTH, a),
            "ratio_tp": metrics.ratio_tp(TRUTH, a),
            "ratio_fp": metrics.ratio_fp(TRUTH, a),
            "ratio_total": metrics.ratio_total(TRUTH, a),
            "streak": metrics.longest_correct_streak(TRUTH, a),
            "transpose_gap": metrics.transpose_gap(a, b),
            "nondiagonality": metrics.nondiagonality(b @ SXX @ b.T),
            "loss_ratio": loss / minimum,
            "excess_loss": (loss - minimum) / (zero - minimum),
            "update_norm": np.hypot(np.linalg.norm(path[t + 1][0] - a), np.linalg.norm(path[t + 1][1] - b)),
            "rate": 0.01,
        }
        for name, value in expected.items():
            assert model.history_[name][k] == pytest.approx(value, rel=1e-7, abs=1e-10), (name, t)


def test_a_callable_is_a_schedule():
    options = {"max_iter": 8, "record_every": 1, "record": "rate", "tol": 0.0}
    model = lf.LinearAutoencoder(P, learning_rate=0.1, schedule=lambda t: 0.5 ** (t // 3), **options).fit(X)
    np.testing.assert_allclose(model.history_["rate"], 0.1 * 0.5 ** (np.arange(9) // 3))


def test_scale_sum_of_a_batch_stands_for_all_rows():
    """A step of scale "sum" on a batch of b rows is one of "mean" with a rate m times as large."""
    options = {"batch_size": 20, "optimizer": "sgd", "max_iter": 5, "tol": 0.0, "init_scale": 0.1}
    summed = lf.LinearAutoencoder(P, scale="sum", learning_rate=0.01 / M, **options).fit(X)
    meant = lf.LinearAutoencoder(P, learning_rate=0.01, **options).fit(X)
    np.testing.assert_allclose(summed.encoder_, meant.encoder_, rtol=1e-9)
    np.testing.assert_allclose(summed.history_["loss"], M * meant.history_["loss"], rtol=1e-9)


def test_callables_are_recorded_by_name():
    def first_row(state):
        return state.encoder[0]

    model = quiet_fit(lf.LinearAutoencoder(P, max_iter=6, record_every=3, record=(first_row, "rate")), X)
    assert model.history_["first_row"].shape == (3, D) and model.history_["rate"].shape == (3,)
    np.testing.assert_array_equal(model.history_["first_row"][-1], model.encoder_[0])
    norms = {"norm": lambda state: np.linalg.norm(state.encoder)}
    model = quiet_fit(lf.LinearAutoencoder(P, max_iter=6, record=norms), X)
    assert model.history_["norm"][-1] == np.linalg.norm(model.encoder_)
    clone(lf.LinearAutoencoder(P, record=(first_row,), stop=[stopping.below("rate", 0.0)]))
    ragged = {"ragged": lambda state: np.ones(1 + state.iteration)}  # no reason to lose a trained model
    model = quiet_fit(lf.LinearAutoencoder(P, max_iter=2, record_every=1, record=ragged), X)
    assert [len(one) for one in model.history_["ragged"]] == [1, 2, 3]


def test_a_reference_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="reference"):
        lf.LinearAutoencoder(P).fit(X, reference=np.full((D, P), np.nan))


def test_variances_of_the_vae_are_recorded_and_seen():
    seen = []
    names = ("noise_variance", "latent_variances")
    model = lf.LinearAutoencoder(2, loss="vae", max_iter=30, record_every=10, init_scale=0.1, tol=0.0,
                                 record=names, callback=seen.append).fit(X)  # fmt: skip
    assert model.history_["noise_variance"][0] == 1.0 and model.history_["latent_variances"].shape == (4, 2)
    assert model.history_["noise_variance"][-1] == model.noise_variance_ == seen[-1].noise_variance
    np.testing.assert_array_equal(model.history_["latent_variances"][-1], model.latent_variances_)
    with pytest.raises(ValueError, match="'noise_variance' is a quantity of loss='vae' alone"):
        lf.LinearAutoencoder(2, record="noise_variance").fit(X)


@pytest.mark.parametrize("options", [{}, {"regime": "rows"}, {"rule": "rag", "loss": "mse"}, {"hidden": (6,)}], ids=str)
def test_a_callback_sees_one_moment(options):
    seen = []
    model = lf.LinearAutoencoder(P, max_iter=9, record_every=4, callback=seen.append, **SETTINGS, **options).fit(X)
    assert [state.iteration for state in seen] == [0, 4, 8, 9] == list(model.history_["iteration"])
    for state in seen:
        loss = options.get("loss", "ordered")
        assert state.loss == pytest.approx(lf.loss(state.decoder, state.encoder, MOMENTS, loss), rel=1e-9)
        assert state.rate == 0.01 and state.latent_variances is None
        if not options:
            da, db = lf.gradients(state.decoder, state.encoder, MOMENTS, loss)
            steps = [np.linalg.norm(one) for one in (da, db)]
            ratios = [step / np.linalg.norm(one) for step, one in zip(steps, (state.decoder, state.encoder))]
            assert state.gradient_norm == pytest.approx(max(ratios), rel=1e-9)
            assert state.update_norm == pytest.approx(0.01 * np.hypot(*steps), rel=1e-9)
    assert seen[0].encoder is not seen[1].encoder and (seen[0].encoder != seen[1].encoder).any()
    np.testing.assert_array_equal(seen[-1].encoder, model.encoder_)
    np.testing.assert_array_equal(seen[-1].decoder, model.decoder_)


@pytest.mark.parametrize("where", ["callback", "record"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_of_a_callback_leaves_what_it_saw(where, error):
    seen = []

    def look(state):
        seen.append(state)
        if state.iteration == 6:
            raise error("enough")
        return 0.0

    model = lf.LinearAutoencoder(P, max_iter=50, record_every=3, **{where: look})
    with pytest.raises(error, match="enough"):
        model.fit(X, reference=TRUTH)
    assert model.n_iter_ == 6 and not model.converged_
    np.testing.assert_array_equal(model.encoder_, seen[-1].encoder)
    assert model.transform(X).shape == (M, P) and np.isfinite(model.components_).all()
    assert len({len(values) for values in model.history_.values()}) == 1


def test_a_callback_that_stops_keeps_what_it_saw():
    seen = []

    def look(state):
        seen.append(state)
        return state.iteration == 6

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = lf.LinearAutoencoder(P, record_every=3, callback=look).fit(X)
    assert model.n_iter_ == 6 and model.history_["iteration"][-1] == 6
    np.testing.assert_array_equal(model.encoder_, seen[-1].encoder)


@pytest.mark.parametrize(
    ("criterion", "name"),
    [
        (stopping.below("d_align", 0.05), "d_align"),
        (stopping.above("ratio_tp", 0.75), "ratio_tp"),
        (stopping.below("excess_loss", 1e-4), "excess_loss"),
        (stopping.below("update_norm", 1e-4), "update_norm"),
        (stopping.below("loss_ratio", 1.01), "loss_ratio"),
    ],
    ids=str,
)
def test_a_criterion_ends_the_run_where_it_first_holds(criterion, name):
    options = {"optimizer": "nesterov", "record_every": 10, "record": (name,), "max_iter": 3000}
    if name == "ratio_tp":
        options.pop("record")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = lf.LinearAutoencoder(P, stop=criterion, **options).fit(X, reference=TRUTH)
    held = np.array([criterion.holds(value) for value in model.history_[name]])
    assert model.converged_ and held[-1] and not held[:-1].any() and 0 < model.n_iter_ < 3000
    assert model.converged_reason_.startswith(f"{name} is ") and criterion.describe() in model.converged_reason_
    # the weights are those that it holds for
    full = lf.LinearAutoencoder(P, tol=0.0, **{**options, "max_iter": model.n_iter_}).fit(X, reference=TRUTH)
    np.testing.assert_array_equal(full.encoder_, model.encoder_)


def test_of_several_criteria_the_first_that_holds_ends_the_run():
    never = stopping.below("d_align", -1.0)
    model = lf.LinearAutoencoder(P, optimizer="nesterov", stop=["gradient", never]).fit(X, reference=TRUTH)
    alone = lf.LinearAutoencoder(P, optimizer="nesterov").fit(X)
    assert model.n_iter_ == alone.n_iter_ and model.converged_ and "tol=1e-06" in model.converged_reason_
    both = [stopping.below("d_align", 0.3), "gradient", "alignment"]
    sooner = lf.LinearAutoencoder(P, optimizer="nesterov", stop=both, record_every=5).fit(X, reference=TRUTH)
    assert sooner.n_iter_ < alone.n_iter_ and "d_align" in sooner.converged_reason_
    with pytest.warns(ConvergenceWarning, match=r"ended before stopping\.below\('d_align', -1\) held"):
        lf.LinearAutoencoder(P, stop=never, max_iter=20).fit(X, reference=TRUTH)


def test_a_callable_may_be_a_criterion():
    model = lf.LinearAutoencoder(P, stop=stopping.above(lambda state: state.iteration, 30), record_every=10).fit(X)
    assert model.n_iter_ == 30 and model.converged_


@pytest.mark.parametrize("options", [{}, {"batch_size": 20}, {"rule": "gha"}, {"rule": "alternating"}], ids=str)
def test_tol_zero_asks_for_all_iterations_and_does_not_warn(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = lf.LinearAutoencoder(P, max_iter=7, tol=0.0, **options).fit(X)
    assert model.n_iter_ == 7
    assert model.converged_reason_.startswith("all max_iter=7 iterations are done, which tol=0 asks for")
    with pytest.warns(ConvergenceWarning, match="removes 1 of"):  # another thing
        lf.LinearAutoencoder(P, loss=losses.sum_l2(2.0), max_iter=7, tol=0.0).fit(X)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"record": "d_alig"}, "record: 'd_alig' is unknown; choose one of 'alignment', 'd_align'"),
        ({"record": (lambda state: 1,)}, "has no name; give it one"),
        ({"record": ("rate", "rate")}, "'rate' is recorded already"),
        ({"record": {"loss": len}}, "'loss' is recorded already"),
        ({"record": 3}, "record=3 must be names and callables"),
        ({"record": (3,)}, "3 must be a name or a callable"),
        ({"record": "d_align"}, "record='d_align' needs reference="),
        ({"record_every": 0}, "record_every=0"),
        ({"record_every": "often"}, "record_every='often' is unknown; choose one of 'log'"),
        ({"record_every": [2, -1]}, "record_every"),
        ({"stop": []}, "has no criterion"),
        ({"stop": stopping.below("d_align", 0.1)}, r"stop=stopping\.below\('d_align', 0\.1\) needs reference="),
        ({"stop": stopping.below("nothing", 0.1)}, "stop: 'nothing' is unknown"),
        ({"stop": "never"}, r"choose one of 'alignment', 'gradient', stopping\.below\(quantity, threshold\)"),
        ({"stop": stopping.below}, "must be an object, not a class"),
        ({"stop": stopping.below("alignment_residuals", 0.1)}, "alignment_residuals has 4 numbers, not one"),
        ({"stop": 3}, "stop=3 must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),  # a callable's text differs by process
)
def test_what_cannot_be_recorded_is_refused(parameters, message):
    with pytest.raises((ValueError, TypeError), match=message):
        lf.LinearAutoencoder(P, **parameters).fit(X)


def test_criteria_are_values():
    assert stopping.below("d_align", 0.3) == stopping.below("d_align", 0.3) != stopping.above("d_align", 0.3)
    assert pickle.loads(pickle.dumps(stopping.gradient())) == stopping.gradient()
    for bad in (np.nan, "much"):
        with pytest.raises((ValueError, TypeError), match="threshold"):
            stopping.below("d_align", bad)
    with pytest.raises(TypeError, match="must be a name or a callable"):
        stopping.below(3, 0.1)
