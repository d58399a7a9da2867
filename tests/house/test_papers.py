"""The figures of the papers: what each shows, in the quick run; results are written, found again and compared."""

import json

import pytest

from benchmarks.papers import __main__ as papers
from benchmarks.papers.figure import Outcome, Row

pytestmark = pytest.mark.needs_jit


@pytest.mark.parametrize("name", papers.FIGURES)
def test_a_figure_shows_what_the_paper_says(name, tmp_path, capsys):
    assert papers.main([name, "--quick", "--out", str(tmp_path)]) == 0, capsys.readouterr().out
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert result["data"] and result["configuration"] and result["source"]
    assert all(len(row["obtained"]) >= 2 and row["holds"] for row in result["rows"])
    (tmp_path / f"{name}.json").write_text(json.dumps(result | {"seconds": 1234.0}))
    papers.main([name, "--quick", "--out", str(tmp_path)])
    assert "1234.0 s" in capsys.readouterr().out  # it is not measured again


def test_a_comparison_that_does_not_hold_is_the_exit_status(tmp_path, monkeypatch, capsys):
    figure = next(iter(papers.FIGURES.values()))
    bad = Outcome([Row("a number", "1", [2.0, 3.0], False)], {"x": [1]}, "why")
    wrong = type(figure)("wrong", "nobody", {}, lambda quick, report: bad)
    monkeypatch.setattr(papers, "FIGURES", {"wrong": wrong})
    assert papers.main(["--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "published 1, obtained 2.5 (2 to 3): DOES NOT HOLD" in said and "why" in said
    with pytest.raises(SystemExit):
        papers.main(["nothing", "--out", str(tmp_path)])
