"""The command ``lae-fast train``: options as typed, training, the file it writes."""

import inspect
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lae_fast.cli import options as cli_options
from lae_fast.cli.options import option
from lae_fast.cli.output import (
    TABLE_HEAD,
    Outputs,
    check_outputs,
    counted,
    input_fields,
    interruptions,
    origin,
    print_fields,
    print_json,
)
from lae_fast.cli.pictures import (
    Image,
    Plots,
    check_kinds,
    draw,
    needs_rows,
    parse_image,
    parse_plots,
    save,
    some_rows,
)
from lae_fast.cli.words import translated

if TYPE_CHECKING:
    import numpy as np

SCHEDULES = ("constant", "cosine", "exponential")
_PICTURES = ("history", "scores", "loadings", "images")
# Parameters of an optimizer that have options of their own.
_OF_RATE = ("learning_rate", "schedule")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(cli_options.Common):
    """What ``lae-fast train`` was asked for, as it was typed."""

    components: Annotated[int, option("-k", "--components", min=1, help="Latent width.")]
    output: Annotated[
        Path | None, option("-o", "--output", help="Write the model to this .npz; an existing one is replaced.")
    ] = None
    loss: Annotated[str, option(help="Name, or with numbers: ordered, mse, sum_l2:0.1.")] = "auto"
    rule: Annotated[str, option(help="gradient, rag, oja, gha, adaoja, ..., alternating.")] = "gradient"
    optimizer: Annotated[
        str, option(help="auto, sgd, momentum, nesterov or adam; with numbers: momentum:0.8, adam:0.9,0.99.")
    ] = "auto"
    learning_rate: Annotated[str, option("--learning-rate", help="A number, or auto.")] = "auto"
    schedule: Annotated[str | None, option(help="constant, cosine or exponential.")] = None
    max_iter: Annotated[int, option("--max-iter", min=1, help="Most iterations.")] = 10_000
    tol: Annotated[float, option(min=0.0, help="Stop at this relative gradient.")] = 1e-6
    batch_size: Annotated[int | None, option("--batch-size", min=1, help="Rows of a mini-batch.")] = None
    scale: Annotated[str, option(help="mean or sum of the squared errors.")] = "mean"
    coupling: Annotated[str, option(help="untied, synchronised or tied.")] = "untied"
    hidden: Annotated[str, option(help="Widths of further layers, such as 200,50.")] = ""
    seed: Annotated[int, option(min=0, help="Of the random start.")] = 0
    init_scale: Annotated[float, option("--init-scale", min=0.0, help="Deviation of the random start.")] = 1e-4
    center: Annotated[bool, option("--center/--no-center", help="Whether the column means are taken off.")] = True
    reference: Annotated[
        Path | None, option(help="True directions: the .npz of lae-fast pca, or a .npy with one in each column.")
    ] = None
    record: Annotated[str, option(help="What the file's history has besides, such as d_align,transpose_gap.")] = ""
    record_every: Annotated[str, option("--record-every", help="Iterations between two records, or log.")] = "100"
    regime: Annotated[str, option(help="auto, moments or rows.")] = "auto"
    plot: Plots = None
    image: Image = None
    backend: cli_options.Backend = cli_options.BackendName.auto


