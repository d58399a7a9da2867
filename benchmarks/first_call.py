"""The first call of a process: from a cold compile cache, and from a warm one.

`python -m benchmarks.first_call [--repeats N] [--only NAME]` measures each case of `lib/first_call.py` in processes of
its own and prints a table; `benchmarks.report` puts it into docs/benchmarks.md.  Imports nothing of lae_fast.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.lib import first_call, harness, machines


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_call", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="processes of each kind, of which the cheapest counts")
    parser.add_argument("--only", action="append", choices=list(first_call.CASES), help="this case; may be repeated")
    parser.add_argument("--out", type=Path, help="JSON file (default benchmarks/results/MACHINE/first_call.json)")
    options = parser.parse_args(arguments)
    payload: dict[str, Any] = {
        "benchmark": "first_call",
        "schema": harness.SCHEMA,
        "smoke": bool(options.only),
        "environment": harness.environment(("lae-fast", "numpy", "scipy", "numba", "scikit-learn")),
        "repeats": options.repeats,
        "cases": {},
    }
    for name in options.only or first_call.CASES:
        payload["cases"][name] = found = first_call.measure_case(name, options.repeats)
        cold, warm = found["cold"], found["warm"]
        print(
            f"{name:32s} cold {cold['call_s']:5.1f} s ({cold['compiled']} kernels), warm {warm['call_s']:.2f} s,"
            f" libraries {warm['libraries_s']:.2f} s",
            flush=True,
        )
    harness.write_json(options.out or machines.place("first_call", bool(options.only)), payload)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
