"""The command ``lae-fast pca``: options as typed, the fit, the file it writes."""

import contextlib
import enum
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lae_fast.cli import options as cli_options
from lae_fast.cli.options import option
from lae_fast.cli.output import (
    TABLE_HEAD,
    Outputs,
    check_outputs,
    console,
    counted,
    input_fields,
    interruptions,
    origin,
    print_fields,
    print_json,
    print_line,
)
from lae_fast.cli.pictures import (
    Image,
    Plots,
    Rows,
    check_kinds,
    draw,
    needs_rows,
    parse_image,
    parse_plots,
    save,
    some_rows,
)
from lae_fast.cli.words import translated
from lae_fast.sizes import format_bytes

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

# A longer table is cut in the middle.
_TABLE_TAIL = 5
# Columns that are named with each component.
_NAMES_IN_TABLE = 3


_PICTURES = ("scree", "scores", "biplot", "loadings", "images", "circle")


class Solver(enum.StrEnum):
    auto = enum.auto()
    gram = enum.auto()
    krylov = enum.auto()


class Missing(enum.StrEnum):
    error = enum.auto()
    em = enum.auto()


@dataclass(frozen=True, kw_only=True)
class PcaOptions(cli_options.Common):
    """What ``lae-fast pca`` was asked for, as it was typed."""

    components: Annotated[
        str,
        option(
            "-k",
            "--components",
            help="How many: a count, a fraction of the variance (0.95), parallel, gavish-donoho or mle.",
        ),
    ]
    output: Annotated[
        Path | None, option("-o", "--output", help="Write the result to this .npz; an existing one is replaced.")
    ] = None
    plot: Plots = None
    image: Image = None
    solver: Annotated[Solver, option(help="Force a route; auto takes the cheaper one.")] = Solver.auto
    tol: Annotated[float, option(min=0.0, help="Stop at this relative residual; 0 is as far as the dtype goes.")] = 0.0
    standardize: Annotated[bool, option("--standardize", help="Scale columns to unit variance.")] = False
    missing: Annotated[
        Missing, option(help="Refuse NaN, or take it as missing: em fits the entries that are there (slower).")
    ] = Missing.error
    max_memory: cli_options.MaxMemory = None
    backend: cli_options.Backend = cli_options.BackendName.auto
    resume: Annotated[
        bool,
        option(
            "--resume",
            help="Keep a checkpoint beside -o, and go on from the one that a killed run has left.",
        ),
    ] = False
    checkpoint: Annotated[
        Path | None, option("--checkpoint", help="As --resume, with the checkpoint in this file.")
    ] = None
    checkpoint_every: Annotated[
        float | None,
        option(
            "--checkpoint-every",
            min=0.0,
            show_default="30",
            help="Seconds between two checkpoints; 0 is as often as can be.",
        ),
    ] = None


def parse_components(text: str) -> int | float | str:
    """``-k``: a count, a fraction of the variance strictly between 0 and 1, or the name of a choice.

    >>> parse_components("10"), parse_components("0.95"), parse_components("mle")
    (10, 0.95, 'mle')
    """
    with contextlib.suppress(ValueError):
        count = int(text)
        if count >= 1:
            return count
    with contextlib.suppress(ValueError):
        fraction = float(text)
        if 0.0 < fraction < 1.0:
            return fraction
    from lae_fast.selection import NAMES

    if text in NAMES:
        return text
    raise ValueError(
        f"-k takes a count from 1 up, a fraction of the variance such as 0.95, or one of {', '.join(NAMES)}; "
        f"got {text!r}"
    )


