"""What goes with what: the table of rules, losses, optimizers, targets, couplings, layers and batches, and its check.

The table is data: it decides what raises, and docs/math.md prints it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import losses, optimizers, rules
from ..losses._names import LOSSES
from ..optimizers._optimizers import OPTIMIZERS
from ..rules import COUPLINGS, EXACT_LOSSES
from ..validation import ParameterTypeError, check_choice, check_integer, listed


@dataclass(frozen=True)
class Entry:
    """One line of the compatibility table; anything it does not list raises, for the reason it gives.

    Attributes
    ----------
    rules : names of the rules.
    losses : names of the losses; empty if the rules take none.
    optimizers : names of the optimizers; empty if the rules use none.
    targets : whether targets Y other than X are allowed.
    couplings : allowed couplings.
    hidden : whether further linear layers are allowed.
    mini_batch : whether a batch size is allowed.
    reasons : pairs (dimension, why the missing choices are missing).
    """

    rules: tuple[str, ...]
    losses: tuple[str, ...]
    optimizers: tuple[str, ...]
    targets: bool
    couplings: tuple[str, ...]
    hidden: bool
    mini_batch: bool
    reasons: tuple[tuple[str, str], ...] = ()

    def reason(self, dimension: str) -> str:
        """Why a choice of `dimension` is missing."""
        return dict(self.reasons).get(dimension, "no published rule does this")


# What an estimator takes besides the names of losses and optimizers.
_AUTO = ("auto",)
_ALL_OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam")
_DETERMINISTIC = ("mse", "ordered", "nested_dropout", "sum_l2", "nonuniform_l2", "product_l2", "mixed_l2")

# Why rules with one matrix do without some things.
_ONE_MATRIX = (
    ("loss", "the rule is not the gradient of a loss"),
    ("targets", "the rule diagonalises the covariance of X; no target enters"),
    ("coupling", "the rule has one weight matrix, so there is nothing to average"),
    ("hidden", "the rule has one weight matrix"),
)
# Why the exact solves do without some things.
_EXACT = (
    ("optimizer", "its solves are exact, so no step has a rate"),
    ("loss", "only these have an exact solve for each of the two matrices here"),
    ("hidden", "the exact solves are for one encoder and one decoder"),
    ("batch_size", "an exact solve on a mini-batch fits that batch; use batch_size=None"),
)

TABLE = (
    Entry(
        rules=("gradient",),
        losses=_DETERMINISTIC,
        optimizers=_ALL_OPTIMIZERS,
        targets=True,
        couplings=COUPLINGS,
        hidden=True,
        mini_batch=True,
    ),
    Entry(
        rules=("gradient",),
        losses=("stochastic_nested_dropout",),
        optimizers=_ALL_OPTIMIZERS,
        targets=True,
        couplings=("untied",),
        hidden=False,
        mini_batch=True,
        reasons=(
            ("coupling", "its masks are drawn per sample; use nested_dropout(prior), its expectation"),
            ("hidden", "its masks are drawn per sample; use nested_dropout(prior), its expectation"),
        ),
    ),
    Entry(
        rules=("gradient",),
        losses=("vae",),
        optimizers=_ALL_OPTIMIZERS,
        targets=False,
        couplings=("untied",),
        hidden=False,
        mini_batch=True,
        reasons=(
            ("targets", "the evidence lower bound is that of X itself"),
            ("coupling", "at its optimum the encoder is not the transpose of the decoder"),
            ("hidden", "its bound is written for one encoder and one decoder"),
        ),
    ),
    Entry(
        rules=("rag",),
        losses=("mse",),
        optimizers=_ALL_OPTIMIZERS,
        targets=False,
        couplings=("untied",),
        hidden=False,
        mini_batch=True,
        reasons=(
            ("loss", "the rotation is added to the gradient of the plain squared error, which it conserves"),
            ("targets", "with Y other than X its fixed points are not the ordered directions"),
            ("coupling", "the rule rotates two matrices; started with A = B' it ends with A = B' by itself"),
            ("hidden", "the rotation acts on the one latent space between encoder and decoder"),
        ),
    ),
    Entry(
        rules=("oja", "gha", "alpha_eigengame", "mu_eigengame"),
        losses=(),
        optimizers=_ALL_OPTIMIZERS,
        targets=False,
        couplings=("untied", "tied"),
        hidden=False,
        mini_batch=True,
        reasons=_ONE_MATRIX,
    ),
    Entry(
        rules=("adaoja",),
        losses=(),
        optimizers=(),
        targets=False,
        couplings=("untied", "tied"),
        hidden=False,
        mini_batch=True,
        reasons=(("optimizer", "it tunes a rate for each component by itself"), *_ONE_MATRIX),
    ),
    Entry(
        rules=("alternating",),
        losses=tuple(name for name in EXACT_LOSSES if name != "sum_l2"),
        optimizers=(),
        targets=True,
        couplings=("untied",),
        hidden=False,
        mini_batch=False,
        reasons=(
            *_EXACT,
            ("coupling", "without a penalty exact solves with B = A' go back and forth between two points for ever"),
        ),
    ),
    Entry(
        rules=("alternating",),
        losses=("sum_l2",),
        optimizers=(),
        targets=True,
        couplings=COUPLINGS,
        hidden=False,
        mini_batch=False,
        reasons=_EXACT,
    ),
)


def _check_loss(rule: rules.Rule, loss: Any) -> tuple[losses.Loss | None, Entry]:
    """The loss object (or None) and the table entry of a rule and a loss; raises if they do not go together."""
    entries = [entry for entry in TABLE if rule.name in entry.rules]
    is_default = loss is None or (isinstance(loss, str) and loss == "auto")
    if isinstance(loss, str) and not is_default:
        LOSSES.by_name(loss, also=_AUTO)
    loss = rules.default_loss(rule) if is_default else losses.resolve(loss)
    if loss is None:
        return None, entries[0]
    for entry in entries:
        if loss.name in entry.losses:
            return loss, entry
    valid = [name for entry in entries for name in entry.losses]
    if not valid:
        raise ValueError(
            f"rule {rule.name!r} takes no loss ({entries[0].reason('loss')}), got {loss.name!r}; leave loss='auto'"
        )
    takers = [name for entry in TABLE for name in entry.rules if loss.name in entry.losses]
    if not takers:
        raise ValueError(
            f"loss {loss.name!r} is not one of the library's, and no rule takes it: prefix weights of your own are "
            "nested_dropout(probabilities), penalties of your own nonuniform_l2(lams); docs/architecture.md says how a "
            "loss is added to the library."
        )
    raise ValueError(
        f"rule {rule.name!r} does not go with loss {loss.name!r}: {entries[0].reason('loss')}. "
        f"Valid losses for {rule.name!r}: {listed(valid)}; valid rules for {loss.name!r}: {listed(takers)}"
    )


def _hidden_widths(hidden: Any, n_components: int | None) -> tuple[int, ...]:
    """`hidden` as a tuple of widths; raises unless each is an integer >= max(1, n_components)."""
    if isinstance(hidden, (str, bytes)) or not hasattr(hidden, "__iter__"):
        raise ParameterTypeError(f"hidden={hidden!r} must be a tuple of layer widths.")
    hidden = tuple(hidden)
    least = 1 if n_components is None else n_components
    for i, width in enumerate(hidden):
        if check_integer(width, f"hidden[{i}]", low=1) < least:
            raise ValueError(
                f"hidden[{i}]={width} must be at least n_components = {least}: a narrower layer would cap the rank."
            )
    return hidden


def default_optimizer(rule: Any) -> str:
    """The name that optimizer="auto" means for `rule`: what is known to reach its solution (docs/math.md).

    adam for the gradient.  Plain descent for the others: rag with anything else ends at minima of the squared error
    whose directions are wrong, since only small plain steps keep A'A - BB'; and adam's steps keep their size where the
    directions of oja, gha and the EigenGames should settle.
    """
    return "adam" if isinstance(rules.resolve(rule), rules.gradient) else "sgd"


def _checked_optimizer(rule: rules.Rule, entry: Entry, what: str, given: Any) -> optimizers.Optimizer | None:
    """The optimizer object, or None for a rule that uses none; raises if they do not go together."""
    is_default = isinstance(given, str) and given == "auto"
    if isinstance(given, str) and not is_default:
        OPTIMIZERS.by_name(given, also=_AUTO)
    optimizer = optimizers.resolve(default_optimizer(rule) if is_default else given)
    if entry.optimizers:
        return optimizer
    if not is_default:
        raise ValueError(_takes_no(entry, what, "optimizer", optimizer.name, "auto"))
    return None


def _check_no_rate(entry: Entry, what: str, learning_rate: Any, schedule: Any) -> None:
    if not (isinstance(learning_rate, str) and learning_rate == "auto"):
        raise ValueError(_takes_no(entry, what, "learning_rate", learning_rate, "auto"))
    if schedule is not None:
        raise ValueError(_takes_no(entry, what, "schedule", schedule, None))


def _takes_no(entry: Entry, what: str, name: str, given: Any, default: Any) -> str:
    return f"{what} takes no {name}, got {given!r}: {entry.reason('optimizer')}. Leave {name}={default!r}"


def _check_coupling(entry: Entry, what: str, coupling: Any, has_targets: bool) -> None:
    """Raise unless what the entry is about takes this coupling and these targets.  what : its name in messages."""
    check_choice(coupling, COUPLINGS, "coupling")
    if coupling not in entry.couplings:
        raise ValueError(
            f"{what} does not go with coupling {coupling!r}: {entry.reason('coupling')}. "
            f"Valid: {listed(entry.couplings)}"
        )
    if has_targets and not entry.targets:
        takers = [
            other.rules[0] + (f" with {other.losses[0]}" if other.losses else "") for other in TABLE if other.targets
        ]
        raise ValueError(
            f"{what} does not take targets: {entry.reason('targets')}. Drop targets, or use for example "
            + ", or ".join(dict.fromkeys(takers))
        )
    if has_targets and coupling != "untied":
        raise ValueError(
            f"coupling {coupling!r} needs targets equal to X: encoder and decoder^T must have the same shape and "
            "meaning. With targets use coupling='untied'"
        )


def _check_hidden(entry: Entry, what: str, coupling: str, hidden: tuple[int, ...]) -> None:
    if hidden and not entry.hidden:
        raise ValueError(
            f"{what} does not take hidden layers: {entry.reason('hidden')}. Use hidden=(), or rule 'gradient' with "
            f"one of {listed(_DETERMINISTIC)}"
        )
    if hidden and coupling != "untied":
        raise ValueError(f"hidden layers need coupling='untied', got {coupling!r}")


def _check_batch_size(entry: Entry, what: str, batch_size: Any) -> None:
    check_integer(batch_size, "batch_size", low=1, or_none="full batch")
    if not entry.mini_batch:
        raise ValueError(f"{what} does not take a batch size: {entry.reason('batch_size')}")


def check(
    rule: Any,
    loss: Any = "auto",
    optimizer: Any = "auto",
    has_targets: bool = False,
    coupling: str = "untied",
    hidden: Any = (),
    batch_size: Any = None,
    *,
    learning_rate: Any = "auto",
    schedule: Any = None,
    n_components: int | None = None,
) -> tuple[rules.Rule, losses.Loss | None, optimizers.Optimizer | None]:
    """Raise unless rule, loss, optimizer, rate, targets, coupling, hidden layers and batch size go together.

    Parameters
    ----------
    rule : Rule or str
    loss : Loss, str or None
        "auto" and None take the default of the rule.
    optimizer : Optimizer or str
        "auto" takes `default_optimizer`; rules that use none take nothing else.
    has_targets : bool
        Whether targets Y other than X are given.
    coupling : {"untied", "synchronised", "tied"}
        Rules with one weight matrix accept the default "untied" and "tied", which mean the same for them.
    hidden : sequence of int
        Widths of further linear layers.
    batch_size : int or None
        None is full batch.
    learning_rate, schedule
        As of `LinearAutoencoder`: rules without an optimizer take the defaults only.
    n_components : int, optional
        If given, hidden widths must not be smaller, and the loss must fit this latent width.

    Returns
    -------
    (Rule, Loss or None, Optimizer or None)
        The resolved objects.  The optimizer is None for rules that use none.

    Raises
    ------
    ValueError
        With the reason and the valid choices.
    TypeError
        If an argument is of no usable type.
    """
    rule = rules.resolve(rule)
    loss, entry = _check_loss(rule, loss)
    what = f"rule {rule.name!r}" + (f" with loss {loss.name!r}" if loss is not None else "")

    optimizer = _checked_optimizer(rule, entry, what, optimizer)
    if optimizer is None:
        _check_no_rate(entry, what, learning_rate, schedule)
    _check_coupling(entry, what, coupling, has_targets)
    hidden = _hidden_widths(hidden, n_components)
    _check_hidden(entry, what, coupling, hidden)
    sequential = isinstance(rule, rules.gradient) and rule.sequential
    if sequential and (coupling != "untied" or hidden or loss is None or not loss.in_family):
        raise ValueError(
            "gradient(sequential=True) is Kunin's untied update: it needs coupling='untied', hidden=() and one of "
            f"the losses {listed(_DETERMINISTIC)}"
        )
    if batch_size is not None:
        _check_batch_size(entry, what, batch_size)
    if n_components is not None and loss is not None and loss.in_family:
        # Lengths of lams and priors; dtype-dependent underflow is checked where the dtype is known.
        loss.prefix(n_components)
        loss.row_penalty(n_components)
    return rule, loss, optimizer


def markdown_table() -> str:
    """The compatibility table as GitHub-flavoured Markdown, ending in a newline."""
    yes = {True: "yes", False: "no"}
    lines = [
        "| rule | loss | optimizer | Y other than X | coupling | hidden layers | mini-batch |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in TABLE:
        couplings = ", ".join(entry.couplings)
        if entry.targets and len(entry.couplings) > 1:
            couplings += " (the last two with Y = X)"
        cells = (
            ", ".join(entry.rules),
            ", ".join(entry.losses) or "none",
            ", ".join(entry.optimizers) or "none",
            yes[entry.targets],
            couplings,
            "yes (untied)" if entry.hidden else "no",
            yes[entry.mini_batch],
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines.append("Any other pair raises `ValueError`. Why:")
    lines.append("")
    for entry in TABLE:
        who = ", ".join(entry.rules) + (f" with {', '.join(entry.losses)}" if len(entry.losses) == 1 else "")
        lines.extend(f"- {who}, {dimension}: {why}." for dimension, why in entry.reasons)
    return "\n".join(lines) + "\n"
