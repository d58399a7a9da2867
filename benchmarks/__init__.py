"""Benchmarks: who is faster at the same accuracy, on which data, and how near to what the machine can do.

    python -m benchmarks              all of these, and the pages; --quick: toy sizes
    python -m benchmarks.pca          principal components against every peer; JSON into benchmarks/results/MACHINE/
    python -m benchmarks.small        small data against scikit-learn, in thousands of short rounds
    python -m benchmarks.growth       how time grows with samples, features, components, threads
    python -m benchmarks.certificate  hostile fits: is any residual larger than its bound?
    python -m benchmarks.ceilings     the GEMM, SYRK and read ceilings of this machine
    python -m benchmarks.ordered      what the ordered loss costs beside the squared error
    python -m benchmarks.report       tables and plots from the JSON, into README.md and docs/benchmarks.md
    python -m pytest benchmarks --benchmark-only    micro-benchmarks: kernels, iterations, fits, first calls

`harness` races whole fits, `paired` measures differences of a per cent, `accuracy` judges answers, `shapes` makes the
data, `peers` wraps the contestants; only the commands know about all of them. Nothing here is imported by lae_fast.
"""
