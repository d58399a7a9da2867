"""Settings of the test run, and its two speeds."""

import os
import signal

import pytest
from hypothesis import settings

from lae_fast import plan
from tests.oracle import cases

# A gate must give one answer for one commit: the property tests draw the same examples every time. Whoever changes
# what they guard runs them with LAE_FAST_TEST_RANDOM=1, which draws new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile("random" if os.environ.get("LAE_FAST_TEST_RANDOM") else "repeatable")

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="every combination of parameters, and the tests marked `full`")
    parser.addoption("--rest", action="store_true", help="of --full, what is not in the short run: after one")


def pytest_configure(config):
    cases.full = config.getoption("--full") or config.getoption("--rest")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Processes for a run of all tests: few, since each compiles what it needs.  None for tests that are named."""
    return 0 if config.args_source is config.ArgsSource.ARGS else min(4, os.cpu_count() or 1)


def pytest_runtest_setup():
    """A test that changes constants of the plan finds nothing remembered."""
    for function in (plan.tiling, plan.device_pays, plan.choose_route):
        function.cache_clear()


@pytest.hookimpl(trylast=True)  # after -k, -m and names: what they chose is thinned out
def pytest_collection_modifyitems(config, items):
    config.stash[LEFT_OUT] = 0
    if config.getoption("--full"):
        return
    kept = short(items)
    if config.getoption("--rest"):
        kept = {item for item in items if item not in kept or item.get_closest_marker("draws")}
    left = [item for item in items if item not in kept]
    config.stash[LEFT_OUT] = 0 if cases.full else len(left)
    items[:] = [item for item in items if item in kept]
    if left:
        config.hook.pytest_deselected(items=left)


def short(items):
    """The items of the short run: tests/oracle/cases.py has the rules."""
    functions = {}
    for item in items:
        if item.get_closest_marker("full") is None:
            functions.setdefault((item.path, item.nodeid.partition("[")[0]), []).append(item)
    kept = set()
    for same in functions.values():
        if len(same) > 1 and same[0].get_closest_marker("every") is None:
            same = [same[i] for i in cases.each([values(item) for item in same])]
        kept.update(same)
    return kept


def values(item):
    """Which value each `parametrize` and each fixture gives the case: a table's row counts as one value."""
    given = dict(item.callspec.params)
    rows = {}
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
        rows[",".join(names)] = tuple(id(given.pop(name, None)) for name in names)
    return rows | {name: id(value) for name, value in given.items()}


def pytest_terminal_summary(terminalreporter, config):
    if config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(
            f"{config.stash[LEFT_OUT]} cases were left out of this short run; with them: python -m pytest --full"
        )
