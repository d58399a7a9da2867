"""The progress protocol: what `progress=` accepts, what is shown, and that the bar always comes down."""

import importlib.util
import io

import pytest

from lae_fast import progress


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
    assert stream.getvalue() == "\rGram: 10/12\rGram: 1/2  \rGram: 1/2\n"


def test_counter_skips_what_no_eye_follows_and_ends_on_the_last_state(monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 5.0)
    stream = Terminal()
    with progress._PlainLine(stream) as report:
        for done in range(1, 101):
            report("Gram", done, 100)
    assert stream.getvalue() == "\rGram: 1/100\rGram: 100/100\n"
