"""The command line ``lae-fast``. It imports the library when a command runs.

typer and rich come with the extra ``cli``. Results go to stdout, progress,
warnings and errors to stderr. Exit codes: 0 done, 1 the extra is missing, 2 bad input or usage (one line says what),
130 interrupted (Ctrl-C), 141 the reader of the output has gone (a closed pipe), 143 terminated (SIGTERM, which is
answered as Ctrl-C is); a signal after the end of the work changes none of them.
"""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from lae_fast._version import __version__
from lae_fast.cli import options as cli_options
from lae_fast.cli.kernels import KernelOptions, run_kernels
from lae_fast.cli.output import counted, print_fields, print_json, print_line
from lae_fast.cli.pca import PcaOptions, run_pca
from lae_fast.cli.report import ReportOptions, run_report
from lae_fast.cli.signals import CLOSED_PIPE, all_is_read, exit_code, ignore_from_now_on, unanswered
from lae_fast.cli.train import TrainOptions, run_train
from lae_fast.cli.transform import ReconstructOptions, TransformOptions, run_reconstruct, run_transform
from lae_fast.cli.warmup import WarmupOptions, run_warmup
from lae_fast.cli.words import translated
from lae_fast.errors import LaeFastError

# What people may do wrong and the library reports; anything else is a defect and keeps its traceback.
_USER_ERRORS = (ValueError, TypeError, OSError, MemoryError, ModuleNotFoundError, LaeFastError)

_NEEDS_EXTRA = (
    "lae-fast: the command line needs typer and rich, which are not installed. "
    "Install them with: pip install 'lae-fast[cli]'"
)


