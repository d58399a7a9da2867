"""The progress protocol: what `progress=` accepts, what is shown, and that the bar always comes down."""

import importlib.util
import io
import re
import sys
import time

import numpy as np
import pytest
from numba.core.caching import NullCache

import lae_fast as lf
from lae_fast import progress
from lae_fast.backends.cpu import jit


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_false_and_none_are_silent_and_share_one_object(capsys):
    assert progress.resolve(False) is progress.resolve(None) is progress.resolve()
    with progress.resolve(False) as report:
        report("Gram", 1, 2)
        report("Gram", 2)
    assert capsys.readouterr() == ("", "")


def test_callable_gets_every_report_unthrottled():
    seen = []
    with progress.resolve(lambda *report: seen.append(report)) as report:
        for done in range(5):
            report("Gram", done, 4)
        report("refine", 1)
    assert seen == [("Gram", done, 4) for done in range(5)] + [("refine", 1, None)]


def test_an_exception_of_the_callable_reaches_the_caller():
    def cancel(stage, done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"), progress.resolve(cancel) as report:
        report("Gram", 1, 2)


@pytest.mark.parametrize("value", ["yes", 1, 0, 3.5])
def test_anything_else_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"progress must be False, True or a callable"):
        progress.resolve(value)


def show_on(console_kwargs, monkeypatch, reports):
    """What the bar writes for these reports, on a console made like that."""
    import rich.console

    stream, make = io.StringIO(), rich.console.Console

    def console(*, stderr):
        assert stderr, "stdout is for results"
        return make(file=stream, width=80, **console_kwargs)

    monkeypatch.setattr(rich.console, "Console", console)
    with progress.resolve(True) as report:
        for item in reports:
            report(*item)
        report.close()  # closing twice is allowed
    return stream.getvalue()


def test_true_draws_one_bar_per_stage(monkeypatch):
    reports = [("Gram [1]", 1, 3), ("Gram [1]", 3, 3), ("refine", 1, None), ("refine", 7, None), ("Gram [1]", 2, 3)]
    text = show_on({"force_terminal": True}, monkeypatch, reports)
    last_state = text[text.rindex("Gram [1]") :]
    assert "2/3" in last_state and "7/7" in last_state  # the end of refine is known once it is over
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_true_writes_nothing_into_a_log(monkeypatch):
    assert show_on({"force_terminal": False, "force_jupyter": False}, monkeypatch, [("Gram", 1, 1)]) == ""


def test_bar_comes_down_when_the_work_fails(monkeypatch):
    def reports():
        yield "Gram", 1, 3
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show_on({"force_terminal": True}, monkeypatch, reports())
    with progress.resolve(True):
        pass  # never called: nothing was started, nothing to take down


def test_without_rich_true_counts_on_stderr(monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "rich" else find_spec(name))
    with progress.resolve(True) as report:
        report("Gram", 1, 2)
        report("Gram", 2, 2)
        report("refine", 5)
    assert capsys.readouterr() == ("", "Gram: 2/2\nrefine: 5\n")


def test_counter_overwrites_its_line_on_a_terminal(monkeypatch):
    clock = iter(range(100))  # a second passes between any two looks at it
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    stream = Terminal()
    with progress._PlainLine(stream) as report:
        report("Gram", 10, 12)
        report("Gram", 1, 2)
    assert stream.getvalue() == "\rGram: 10/12, 0 s left\rGram: 1/2, 1 s left  \rGram: 1/2, 1 s left\n"


def test_counter_skips_what_no_eye_follows_and_ends_on_the_last_state(monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 5.0)
    stream = Terminal()
    with progress._PlainLine(stream) as report:
        for done in range(1, 101):
            report("Gram", done, 100)
    assert stream.getvalue() == "\rGram: 1/100\rGram: 100/100\n"


def test_what_is_in_a_parenthesis_may_change_within_a_stage(monkeypatch):
    """One bar, which begins anew with each pass, and so does the time that is left."""
    stage = progress.Passes("pass over the data", expected=2)
    reports = []
    for stage.number in (1, 2, 3):
        reports += [(str(stage), done, 4) for done in (1, 4)]
        stage.residual = 10.0**-stage.number
    assert [phrase for phrase, done, _ in reports if done == 1] == [
        "pass over the data (1 of about 2)",
        "pass over the data (2 of about 2, residual 1e-01)",
        "pass over the data (3, residual 1e-02)",
    ]
    text = show_on({"force_terminal": True}, monkeypatch, reports)
    last_state = text[text.rindex("pass over") :]
    assert "(3, residual 1e-02)" in last_state and "4/4" in last_state
    assert "(2 of" not in last_state
    stream = Terminal()
    with progress._PlainLine(stream) as report:
        for item in reports:
            report(*item)
    assert stream.getvalue().count("\n") == 1