def run_pca(options: PcaOptions) -> None:
    """Fit, save, draw, then print: in this order, so that a closed pipe cannot lose the result."""
    components = parse_components(options.components)
    from lae_fast.validation import memory_bytes

    max_memory = memory_bytes(options.max_memory)
    plots = parse_plots(options.plot, "scree", _PICTURES)
    paths = [path for _, path in plots]
    kinds = [kind for kind, _ in plots]
    check_kinds(kinds, options.image, options.standardize)
    check_outputs(options.input, options.output, ".npz", paths)
    checkpoint, outputs = _checkpoint(options, paths), Outputs(options.output, *paths)
    with interruptions(lambda: _left_behind(options, checkpoint, outputs)):
        pca, rows, facts = _fit(components, max_memory, options, checkpoint, needs_rows(kinds))
        if options.output is not None:
            _save(options.output, pca, options, facts)
        for kind, path in plots:
            save(draw(kind, pca, rows, parse_image(options.image), options.input), path)
        if checkpoint is not None:
            checkpoint.remove()  # not before the result is safe
            facts["resumed"] = checkpoint.resumed
        if options.json:
            print_json({name.rstrip("_"): getattr(pca, name) for name in _PRINTED} | _meta(pca, options, facts))
        elif not options.quiet:
            _print_result(pca, options, paths, facts)


def _left_behind(options: PcaOptions, checkpoint: Any, outputs: Outputs) -> str:
    """What an interrupted run leaves, and how to go on."""
    if options.output is not None and outputs.written(options.output):
        return str(outputs)
    if checkpoint is None:
        advice = "keep a checkpoint with --resume" if options.output else "name a file with -o, and keep a checkpoint"
        return f"{outputs}, and the next run starts anew ({advice})"
    if not checkpoint.path.exists():
        return f"{outputs}, and there was no state to keep in {checkpoint.path} yet: the next run starts anew"
    what = f", {checkpoint.at} is done" if checkpoint.at else ""
    return f"the state is kept in {checkpoint.path}{what}; the same command goes on from there ({outputs})"


def _checkpoint(options: PcaOptions, plots: Sequence[Path]) -> Any:
    """What --resume and --checkpoint ask for, or None."""
    if options.checkpoint is None and not options.resume:
        if options.checkpoint_every is not None:
            raise ValueError(
                f"--checkpoint-every {options.checkpoint_every:g} needs a checkpoint: add --resume or --checkpoint FILE"
            )
        return None
    from lae_fast.data.checkpoint import Checkpoint

    path = options.checkpoint
    if path is None:
        if options.output is None:
            raise ValueError(
                "--resume keeps its checkpoint beside the output: name it with -o, or use --checkpoint FILE"
            )
        path = options.output.with_name(options.output.name + ".checkpoint")
    elif path.resolve() in {Path(name).resolve() for name in (options.input, options.output, *plots) if name}:
        raise ValueError(f"--checkpoint {path} is the input or an output: name another file")
    checkpoint = Checkpoint(path, 30.0 if options.checkpoint_every is None else options.checkpoint_every)
    if not options.quiet:
        checkpoint.notify = lambda text: print_line("resumed", text, "green")
    return checkpoint


def _fit(
    components: int | float | str, max_memory: int | None, options: PcaOptions, checkpoint: Any, drawn: bool
) -> tuple[Any, Rows | None, dict[str, Any]]:
    """The fitted PCA, rows for pictures where they are to be drawn, and facts about the run for the file."""
    import lae_fast
    from lae_fast.data import files, row_labels, sources

    began = time.perf_counter()
    with files.open_input(options.source(), max_memory) as source:
        read = time.perf_counter()
        if not options.silent:
            print_fields(input_fields(source))
        if options.threads is not None:
            lae_fast.set_num_threads(options.threads)
        pca = lae_fast.PCA(
            components,
            svd_solver=options.solver.value,
            tol=options.tol,
            standardize=options.standardize,
            missing=options.missing.value,
            max_memory=max_memory,
            backend=options.backend.value,
            progress=not options.quiet,
        )
        pca.fit(source, checkpoint=checkpoint)
        seconds, rows = time.perf_counter() - began, None
        if drawn:
            labels = row_labels.read(options.source())
            rows = some_rows(pca._as_read(sources.as_source(source, "INPUT")), *pca._projection(), labels)
        return (
            pca,
            rows,
            {
                "seconds": seconds,
                "seconds_reading": read - began,
                "peak_memory_bytes": _peak_memory(),
                "shape": list(source.data.shape),
                "dtype": source.dtype,
            },
        )


