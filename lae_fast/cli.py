"""The command line ``lae-fast``. An edge: it may import everything, and imports it when a command runs.

typer and rich come with the extra ``cli``. Results go to stdout, progress, warnings and errors to stderr. Exit codes:
0 done, 1 the extra is missing, 2 bad input or usage (one line says what), 130 interrupted.
"""

import contextlib
import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lae_fast import __version__
from lae_fast.cli_output import (
    FORMAT_VERSION,
    TABLE_HEAD,
    check_outputs,
    console,
    counted,
    describe,
    format_bytes,
    origin,
    print_fields,
    print_line,
)
from lae_fast.errors import LaeFastError

if TYPE_CHECKING:
    from rich.table import Table

# A longer table is cut in the middle.
_TABLE_TAIL = 5

# What people may do wrong and the library reports; anything else is a defect and keeps its traceback.
_USER_ERRORS = (ValueError, TypeError, OSError, MemoryError, ModuleNotFoundError, LaeFastError)

_NEEDS_EXTRA = (
    "lae-fast: the command line needs typer and rich, which are not installed. "
    "Install them with: pip install 'lae-fast[cli]'"
)


@dataclass(frozen=True)
class PcaOptions:
    """What ``lae-fast pca`` was asked for, as it was typed."""

    input: str
    components: str
    output: Path | None = None
    plot: Path | None = None
    solver: str = "auto"
    tol: float = 0.0
    standardize: bool = False
    max_memory: str | None = None
    backend: str = "auto"
    threads: int | None = None
    quiet: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the console script ``lae-fast``.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, without the program's name; those of the process by default.

    Returns
    -------
    int
        The exit code.
    """
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError:
        print(_NEEDS_EXTRA, file=sys.stderr)
        return 1
    try:
        _build_app()(args=None if argv is None else list(argv), prog_name="lae-fast")
    except SystemExit as finished:
        return finished.code if isinstance(finished.code, int) else int(finished.code is not None)
    except KeyboardInterrupt:
        return 130
    return 0


def parse_components(text: str) -> int | float | Literal["mle"]:
    """``-k``: a count, a fraction of the variance strictly between 0 and 1, or "mle".

    >>> parse_components("10"), parse_components("0.95"), parse_components("mle")
    (10, 0.95, 'mle')
    """
    if text == "mle":
        return "mle"
    with contextlib.suppress(ValueError):
        count = int(text)
        if count >= 1:
            return count
    with contextlib.suppress(ValueError):
        fraction = float(text)
        if 0.0 < fraction < 1.0:
            return fraction
    raise ValueError(f"-k takes a count from 1 up, a fraction of the variance such as 0.95, or mle; got {text!r}")


def parse_bytes(text: str) -> int:
    """A number of bytes with an optional unit: k, M, G, T are powers of 1000, Ki, Mi, Gi, Ti powers of 1024.

    >>> parse_bytes("2GB"), parse_bytes("1.5 GiB"), parse_bytes("4096")
    (2000000000, 1610612736, 4096)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?))?b?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0.0:
        raise ValueError(f"--max-memory takes a size such as 2GB or 512MiB, got {text!r}")
    power = "kmgt".index(match[2].lower()) + 1 if match[2] else 0
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def run_pca(options: PcaOptions) -> None:
    """Fit, save, draw, then print: in this order, so that a closed pipe cannot lose the result."""
    from lae_fast import files

    components = parse_components(options.components)
    max_memory = None if options.max_memory is None else parse_bytes(options.max_memory)
    check_outputs(options)
    began = time.perf_counter()
    with files.open_input(options.input) as source:
        read = time.perf_counter()
        if not options.quiet:
            print_fields({"input": describe(source)})
        pca = _fit(source.data, components, max_memory, options)
        facts = {
            "seconds": time.perf_counter() - began,
            "seconds_reading": read - began,
            "peak_memory_bytes": _peak_memory(),
            "shape": list(source.data.shape),
            "dtype": source.dtype,
        }
    if options.output is not None:
        _save(options.output, pca, options, facts)
    if options.plot is not None:
        from lae_fast.plots import scree

        scree(pca, options.plot, title=options.input)
    if not options.quiet:
        _print_result(pca, options, facts)


def _fit(data: Any, components: int | float | str, max_memory: int | None, options: PcaOptions) -> Any:
    import lae_fast

    if options.threads is not None:
        lae_fast.set_num_threads(options.threads)
    pca = lae_fast.PCA(
        components,
        svd_solver=options.solver,
        tol=options.tol,
        standardize=options.standardize,
        max_memory=max_memory,
        backend=options.backend,
        progress=not options.quiet,
    )
    return pca.fit(data)


