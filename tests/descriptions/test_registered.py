"""Every loss, rule and optimizer that is written is registered under its name, and public."""

import pytest

from lae_fast import losses, optimizers, rules


def described(base):
    """The package's own classes under `base`; tests make some too."""
    for cls in base.__subclasses__():
        if cls.__module__.startswith("lae_fast."):
            yield cls
        yield from described(cls)


@pytest.mark.parametrize(
    ("home", "base"),
    [(losses, losses.Loss), (rules, rules.Rule), (optimizers, optimizers.Optimizer)],
    ids=["losses", "rules", "optimizers"],
)
def test_every_description_is_registered_and_public(home, base):
    classes = list(described(base))
    assert sorted(cls.name for cls in classes) == sorted(home.names())
    assert all(cls.__name__ == cls.name and cls.name in home.__all__ for cls in classes)
