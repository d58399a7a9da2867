"""Which rule goes with which loss, optimizer and coupling: the compatibility table and its refusals."""

import itertools
import re

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import losses, optimizers, rules
from lae_fast.training import compatibility
from tests.oracle.loss_cases import CASES, PRIOR, P
from tests.oracle.rule_cases import ENCODER_ONLY

OBJECTS = {**{name: value[0] for name, value in CASES.items()}, "vae": losses.vae()}
OBJECTS["stochastic_nested_dropout"] = losses.stochastic_nested_dropout(PRIOR)


def allowed(rule, loss, optimizer, has_targets, coupling, hidden, batch_size):
    """The rules of the table, written a second time as plain conditions."""
    family = loss in CASES
    if rule in ("adaoja", "alternating") and optimizer != "auto":
        return False
    if rule in ENCODER_ONLY:
        return loss is None and not has_targets and coupling != "synchronised" and not hidden
    if rule == "adaoja":
        return loss is None and not has_targets and coupling != "synchronised" and not hidden
    if rule == "rag":
        return loss in (None, "mse") and not has_targets and coupling == "untied" and not hidden
    if rule == "alternating":
        good = loss in (None, "mse", "ordered", "nested_dropout", "sum_l2")
        coupled = coupling == "untied" or (loss == "sum_l2" and not has_targets)
        return good and coupled and not hidden and batch_size is None
    if coupling != "untied" and (has_targets or hidden):
        return False
    if not family and loss is not None and (coupling != "untied" or hidden):
        return False
    return not (loss == "vae" and has_targets)


def test_every_combination():
    """8 rules x 10 losses x (auto and 4 optimizers) x targets x 3 couplings x hidden x batch."""
    seen = {True: 0, False: 0}
    for case in itertools.product(
        rules.names(),
        (None, *OBJECTS),
        ("auto", *optimizers.names()),
        (False, True),
        rules.COUPLINGS,
        ((), (4,)),
        (None, 32),
    ):
        rule, loss, *rest = case
        expected = allowed(*case)
        seen[expected] += 1
        try:
            compatibility.check(rule, OBJECTS.get(loss), *rest, n_components=P)
            got = True
        except ValueError as error:
            got = False
            assert len(str(error)) > 40, "a refusal must explain itself"
        assert got == expected, case
    assert min(seen.values()) > 100


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"rule": "newton"}, r"rule='newton' is unknown; choose one of 'gradient', 'rag'"),
        ({"rule": "gradient", "loss": "l1"}, "loss='l1' is unknown"),
        ({"rule": "gradient", "optimizer": "lbfgs"}, "optimizer='lbfgs' is unknown; choose one of 'auto', 'sgd'"),
        ({"rule": "rag", "loss": "ordered"}, r"conserves.*Valid losses for 'rag': 'mse'.*'gradient', 'alternating'"),
        ({"rule": "gha", "loss": "mse"}, "takes no loss"),
        (
            {"rule": "gradient", "loss": type("halves", (losses.mse,), {"name": "halves"})()},
            r"loss 'halves' is not one of the library's.*docs/architecture\.md",
        ),
        ({"rule": "alternating", "loss": "vae"}, r"Valid losses for 'alternating': 'mse', 'ordered'"),
        ({"rule": "oja", "has_targets": True}, r"no target enters.*gradient with mse"),
        (
            {"rule": "gradient", "coupling": "shared"},
            "coupling='shared' is unknown; choose one of 'untied', 'synchronised', 'tied'",
        ),
        ({"rule": "rag", "coupling": "tied"}, r"by itself.*Valid: 'untied'"),
        ({"rule": "gradient", "coupling": "tied", "has_targets": True}, "same shape"),
        ({"rule": "gha", "hidden": (5,)}, r"hidden=\(\), or rule 'gradient'"),
        ({"rule": "gradient", "hidden": (2,), "n_components": 3}, r"hidden\[0\]=2 must be at least n_components = 3"),
        ({"rule": "gradient", "hidden": (5,), "coupling": "tied"}, "hidden layers need coupling='untied'"),
        ({"rule": "alternating", "batch_size": 8}, "batch_size=None"),
        ({"rule": "gradient", "batch_size": 0}, "batch_size=0 must be an integer >= 1"),
        ({"rule": rules.gradient(sequential=True), "coupling": "tied"}, "Kunin's untied"),
        ({"rule": "gradient", "loss": losses.nonuniform_l2([1, 2]), "n_components": 3}, "lams has 2 entries"),
        ({"rule": "gradient", "loss": losses.nested_dropout(PRIOR), "n_components": 4}, "prior has 3 entries"),
    ],
)
def test_refusals_say_why_and_what_instead(arguments, match):
    with pytest.raises(ValueError, match=match):
        compatibility.check(**arguments)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"rule": 3}, "rule=3 must be"),
        ({"rule": rules.rag}, r"write rules.rag\(...\)"),
        ({"rule": rules.Rule()}, "base class"),
        ({"rule": "gradient", "optimizer": 1.0}, "optimizer=1.0 must be"),
        ({"rule": "gradient", "loss": 1.0}, "loss=1.0 must be"),
        ({"rule": "gradient", "hidden": 5}, "hidden=5 must be a tuple"),
        ({"rule": "gradient", "hidden": (5.0,)}, r"hidden\[0\]=.* must be an integer"),
        ({"rule": "gradient", "batch_size": 2.5}, "batch_size=2.5 must be an integer"),
    ],
)
def test_wrong_types(arguments, match):
    with pytest.raises(TypeError, match=match):
        compatibility.check(**arguments)
    with pytest.raises(TypeError, match="sequential"):
        rules.gradient(sequential=1)