def _save(path: Path, pca: Any, options: PcaOptions, facts: Mapping[str, Any]) -> None:
    """Write the result; every entry is readable with ``np.load(path, allow_pickle=False)``."""
    import numpy as np

    from lae_fast.files import atomic_write

    arrays = {
        "components": pca.components_,
        "explained_variance": pca.explained_variance_,
        "explained_variance_ratio": pca.explained_variance_ratio_,
        "singular_values": pca.singular_values_,
        "mean": pca.mean_,
        "residuals": pca.residuals_,
        "noise_variance": pca.noise_variance_,
        "n_samples": pca.n_samples_,
        "format_version": FORMAT_VERSION,
    }
    scale = getattr(pca, "scale_", None)
    if scale is not None:
        arrays["scale"] = scale
    meta = {
        **origin(options),
        "solver": str(pca.solver_),
        "route_reason": str(pca.route_reason_),
        "n_passes": int(pca.n_passes_),
        "workspace_bytes": int(pca.workspace_bytes_),
        "backend": str(pca.backend_),
        "converged": bool(np.all(pca.converged_)),
        **facts,
    }
    arrays["meta"] = json.dumps(meta)
    with atomic_write(path) as file:
        np.savez(file, **{name: np.asarray(value) for name, value in arrays.items()})


def _print_result(pca: Any, options: PcaOptions, facts: Mapping[str, Any]) -> None:
    import numpy as np

    import lae_fast

    console().print(_result_table(pca))
    fields = {
        "route": f"{pca.solver_}: {pca.route_reason_}",
        "passes": f"{pca.n_passes_} over the data",
        "time": f"{facts['seconds']:.3f} s, of it {facts['seconds_reading']:.3f} s to open the input",
        "memory": f"workspace {format_bytes(pca.workspace_bytes_)}",
        "backend": f"{pca.backend_}, {counted(lae_fast.get_num_threads(), 'thread')}",
        "wrote": ", ".join(str(path) for path in (options.output, options.plot) if path is not None)
        or "nothing; keep the result with -o FILE.npz",
    }
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
    cumulative = np.cumsum(pca.explained_variance_ratio_, dtype=np.float64)
    count = len(cumulative)
    cut = count > TABLE_HEAD + _TABLE_TAIL
    for i in range(count):
        if cut and TABLE_HEAD <= i < count - _TABLE_TAIL:
            if i == TABLE_HEAD:
                table.add_row(*["..."] * 5)
            continue
        table.add_row(
            str(i + 1),
            f"{pca.explained_variance_[i]:.6g}",
            f"{pca.explained_variance_ratio_[i]:.4%}",
            f"{cumulative[i]:.4%}",
            f"{pca.residuals_[i]:.1e}",
        )
    return table


def run_info() -> None:
    """Print what the library found on this machine."""
    import lae_fast

    info = lae_fast.backend_info()
    cache, cuda = info["cache"], info["cuda"]
    fields = {
        "lae-fast": __version__,
        "backend": info["backend"],
        "threads": f"{info['threads']}: {info['threading']}",
    }
    for i, blas in enumerate(info["blas"]):
        what = f"{blas['name']} {blas['version']}, {counted(blas['threads'], 'thread')}: {blas['role']}"
        fields["BLAS" if i == 0 else " " * i] = f"{what}\n{blas['path']}"  # blank names, all different
    fields["cache"] = f"on, {cache['path']}" if cache["enabled"] else "off"
    if not cache["jit"]:
        fields["cache"] = "not used, compilation is switched off"
    fields["CUDA"] = f"{'available' if cuda['available'] else 'not available'}: {cuda['reason']}"
    fields["versions"] = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    print_fields(fields)


def _peak_memory() -> int | None:
    """Largest resident size of this process so far, in bytes; None where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextlib.contextmanager
def _for_people(debug: bool) -> Iterator[None]:
    """Warnings and errors as one line each; the exit code as the module's docstring says."""
    import typer

    def show(message: Warning | str, category: type[Warning], *_where: object, **_more: object) -> None:
        print_line("warning", str(message), "yellow")

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    except KeyboardInterrupt:
        print_line("interrupted", "no file was left half-written", "yellow")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise  # `lae-fast ... | head`: typer ends quietly, there is nobody to read a message
    except _USER_ERRORS as error:
        if debug:
            raise
        print_line("error", str(error) or type(error).__name__, "red")
        raise typer.Exit(2) from None


