"""The ordered loss inside PyTorch against the loss written out, forward and backward: time, and memory in use.

    python -m benchmarks.torch_losses [--rounds N] [--smoke]

Contestants: ours; the loss written out prefix by prefix, as people write it (timed once); the same loss from its closed
form by PyTorch's autograd; and the squared error alone, which orders nothing.  Values and gradients are compared first.
Contestants take turns, and the least time of each is reported, of the wall and of the processor: under load the latter
says more.  Memory is the peak of the process over a call, above what it was before, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.lib import memory
from lae_fast import torch as lae_torch

SHAPE, SMOKE = (5000, 1000, 100), (600, 60, 8)


def contestants(m: int, d: int, p: int) -> dict[str, Callable[[], tuple[torch.Tensor, ...]]]:
    """Functions that return (loss, dA, dB)."""
    torch.manual_seed(0)
    x = torch.randn(m, d)
    a, b = (0.03 * torch.randn(d, p)).requires_grad_(), (0.03 * torch.randn(p, d)).requires_grad_()
    prefix = torch.arange(p, 0, -1.0)
    index = torch.arange(p)
    mask = prefix[torch.maximum(index[:, None], index)]

    def with_gradients(loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (loss.detach(), *torch.autograd.grad(loss, (a, b)))

    def written_out() -> torch.Tensor:
        codes = x @ b.T
        return sum(((x - codes[:, :k] @ a[:, :k].T) ** 2).sum() for k in range(1, p + 1)) / m

    def closed_form() -> torch.Tensor:
        codes = x @ b.T
        cross = ((codes.T @ x) * a.T).sum(dim=1)
        return (p * (x**2).sum() - 2 * (prefix @ cross) + (mask * (a.T @ a) * (codes.T @ codes)).sum()) / m

    return {
        "lae_fast.torch": lambda: with_gradients(lae_torch.ordered_loss(a, b, x)),
        "closed form, autograd": lambda: with_gradients(closed_form()),
        "squared error alone": lambda: with_gradients(((x - (x @ b.T) @ a.T) ** 2).sum() / m),
        "written out": lambda: with_gradients(written_out()),
    }


def check(found: dict[str, Callable[[], tuple[torch.Tensor, ...]]]) -> None:
    """Exit unless ours has the value and the gradients of the loss written out."""
    ours, expected = found["lae_fast.torch"](), found["written out"]()
    errors = [float((one - other).norm() / other.norm()) for one, other in zip(ours, expected)]
    if max(errors) > 1e-4:
        sys.exit(f"not the loss written out: relative errors {errors}")


def peak(name: str, shape: tuple[int, int, int]) -> float:
    """MB that one call adds to the peak of a process; run in a process of its own."""
    contest = contestants(*shape)
    lae_torch.ordered_loss(torch.randn(9, 2, requires_grad=True), torch.randn(2, 9), torch.randn(9, 9)).backward()
    if name == "lae_fast.torch":
        contestants(shape[0], shape[1], 2)[name]()  # loads kernels
    before = memory.peak_resident()
    contest[name]()
    return (memory.peak_resident() - before) / 1e6


def main() -> None:
    """Check, time, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    shape = SMOKE if asked.smoke else SHAPE
    if asked.peak:
        print(json.dumps(peak(asked.peak, shape)))
        return
    found = contestants(*shape)
    check(found)
    least: dict[str, list[float]] = {name: [float("inf")] * 2 for name in found}
    for turn in range(1 if asked.smoke else asked.rounds):
        for name, call in found.items():
            if turn and name == "written out":
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            least[name] = [min(pair) for pair in zip(least[name], spent)]
    print(f"m, d, p = {shape}, float32, {torch.get_num_threads()} threads")
    for name, (wall, cpu) in least.items():
        command = [sys.executable, "-m", "benchmarks.torch_losses", "--peak", name, *["--smoke"] * asked.smoke]
        used = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"{name:22} {1e3 * wall:9.1f} ms   {1e3 * cpu:9.1f} ms of processor   {used:7.1f} MB")


if __name__ == "__main__":
    main()
