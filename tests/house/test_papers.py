"""The figures of the papers: results are kept case by case, found again and compared; the page; colours in grey.

What each figure shows is asserted by `python -m benchmarks.papers --quick`, which CI runs.
"""

import itertools
import json

import pytest

from benchmarks.papers import __main__ as papers
from benchmarks.papers import page, results, style
from benchmarks.papers.figure import Figure, Row, first_at_most, of_case


def figure(holds=True, measured=None, **changed):
    """A figure that counts in `measured` what is measured."""

    def measure(configuration, case, seed):
        if measured is not None:
            measured.append((case, seed))
        return {"x": [1.0, 2.0], "end": 10.0 * seed + len(case)}

    def compare(configuration, runs):
        return [
            Row("a number", "1", of_case(runs, "a", "end"), holds),
            Row("of no case", "1", of_case(runs, "z", "end"), False),
            Row("|another|", "3", of_case(runs, "bb", "end"), True, differs=True),
            Row("ours", "-", of_case(runs, "bb", "end"), True),
        ]

    def draw(configuration, runs, pyplot):
        drawn, axis = pyplot.subplots()
        axis.plot(runs["a"][0]["x"])
        return drawn

    given = {"cases": lambda configuration: ["a", "bb"], "notes": ("why",)} | changed
    return Figure("wrong", "A figure", "nobody", {"n": 3, "list": [1.0, 2.5]}, measure, compare, draw, **given)


def run(monkeypatch, path, one, *options):
    monkeypatch.setattr(papers, "FIGURES", {"wrong": one})
    return papers.main(["--out", str(path), "--jobs", "1", *options])


def test_only_what_is_missing_is_measured(tmp_path, monkeypatch, capsys):
    measured = []
    assert run(monkeypatch, tmp_path, figure(measured=measured), "--seeds", "1") == 0
    assert measured == [("a", 0), ("bb", 0)]
    assert run(monkeypatch, tmp_path, figure(measured=measured), "--seeds", "2") == 0
    assert measured[2:] == [("a", 1), ("bb", 1)]
    assert "a number: published 1, obtained 6 (1 to 11): holds" in capsys.readouterr().out
    run(monkeypatch, tmp_path, figure(measured=measured, quick={"n": 1}), "--quick")
    assert measured[4:] == [("a", 0), ("bb", 0)]  # of another configuration
    run(monkeypatch, tmp_path, figure(measured=measured, quick={"n": 1}), "--quick", "--again")
    assert len(measured) == 8
    run(monkeypatch, tmp_path, figure(measured=measured), "--redraw")
    assert len(measured) == 8
    assert {path.name for path in tmp_path.iterdir()} == {"wrong.json", "wrong.svg", "wrong.png", "papers.md"}


def test_a_run_that_is_cut_off_keeps_what_it_has(tmp_path, monkeypatch, capsys):
    def fails(configuration, case, seed):
        if case == "bb":
            raise KeyboardInterrupt
        return {"end": 1.0}

    cut = figure()
    object.__setattr__(cut, "measure", fails)
    assert run(monkeypatch, tmp_path, cut) == 130
    assert "goes on from there" in capsys.readouterr().err
    kept = json.loads((tmp_path / "wrong.json").read_text())["runs"]
    assert kept["a"]["0"]["data"] == {"end": 1.0} and not kept.get("bb")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "0"], "must be positive"),
        (["--jobs", "0"], "must be positive"),
        (["--redraw"], "measure first"),
        (["--out", __file__], "test_papers.py"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, monkeypatch, capsys, options, said):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, tmp_path, figure(), *options)
    assert ended.value.code and said in capsys.readouterr().err


def test_a_damaged_result_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "wrong.json").write_text('{"name": "wro')
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, figure())
    assert "wrong.json is damaged" in capsys.readouterr().err


@pytest.mark.needs_jit
def test_cases_at_once_give_what_they_give_one_by_one(tmp_path):
    found = []
    for at_once in ("1", "2"):
        assert papers.main(["petrevski_ranks", "--quick", "--jobs", at_once, "--out", str(tmp_path / at_once)]) == 0
        runs = json.loads((tmp_path / at_once / "petrevski_ranks.json").read_text())["runs"]
        found.append({case: by_seed["0"]["data"] for case, by_seed in runs.items()})
    assert found[0] == found[1] and len(found[0]) > 1


def test_a_comparison_that_does_not_hold_is_the_exit_status(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path, figure(holds=False)) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        papers.main(["nothing", "--out", str(tmp_path)])


def test_the_page_has_both_numbers_and_the_reasons(tmp_path, monkeypatch):
    run(monkeypatch, tmp_path, figure(), "--seeds", "2")
    text = (tmp_path / "papers.md").read_text()
    assert "| a number | 1 | 6 (1 to 11) | yes |" in text and "of no case" not in text
    assert (
        "| \\|another\\| | 3 | 7 (2 to 12) | differs, see below |" in text and "| ours | - | 7 (2 to 12) |  |" in text
    )
    assert (
        "n 3; list 1, 2.5." in text and "- why" in text and "2 seeds, 0 s in all" in text and "--quick`**" not in text
    )
    assert "![A figure](./wrong.svg)" in text and "measured so far" not in text
    some = figure(cases=lambda configuration: ["a", "bb", "c"])
    assert "**2 of 3 cases measured so far**, 2 seeds" in page.section(
        some, results.stored(tmp_path / "wrong.json"), "."
    )


def test_the_page_of_this_repository_is_that_of_its_results():
    data, plots = papers.ROOT / "benchmarks" / "results" / "papers", papers.ROOT / "docs" / "papers"
    found = {name: results.stored(data / f"{name}.json") for name in papers.FIGURES}
    found = {name: result for name, result in found.items() if result}
    assert (papers.ROOT / "docs" / "papers.md").read_text(encoding="utf-8") == page.page(
        papers.FIGURES, found, "papers"
    )
    assert {path.stem for path in plots.iterdir()} == set(found)


def test_what_was_not_reached_is_no_number():
    assert first_at_most([0, 10, 20], [1.0, 0.2, 0.1], 0.3) == 10.0
    assert page.number(first_at_most([0, 10], [1.0, 0.9], 0.3)) == "-"
    assert results.spread(Row("", "", of_case({"a": [{"end": None}, {"end": 2.0}]}, "a", "end"), True)) == (
        2.0,
        2.0,
        2.0,
    )


def test_colours_differ_in_grey_print():
    levels = [style.lightness(colour) for colour in style.COLOURS]
    assert all(after - before > 0.08 for before, after in itertools.pairwise(levels))