def parse_loss(text: str) -> Any:
    """``--loss``: a name, or one with numbers such as ``sum_l2:0.1`` or ``nonuniform_l2:0.1,0.2``.

    Parentheses do too, ``sum_l2(0.1)``, but a shell wants them quoted.

    >>> parse_loss("ordered"), parse_loss("sum_l2:0.5")
    ('ordered', sum_l2(lam=0.5))
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?::|\((?=.*\)\s*$))(.*?)\)?\s*", text)
    if match is None:
        return text
    from lae_fast import losses

    name, inside = match[1], match[2].strip()
    if name not in losses.names():
        raise ValueError(f"--loss {text!r}: unknown loss {name!r}; valid: {', '.join(losses.names())}")
    numbers = _numbers("--loss", text, inside, "sum_l2:0.1")
    try:
        if name == "nonuniform_l2":
            return losses.nonuniform_l2(numbers)
        if name in ("nested_dropout", "stochastic_nested_dropout"):
            prior = losses.geometric_prior(*numbers) if len(numbers) < 2 else numbers
            return getattr(losses, name)(prior)
        return getattr(losses, name)(*numbers)
    except TypeError:
        wanted = ", ".join(inspect.signature(getattr(losses, name)).parameters) or "no number"
        raise ValueError(f"--loss {text!r}: {name} takes {wanted}, not {counted(len(numbers), 'number')}") from None


def parse_optimizer(text: str) -> Any:
    """``--optimizer``: a name, or one with numbers such as ``momentum:0.8`` or ``adam:0.9,0.999``.

    >>> parse_optimizer("adam"), parse_optimizer("momentum:0.8").mu
    ('adam', 0.8)
    """
    name, colon, inside = text.partition(":")
    if not colon:
        return text
    from lae_fast import optimizers

    if name not in optimizers.names():
        raise ValueError(f"--optimizer {text!r}: unknown optimizer {name!r}; valid: {', '.join(optimizers.names())}")
    numbers = _numbers("--optimizer", text, inside, "momentum:0.8")
    wanted = [field for field in inspect.signature(getattr(optimizers, name)).parameters if field not in _OF_RATE]
    if len(numbers) > len(wanted):
        takes = ", ".join(wanted) or "no number"
        raise ValueError(f"--optimizer {text!r}: {name} takes {takes}, not {counted(len(numbers), 'number')}")
    return getattr(optimizers, name)(**dict(zip(wanted, numbers)))


def _numbers(flag: str, text: str, inside: str, such_as: str) -> list[float]:
    """Numbers with commas between them."""
    try:
        return [float(part) for part in inside.split(",")] if inside else []
    except ValueError:
        raise ValueError(f"{flag} {text!r}: write numbers behind the name, such as {such_as}") from None


def read_reference(path: Path, components: int) -> "np.ndarray":
    """``--reference``: (q, p) true directions in columns, the first p of a file.

    Raises
    ------
    FileNotFoundError, DataFileError
        There is no such file; it is cut, or holds no directions.
    """
    import numpy as np

    from lae_fast.data.opened_file import UNREADABLE
    from lae_fast.errors import DataFileError

    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            with found as stored:
                found = stored["components"].T
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise DataFileError(
            f"--reference {path} is truncated, or neither a .npy nor the .npz of lae-fast pca ({error})."
        ) from error
    return found[:, :components] if found.ndim == 2 else found


def _model(options: TrainOptions) -> Any:
    """The model that the options describe.

    Raises
    ------
    ValueError
        An option is not what it takes.
    """
    import lae_fast

    loss, optimizer = parse_loss(options.loss), parse_optimizer(options.optimizer)
    rate: float | str = "auto"
    if options.learning_rate != "auto":
        try:
            rate = float(options.learning_rate)
        except ValueError:
            raise ValueError(f"--learning-rate takes a number or auto, got {options.learning_rate!r}") from None
    try:
        hidden = tuple(int(width) for width in options.hidden.split(",") if width.strip())
    except ValueError:
        raise ValueError(f"--hidden takes widths such as 200,50; got {options.hidden!r}") from None
    if options.schedule not in (None, *SCHEDULES):
        raise ValueError(f"--schedule takes {', '.join(SCHEDULES)}; got {options.schedule!r}")
    if options.record_every != "log" and not options.record_every.isdigit():
        raise ValueError(f"--record-every takes a number of iterations or log, got {options.record_every!r}")
    return lae_fast.LinearAutoencoder(
        options.components,
        loss=loss,
        rule=options.rule,
        optimizer=optimizer,
        learning_rate=rate,
        schedule=options.schedule,
        max_iter=options.max_iter,
        tol=options.tol,
        batch_size=options.batch_size,
        scale=options.scale,
        coupling=options.coupling,
        hidden=hidden,
        random_state=options.seed,
        init_scale=options.init_scale,
        center=options.center,
        record=tuple(name.strip() for name in options.record.split(",") if name.strip()),
        record_every="log" if options.record_every == "log" else int(options.record_every),
        regime=options.regime,
        backend=options.backend.value,
        progress=not options.quiet,
    )


def run_train(options: TrainOptions) -> None:
    """Train, save, then print."""
    import lae_fast
    from lae_fast.data import files, row_labels, sources

    model = _model(options)
    reference = None if options.reference is None else read_reference(options.reference, options.components)
    plots = parse_plots(options.plot, "history", _PICTURES)
    paths, kinds = [path for _, path in plots], [kind for kind, _ in plots]
    check_kinds(kinds, options.image, False)
    check_outputs(options.input, options.output, ".npz", paths)
    if options.threads is not None:
        lae_fast.set_num_threads(options.threads)
    began = time.perf_counter()
    outputs, rows = Outputs(options.output, *paths), None
    with interruptions(lambda: _left_behind(model, options, outputs)):
        with files.open_input(options.source()) as source:
            if not options.silent:
                print_fields(input_fields(source))
            try:
                model.fit(source, reference=reference)
            except KeyboardInterrupt:
                # What was reached is worth keeping; the exit code still says that it was interrupted.
                if options.output is not None and hasattr(model, "encoder_"):
                    _save(options.output, model, options, time.perf_counter() - began)
                raise
            seconds = time.perf_counter() - began
            if needs_rows(kinds):
                labels = row_labels.read(options.source())
                mean, weights = model._projection()
                rows = some_rows(sources.as_source(source, "INPUT"), mean, weights, labels)
        if options.output is not None:
            _save(options.output, model, options, seconds)
        for kind, path in plots:
            save(draw(kind, model, rows, parse_image(options.image), options.input), path)
        if options.json:
            scalars = {name: values for name, values in model.history_.items() if values.ndim == 1}
            print_json({"explained_variance": model.explained_variance_, "history": scalars,
                        **_meta(model, options, seconds)})  # fmt: skip
        elif not options.quiet:
            _print_result(model, options, paths, seconds)


def _left_behind(model: Any, options: TrainOptions, outputs: Outputs) -> str:
    """What an interrupted run leaves."""
    if not hasattr(model, "encoder_"):
        return f"{outputs}: training had not begun"
    reached = "converged" if model.converged_ else "not converged"
    reached = f"after {model.n_iter_} of at most {options.max_iter} iterations, {reached}"
    if options.output is None:
        return f"nothing was written ({reached}); with -o FILE.npz the model is kept as far as it was trained"
    if outputs.written(options.output):
        return f"{outputs} with the model as it was {reached}"
    return f"{outputs} ({reached})"


def _save(path: Path, model: Any, options: TrainOptions, seconds: float) -> None:
    """Write the model; every entry is readable with ``np.load(path, allow_pickle=False)``."""
    model._save(path, _meta(model, options, seconds))


def _meta(model: Any, options: TrainOptions, seconds: float) -> dict[str, Any]:
    """How the model was found."""
    return {
        **origin(options),
        "n_iter": int(model.n_iter_),
        "converged": bool(model.converged_),
        "converged_reason": str(model.converged_reason_),
        "excess_loss": None if math.isnan(model.excess_loss_) else float(model.excess_loss_),
        "regime": model.regime_,
        "seconds": seconds,
        "backend": str(model.backend_),
    }


def _print_result(model: Any, options: TrainOptions, plots: Sequence[Path], seconds: float) -> None:
    import lae_fast

    history, flags = model.history_, cli_options.flags(TrainOptions)
    count = len(model.explained_variance_)
    shown = ", ".join(f"{value:.6g}" for value in model.explained_variance_[:TABLE_HEAD])
    print_fields(
        {
            "loss": f"{history['loss'][0]:.6g} at the start, {history['loss'][-1]:.6g} when last recorded",
            "variances" if options.center else "mean squares": shown + (" ..." if count > TABLE_HEAD else ""),
            "iterations": f"{model.n_iter_}, {'converged' if model.converged_ else 'not converged'}",
            "end": translated(model.converged_reason_, flags),
            "excess loss": "not known" if math.isnan(model.excess_loss_) else f"{model.excess_loss_:.2g}",
            "regime": f"{model.regime_} ({translated(model.regime_reason_, flags)})",
            "time": f"{seconds:.3f} s",
            "backend": f"{model.backend_}, {counted(lae_fast.get_num_threads(), 'thread')}",
            "wrote": ", ".join(str(path) for path in (options.output, *plots) if path is not None)
            or "nothing; keep the model with -o FILE.npz",
        }
    )