def run(argv: Sequence[str] | None) -> int:
    """`lae_fast.cli.main`; KeyboardInterrupt where no command has answered it."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError:
        print(_NEEDS_EXTRA, file=sys.stderr)
        return 1
    code, behind = 0, None
    try:
        _build_app()(args=None if argv is None else list(argv), prog_name="lae-fast")
    except SystemExit as finished:
        code, behind = finished.code if isinstance(finished.code, int) else 1, unanswered(finished)
    if isinstance(behind, KeyboardInterrupt):
        raise behind
    return code if all_is_read() and behind is None else CLOSED_PIPE


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """``lae-fast info``."""

    json: cli_options.Json = False


def run_info(options: InfoOptions) -> None:
    """Print what the library found on this machine."""
    import lae_fast

    info = lae_fast.backend_info()
    if options.json:
        print_json({"lae_fast": __version__, **info})
        return
    cache, cuda = info["cache"], info["cuda"]
    fields = {
        "lae-fast": __version__,
        "backend": info["backend"],
        "threads": f"{info['threads']}: {info['threading']}",
    }
    for i, blas in enumerate(info["blas"]):
        what = f"{blas['name']} {blas['version']}, {counted(blas['threads'], 'thread')}: {blas['role']}"
        fields["BLAS" if i == 0 else " " * i] = f"{what}\n{blas['path']}"  # blank names, all different
    processor = info["processor"]
    fields["processor"] = (
        f"vectors of {processor['vector_bytes']} bytes" if processor["vector_bytes"] else "plain loops"
    )
    fields["processor"] += "; int8 and uint8 multiplied " + ("as bytes" if processor["byte_products"] else "in float32")
    fields["cache"] = f"on, {cache['path']}" if cache["enabled"] else "off"
    if not cache["jit"]:
        fields["cache"] = "not used, compilation is switched off"
    fields["CUDA"] = f"{'available' if cuda['available'] else 'not available'}: {cuda['reason']}"
    fields["versions"] = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    print_fields(fields)


@contextlib.contextmanager
def _for_people(options: Any, debug: bool) -> Iterator[None]:
    """Warnings and errors as one line each, in the words of the command line; the exit code as the docstring above."""
    import typer

    flags = cli_options.flags(type(options))

    def show(message: Warning | str, category: type[Warning], *_where: object, **_more: object) -> None:
        print_line("warning", translated(str(message), flags), "yellow")

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
            ignore_from_now_on()
    except KeyboardInterrupt as stop:
        ignore_from_now_on()
        print_line("interrupted", str(stop) or "nothing was written", "yellow")
        raise typer.Exit(exit_code(stop)) from None
    except BrokenPipeError:
        raise  # `lae-fast ... | head`: there is nobody to read a message
    except _USER_ERRORS as error:
        if debug:
            raise
        ignore_from_now_on()
        print_line("error", translated(str(error), flags) or type(error).__name__, "red")
        raise typer.Exit(2) from None


def _run(work: Callable[[Any], None], options: Any, debug: bool) -> None:
    if getattr(options, "quiet", False):
        from lae_fast import progress

        progress.hide_notice()
    with _for_people(options, debug):
        work(options)


def _build_app() -> Callable[..., Any]:
    """The typer application: commands and help texts, no work. Built on use because typer is an extra."""
    import typer

    app = typer.Typer(
        help="Exact, certified principal components of large matrices.",
        no_args_is_help=True,
        epilog=_EXIT_CODES,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def version(wanted: bool) -> None:
        if wanted:
            print(f"lae-fast {__version__}")
            raise typer.Exit

    def root(
        version: Annotated[
            bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version and exit.")
        ] = False,
    ) -> None:
        pass

    app.callback()(root)
    for name, (options, work, text) in _COMMANDS.items():
        epilog = "\n\n".join(("Examples:", *_EXAMPLES.get(name, (f"lae-fast {name}",))))
        app.command(name, help=text, epilog=epilog)(cli_options.command(options, partial(_run, work)))
    return app


_COMMANDS: dict[str, tuple[type, Callable[[Any], None], str]] = {
    "pca": (PcaOptions, run_pca, "Principal components of INPUT, with a certificate for each."),
    "transform": (TransformOptions, run_transform, "Codes of INPUT under a model that pca or train wrote."),
    "reconstruct": (ReconstructOptions, run_reconstruct, "Rows of codes: transform, the other way."),
    "report": (ReportOptions, run_report, "One page about a model: table, pictures, how it was made."),
    "train": (TrainOptions, run_train, "Train a linear autoencoder on INPUT."),
    "warmup": (WarmupOptions, run_warmup, "Compile kernels ahead of the first fit, for images and CI."),
    "kernels": (KernelOptions, run_kernels, "The C header of the kernels, for programs that call them."),
    "info": (InfoOptions, run_info, "What lae-fast found here: backend, threads, BLAS libraries, cache, CUDA."),
}

# Shown by ``lae-fast COMMAND --help``; a test reads them with the command's own parser.
_EXAMPLES: dict[str, tuple[str, ...]] = {
    "pca": (
        "lae-fast pca digits -k 10 -o digits.npz --plot scree.png",
        "lae-fast pca table.csv -k 0.95 --standardize --label species --plot scores:scores.png",
        "lae-fast pca large.npy -k 50 -o out.npz --resume",
        "lae-fast pca digits -k parallel --json",
    ),
    "transform": (
        "lae-fast transform digits.npz digits -o codes.npy",
        "lae-fast transform out.npz large.h5:rows -o codes.npy --max-memory 2GB",
    ),
    "reconstruct": ("lae-fast reconstruct digits.npz codes.npy -o rows.npy",),
    "report": (
        "lae-fast report digits.npz -o report.html",
        "lae-fast report digits.npz digits -o report.html --image 8x8",
    ),
    "train": (
        "lae-fast train digits -k 6 --loss ordered --optimizer nesterov -o model.npz",
        "lae-fast train digits -k 6 --reference digits.npz --record-every log --plot history.png",
    ),
    "warmup": ("lae-fast warmup", "lae-fast warmup --all"),
    "kernels": ("lae-fast kernels --header lae_fast.h",),
    "info": ("lae-fast info", "lae-fast info --json"),
}

_EXIT_CODES = (
    "Exit codes: 0 done, 1 the extra 'cli' is missing, 2 bad input or usage, 130 interrupted by Ctrl-C, "
    "141 the reader of the output has gone, 143 ended by SIGTERM."
)
