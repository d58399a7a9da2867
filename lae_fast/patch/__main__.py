"""The command `python -m lae_fast.patch`: runs a script, or a module, with scikit-learn's classes replaced."""

import os
import runpy
import sys

from lae_fast.patch import patch_sklearn

USAGE = (
    "usage: python -m lae_fast.patch SCRIPT [ARGUMENTS ...]\n       python -m lae_fast.patch -m MODULE [ARGUMENTS ...]"
)


def main() -> None:
    """Run what the command line names as `__main__`, its arguments in sys.argv."""
    given = sys.argv[1:]
    if given[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return
    is_module = given[:1] == ["-m"]
    if len(given) < 1 + is_module:
        sys.exit(USAGE)
    if not is_module and not os.path.exists(given[0]):
        sys.exit(f"python -m lae_fast.patch: there is no script {given[0]!r}\n{USAGE}")
    patch_sklearn()
    sys.argv = given[is_module:]
    if is_module:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