@pytest.mark.parametrize("rule", [name for name in rules.names() if not rules.from_name(name).iterative])
@pytest.mark.parametrize("given", [{"optimizer": "sgd"}, {"optimizer": optimizers.adam()}, {"learning_rate": 0.1},
                                   {"schedule": "cosine"}], ids=str)  # fmt: skip
def test_a_rule_without_steps_takes_nothing_of_them(rule, given):
    """They were ignored in silence: the rate of such a run was not the one asked for."""
    (name,) = given
    model = lf.LinearAutoencoder(1, rule=rule, **given)  # scikit-learn's contract: nothing is refused before fit
    with pytest.raises(ValueError, match=f"rule '{rule}'.* takes no {name}, got .* Leave {name}="):
        model.fit(np.eye(3))
    with pytest.raises(ValueError, match=f"takes no {name}"):
        model.partial_fit(np.eye(3))


def test_check_returns_what_it_resolved():
    rule, loss, optimizer = compatibility.check("gradient", "auto", "nesterov")
    assert (rule, loss, optimizer) == (rules.gradient(), losses.ordered(), optimizers.nesterov())
    assert compatibility.check("rag")[1] == losses.mse()
    assert compatibility.check("gha")[1] is None
    assert compatibility.check("alternating")[2] is None


def test_default_losses():
    expected = {"gradient": losses.ordered(), "alternating": losses.ordered(), "rag": losses.mse()}
    for name in rules.names():
        assert rules.default_loss(name) == expected.get(name)


def test_every_rule_and_loss_is_in_the_table():
    assert {name for entry in compatibility.TABLE for name in entry.rules} == set(rules.names())
    assert {name for entry in compatibility.TABLE for name in entry.losses} == set(losses.names())


def test_markdown_table_is_complete_and_well_formed():
    text = compatibility.markdown_table()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {8}
    assert len(table) == 2 + len(compatibility.TABLE)
    for name in (*rules.names(), *losses.names(), *optimizers.names(), *rules.COUPLINGS):
        assert re.search(rf"\b{name}\b", text), name
    for entry in compatibility.TABLE:
        for _, why in entry.reasons:
            assert why in text
