"""The GPU benchmark.

    python -m benchmarks.gpu pca|train [--dry-run] [--rounds N] [--budget S] [--out FILE]

`pca` is pca.py's, `train` is train.py's.
One command, under eight minutes on a card (--budget), that writes JSON with hardware and versions.  Every answer is
checked before it is timed, by residuals in float64 on the host.  --dry-run runs every step at toy size on Numba's
simulator (set NUMBA_ENABLE_CUDASIM=1): it shows that the command works and records no times.
No result of a card is in this repository yet: docs/cuda.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import lae_fast
from benchmarks.gpu import card, pca, train
from benchmarks.lib import harness, machines
from lae_fast import backends

PACKAGES = (
    "lae-fast",
    "numpy",
    "numba",
    "numba-cuda",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "torch",
    "cuml-cu12",
    "cuml-cu13",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; see the module's text.  1 when an answer of ours misses the tolerance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["pca", "train"])
    parser.add_argument("--dry-run", action="store_true", help="toy sizes on Numba's simulator; no times")
    parser.add_argument("--rounds", type=int, default=7, help="most runs of everything that is timed")
    parser.add_argument("--budget", type=float, default=400.0, help="seconds, after which everything runs three times")
    parser.add_argument(
        "--out", type=Path, help="JSON file (default benchmarks/results/MACHINE/gpu-WHAT[-dry-run].json)"
    )
    options = parser.parse_args(arguments)
    backends.resolve("cuda")
    from lae_fast.backends.cuda import target

    if target.SIMULATED != options.dry_run:
        parser.error("--dry-run and NUMBA_ENABLE_CUDASIM=1 go together: the simulator is not to be timed")
    clock = card.Clock(options.rounds, time.monotonic() + options.budget, options.dry_run)
    payload: dict[str, Any] = {
        "benchmark": f"gpu {options.what}", "schema": harness.SCHEMA, "dry_run": options.dry_run,
        "environment": harness.environment(PACKAGES) | {"cuda": lae_fast.backend_info()["cuda"]},
    }  # fmt: skip
    out = options.out or machines.place(f"gpu-{options.what}{'-dry-run' if options.dry_run else ''}")

    def save() -> None:
        harness.write_json(out, payload)

    half = train if options.what == "train" else pca
    right = half.measure(payload, clock, save)
    save()
    print(f"written: {out}")
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
