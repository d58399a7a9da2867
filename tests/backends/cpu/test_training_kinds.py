"""Which kinds of training have a compiled loop of their own."""

from lae_fast import losses
from lae_fast.backends import formulas
from lae_fast.backends.cpu.training import state
from lae_fast.data.sources import as_source
from lae_fast.training import problem
from lae_fast.training.engine import make_spec
from tests.oracle.loop_cases import data, make_plan


def test_the_loop_is_compiled_for_what_most_people_train_and_once_for_the_rest():
    described = problem.from_rows(as_source(data()[0]), None, None, "mean")
    plain = make_spec(described, make_plan(loss=losses.ordered()), True, True)
    fixed = state.compiled_for(plain)
    assert {"rule", "product", "same"} <= set(fixed) < set(plain._fields)
    assert state.compiled_for(plain._replace(product=formulas.MOMENTS, optimizer=formulas.SGD, tolerance=0.1)) == fixed
    other = {
        "rule": formulas.RAG, "coupling": formulas.TIED, "sequential": True, "same": False, "has_decoder": False,
        "product": formulas.GIVEN, "product_penalty": 0.1,
    }  # fmt: skip
    assert set(other) == set(fixed)
    for field, value in other.items():
        assert state.compiled_for(plain._replace(**{field: value})) == ()
