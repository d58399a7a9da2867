"""``lae-fast kernels``: the header of the kernels for C."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from lae_fast.cli.options import option


@dataclass(frozen=True, kw_only=True)
class KernelOptions:
    """``lae-fast kernels``."""

    header: Annotated[
        Path | None, option("--header", help="Write the C header here; without it, it is printed.", metavar="FILE")
    ] = None


def run_kernels(options: KernelOptions) -> None:
    """Write or print the header."""
    from lae_fast.data.atomic import atomic_write, check_writable
    from lae_fast.kernels import c

    if options.header is None:
        print(c.header(), end="")
        return
    check_writable(options.header)
    with atomic_write(options.header) as file:
        file.write(c.header().encode())