def _build_app() -> Callable[..., Any]:
    """The typer application: parameters and help texts, no work. Built on use because typer is an extra."""
    import enum
    from typing import Annotated

    import typer

    from lae_fast.files import FORMATS

    class Solver(enum.StrEnum):
        auto = enum.auto()
        gram = enum.auto()
        krylov = enum.auto()

    class Backend(enum.StrEnum):
        auto = enum.auto()
        cpu = enum.auto()
        cuda = enum.auto()

    # No `from __future__ import annotations` in this file: typer could not look up the names that are local here.
    app = typer.Typer(
        help="Exact, certified principal components of large matrices.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def version(wanted: bool) -> None:
        if wanted:
            print(f"lae-fast {__version__}")
            raise typer.Exit

    Version = Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version and exit.")
    ]
    Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error instead of one line.")]

    def root(version: Version = False) -> None:
        pass

    def pca(
        input: Annotated[str, typer.Argument(metavar="INPUT", help=f"One of: {FORMATS}.")],
        components: Annotated[
            str,
            typer.Option("-k", "--components", help="How many: a count, a fraction of the variance (0.95), or mle."),
        ],
        output: Annotated[
            Path | None,
            typer.Option("-o", "--output", help="Write the result to this .npz; an existing one is replaced."),
        ] = None,
        plot: Annotated[
            Path | None, typer.Option("--plot", help="Draw variances and residuals to this .png, .pdf or .svg.")
        ] = None,
        solver: Annotated[Solver, typer.Option(help="Force a route; auto takes the cheaper one.")] = Solver.auto,
        tol: Annotated[
            float, typer.Option(min=0.0, help="Stop at this relative residual; 0 is as far as the dtype goes.")
        ] = 0.0,
        standardize: Annotated[bool, typer.Option("--standardize", help="Scale columns to unit variance.")] = False,
        max_memory: Annotated[
            str | None, typer.Option("--max-memory", help="Largest workspace beside the data, such as 2GB.")
        ] = None,
        backend: Annotated[Backend, typer.Option(help="Where to compute.")] = Backend.auto,
        threads: Annotated[int | None, typer.Option(min=1, help="Threads to use; all cores by default.")] = None,
        quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print warnings and errors only.")] = False,
        debug: Debug = False,
    ) -> None:
        """Principal components of INPUT, with a certificate for each."""
        with _for_people(debug):
            run_pca(
                PcaOptions(
                    input=input,
                    components=components,
                    output=output,
                    plot=plot,
                    solver=solver.value,
                    tol=tol,
                    standardize=standardize,
                    max_memory=max_memory,
                    backend=backend.value,
                    threads=threads,
                    quiet=quiet,
                )
            )

    def train(
        input: Annotated[str, typer.Argument(metavar="INPUT", help=f"One of: {FORMATS}.")],
        components: Annotated[int, typer.Option("-k", "--components", min=1, help="Latent width.")],
        output: Annotated[
            Path | None,
            typer.Option("-o", "--output", help="Write the model to this .npz; an existing one is replaced."),
        ] = None,
        loss: Annotated[str, typer.Option(help="Name, or with numbers: ordered, mse, 'sum_l2(0.1)'.")] = "auto",
        rule: Annotated[
            str, typer.Option(help="gradient, rag, oja, gha, alpha_eigengame, ..., alternating.")
        ] = "gradient",
        optimizer: Annotated[str, typer.Option(help="sgd, momentum, nesterov or adam.")] = "adam",
        learning_rate: Annotated[str, typer.Option("--learning-rate", help="A number, or auto.")] = "auto",
        schedule: Annotated[str | None, typer.Option(help="constant, cosine or exponential.")] = None,
        max_iter: Annotated[int, typer.Option("--max-iter", min=1, help="Most iterations.")] = 10_000,
        tol: Annotated[float, typer.Option(min=0.0, help="Stop at this relative gradient.")] = 1e-6,
        batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Rows of a mini-batch.")] = None,
        scale: Annotated[str, typer.Option(help="mean or sum of the squared errors.")] = "mean",
        coupling: Annotated[str, typer.Option(help="untied, synchronised or tied.")] = "untied",
        hidden: Annotated[str, typer.Option(help="Widths of further layers, such as 200,50.")] = "",
        seed: Annotated[int, typer.Option(min=0, help="Of the random start.")] = 0,
        regime: Annotated[str, typer.Option(help="auto, moments or rows.")] = "auto",
        backend: Annotated[Backend, typer.Option(help="Where to compute.")] = Backend.auto,
        threads: Annotated[int | None, typer.Option(min=1, help="Threads to use; all cores by default.")] = None,
        quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print warnings and errors only.")] = False,
        debug: Debug = False,
    ) -> None:
        """Train a linear autoencoder on INPUT."""
        from lae_fast.cli_train import TrainOptions, run_train

        with _for_people(debug):
            run_train(
                TrainOptions(
                    input=input,
                    components=components,
                    output=output,
                    loss=loss,
                    rule=rule,
                    optimizer=optimizer,
                    learning_rate=learning_rate,
                    schedule=schedule,
                    max_iter=max_iter,
                    tol=tol,
                    batch_size=batch_size,
                    scale=scale,
                    coupling=coupling,
                    hidden=hidden,
                    seed=seed,
                    regime=regime,
                    backend=backend.value,
                    threads=threads,
                    quiet=quiet,
                )
            )

    def info(debug: Debug = False) -> None:
        """What lae-fast found here: backend, threads, BLAS libraries, cache, CUDA."""
        with _for_people(debug):
            run_info()

    app.callback()(root)
    app.command()(pca)
    app.command()(train)
    app.command()(info)
    return app


if __name__ == "__main__":
    sys.exit(main())