def test_the_bar_says_what_is_left_and_stops_when_it_is_done(monkeypatch):
    def reports():
        for done in range(4):
            yield "Gram", done, 4
            time.sleep(0.02)

    with monkeypatch.context() as patch:
        text = show_on({"force_terminal": True}, patch, reports())
    assert "3/4" in text and text.rindex(" left") > text.rindex("3/4")
    text = show_on({"force_terminal": True}, monkeypatch, [("Gram", done, 4) for done in range(5)])
    assert "4/4" in text and " left" not in text[text.rindex("4/4") :]


@pytest.mark.needs_jit
@pytest.mark.parametrize("bar", ["rich", "plain"])
def test_bars_say_that_kernels_are_compiled(bar, monkeypatch):
    import rich.console

    stream, make = Terminal(), rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda **_: make(file=stream, width=80, force_terminal=True))
    seen = []
    with (
        progress.resolve(lambda *report: seen.append(report)),
        progress._RichBar() if bar == "rich" else progress._PlainLine(stream) as report,
    ):
        report("Gram", 2, 2)
        assert "compiling kernels" not in stream.getvalue()
        scale = jit.lean_kernel(fresh_kernel())
        scale._cache = NullCache()  # a kernel that was never compiled, whatever ran before
        scale(2.0)
        report("Gram", 2, 2)
    assert "compiling kernels" in stream.getvalue() and seen == []
    assert progress._compilations == 0 and not progress._shown
    if bar == "rich":
        assert "compiling kernels" not in stream.getvalue()[stream.getvalue().rindex("Gram") :]


def fresh_kernel():
    def scale(x):
        return 3.0 * x

    scale.__module__ = "lae_fast.backends.cpu.fresh"
    return scale


@pytest.fixture
def notice(monkeypatch):
    """A stderr, a terminal by default, on which compilations are announced at once."""
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_notice", progress._Notice())
    monkeypatch.delenv("LAE_FAST_QUIET", raising=False)

    def put(stream=None):  # not before the test runs: pytest sets stderr after the fixtures
        stream = Terminal() if stream is None else stream
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return put


def compile_for_a_while(seconds=0.0):
    progress.compiling(True)
    timer = progress._notice._timer
    if timer is not None:
        timer.join(seconds or None)
    progress.compiling(False)


def test_a_long_compilation_is_announced_once(notice):
    stream = notice()
    compile_for_a_while()
    compile_for_a_while()
    assert stream.getvalue().count("compiling kernels") == 1 and "lae-fast warmup" in stream.getvalue()


def test_the_time_of_short_compilations_adds_up(notice, monkeypatch):
    stream = notice()
    monkeypatch.setattr(progress, "_PATIENCE", 60.0)
    compile_for_a_while(0.01)
    assert stream.getvalue() == "" and progress._notice._spent > 0.0
    progress._notice._spent = 60.0
    compile_for_a_while()
    assert "compiling kernels" in stream.getvalue()


@pytest.mark.parametrize("why", ["no terminal", "LAE_FAST_QUIET", "--quiet", "a bar is up"])
def test_nobody_is_told_of_compilations_who_does_not_look(why, notice, monkeypatch):
    stream = notice(io.StringIO() if why == "no terminal" else None)
    if why == "LAE_FAST_QUIET":
        monkeypatch.setenv("LAE_FAST_QUIET", "1")
    if why == "--quiet":
        progress.hide_notice()
    with progress._PlainLine(io.StringIO()) if why == "a bar is up" else progress.Reporter():
        compile_for_a_while()
    assert stream.getvalue() == ""


def test_an_interactive_session_is_told(notice, monkeypatch):
    stream = notice(io.StringIO())
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    compile_for_a_while()
    assert "compiling kernels" in stream.getvalue()


@pytest.mark.needs_jit
def test_passes_and_iterations_are_told():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3000, 200)) * 0.98 ** np.arange(200)
    seen = []
    pca = lf.PCA(3, svd_solver="krylov", progress=lambda *report: seen.append(report)).fit(X)
    passes = list(dict.fromkeys(stage for stage, _, _ in seen if stage.startswith("pass over the data")))
    assert passes[0].startswith("pass over the data (1 of about ") and pca.n_passes_ >= len(passes) > 3
    residuals = [float(found[1]) for stage in passes if (found := re.search("residual (.*)\\)", stage))]
    assert len(residuals) > 1 and residuals[-1] < 1e-3 * residuals[0]
    X[rng.random(X.shape) < 0.1] = np.nan
    seen.clear()
    lf.PCA(2, missing="em", tol=1e-4, progress=lambda *report: seen.append(report)).fit(X[:, :6])
    assert [done for _, done, _ in seen] == list(range(1, len(seen) + 1))
    assert "log-likelihood up by" in seen[-1][0]