def _save(path: Path, pca: Any, options: PcaOptions, facts: Mapping[str, Any]) -> None:
    """Write the result; every entry is readable with ``np.load(path, allow_pickle=False)``."""
    pca._save(path, _meta(pca, options, facts))


# What --json has of the fitted attributes: all but those that are as long as rows are.
_PRINTED = ("explained_variance_", "explained_variance_ratio_", "singular_values_", "residuals_", "noise_variance_")


def _meta(pca: Any, options: PcaOptions, facts: Mapping[str, Any]) -> dict[str, Any]:
    """How the result was found."""
    import numpy as np

    return {
        **origin(options),
        "solver": str(pca.solver_),
        "route_reason": str(pca.route_reason_),
        "n_passes": int(pca.n_passes_),
        "workspace_bytes": int(pca.workspace_bytes_),
        "backend": str(pca.backend_),
        "converged": bool(np.all(pca.converged_)),
        "choice": None if not hasattr(pca, "choice_") else pca.choice_.method,
        **facts,
    }


def _print_result(pca: Any, options: PcaOptions, plots: Sequence[Path], facts: Mapping[str, Any]) -> None:
    import numpy as np

    import lae_fast

    console().print(_result_table(pca))
    fields = {
        "route": f"{pca.solver_}: {translated(pca.route_reason_, cli_options.flags(PcaOptions))}",
        "passes": f"{pca.n_passes_} over the data",
        "time": f"{facts['seconds']:.3f} s, of it {facts['seconds_reading']:.3f} s to open the input",
        "memory": f"workspace {format_bytes(pca.workspace_bytes_)}",
        "backend": f"{pca.backend_}, {counted(lae_fast.get_num_threads(), 'thread')}",
        "wrote": ", ".join(str(path) for path in (options.output, *plots) if path is not None)
        or "nothing; keep the result with -o FILE.npz",
    }
    if facts.get("resumed"):
        fields["passes"] += ", resumed from a checkpoint"
    if facts["peak_memory_bytes"] is not None:
        fields["memory"] += f", peak of the process {format_bytes(facts['peak_memory_bytes'])}"
    converged = np.atleast_1d(pca.converged_)
    if not converged.all():
        fields["route"] += f" ({np.count_nonzero(~converged)} of {len(converged)} did not reach the tolerance)"
    print_fields(fields)


def _result_table(pca: Any) -> "Table":
    import numpy as np
    from rich.table import Table

    table = Table("component", "variance", "ratio", "cumulative", "residual")
    for column in table.columns:
        column.justify, column.no_wrap = "right", True
    names = getattr(pca, "feature_names_in_", None)
    if names is not None:
        table.add_column("largest loadings", overflow="fold")
    cumulative = np.cumsum(pca.explained_variance_ratio_, dtype=np.float64)
    count = len(cumulative)
    cut = count > TABLE_HEAD + _TABLE_TAIL
    for i in range(count):
        if cut and TABLE_HEAD <= i < count - _TABLE_TAIL:
            if i == TABLE_HEAD:
                table.add_row(*["..."] * len(table.columns))
            continue
        table.add_row(
            str(i + 1),
            f"{pca.explained_variance_[i]:#.6g}",
            f"{pca.explained_variance_ratio_[i]:.4%}",
            f"{cumulative[i]:.4%}",
            f"{pca.residuals_[i]:.1e}",
            *([] if names is None else [_largest(pca.components_[i], names)]),
        )
    return table


def _largest(component: "np.ndarray", names: "np.ndarray") -> str:
    """The columns that weigh most in a component, with their weights."""
    places = abs(component).argsort()[::-1][:_NAMES_IN_TABLE]
    return ", ".join(f"{names[place]} {component[place]:+.2f}" for place in places)


def _peak_memory() -> int | None:
    """Largest resident size of this process so far, in bytes; None where the system does not tell."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM"):  # on Linux ru_maxrss begins with what the process held that started this one
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
