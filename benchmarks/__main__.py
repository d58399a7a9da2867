"""All benchmarks, one after the other, and the pages that come of them.

    python -m benchmarks [--quick] [--only NAME] [--machine NAME]

`--quick` runs the toy sizes, to see that everything runs: minutes, and no page is written. `--only` takes some, and may
be repeated. Results go to `benchmarks/results/MACHINE/`, where MACHINE is made of processor and cores, or is what
`--machine` says; so a second machine adds to what the first one found, and the pages show both side by side.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from benchmarks import report
from benchmarks.lib import machines, peers

# In the order they run, quick ones first; those of the first group have results that the report knows.
REPORTED = ("small", "growth", "incremental", "training", "first_call", "ordered", "pca", "sparse", "streaming")
OTHERS = ("ceilings", "certificate", "convergence", "torch_losses", "dask_rows", "papers")
QUICK = {
    "first_call": ["--repeats", "1"],
    "certificate": ["--fits", "50"],
    "convergence": None,
    "dask_rows": ["--only", "simulated"],
    "papers": None,
}  # None: it has no short form


def command(name: str, quick: bool, machine: str | None = None) -> list[str] | None:
    """Arguments for Python; None where it is left out. Results go to the folder of `machine`, or of this one."""
    options = QUICK.get(name, ["--smoke"]) if quick else []
    if options is None:
        return None
    if name in REPORTED:
        options = [*options, "--out", str(machines.place(name, quick, machine))]
    return ["-m", f"benchmarks.{name}", *options]


def main(arguments: list[str] | None = None) -> int:
    """Run them; see the module's text.  Returns 1 where one of them failed or found a wrong answer."""
    names = [*REPORTED, *OTHERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="toy sizes: does everything run? Says nothing of speed")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--machine", metavar="NAME", help="instead of processor and cores")
    options = parser.parse_args(arguments)
    if options.machine is not None:
        try:
            machines.check_name(options.machine)
        except ValueError as error:
            parser.error(str(error))
    print(f"Results of this machine go to benchmarks/results/{options.machine or machines.slug()}/.", flush=True)
    chosen = options.only or names
    missing = sorted({peer.name for peer in peers.contestants() if not peer.installed})
    print(f"Peers that are not installed, and take no part: {'; '.join(missing) or 'none'}.", flush=True)
    failed = []
    for number, name in enumerate(chosen, 1):
        arguments_of = command(name, options.quick, options.machine)
        if arguments_of is None:
            print(f"[{number}/{len(chosen)}] {name}: left out, it has no quick form", flush=True)
            continue
        print(f"[{number}/{len(chosen)}] {name}", flush=True)
        started = time.perf_counter()
        if subprocess.run([sys.executable, *arguments_of], cwd=report.ROOT).returncode:
            failed.append(name)
        print(f"[{number}/{len(chosen)}] {name}: {time.perf_counter() - started:.0f} s", flush=True)
    if options.quick:
        print("Toy sizes: that everything runs is seen, and nothing of speed.")
    else:
        failed += ["report"] if report.main([]) else []
    print(f"Failed, or with a wrong answer: {', '.join(failed) or 'none'}.")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
