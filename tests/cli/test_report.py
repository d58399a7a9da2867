"""lae-fast report: one page that refers to nothing outside itself, with the numbers and pictures of the model."""

import base64
import html.parser
import json
import shutil
import subprocess
import types

import numpy as np
import pytest

from lae_fast import cli
from lae_fast.cli import report
from lae_fast.cli.pictures import Rows
from lae_fast.selection import Choice

VOID = {"meta", "img", "br"}


class Page(html.parser.HTMLParser):
    """Checks that tags are closed in order; collects pictures, cells, and what is loaded from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.pictures, self.cells, self.outside, self.text = [], [], [], [], text
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        attributes = dict(attributes)
        if tag == "img":
            self.pictures.append(attributes)
        for name in ("src", "href", "data", "action", "srcset"):
            if name in attributes and not attributes[name].startswith("data:"):
                self.outside.append(attributes[name])
        if tag in ("script", "link", "iframe", "object"):
            self.outside.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


META = {"options": {"input": "<b>x</b>.npy", "quiet": False}, "solver": "gram", "route_reason": "a < b"}
META["converged"] = True


def pca_model(d=6, p=3):
    """What the page reads of a fitted model, made without a fit."""
    axes, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((d, p)))
    variances = np.array([0.9, 0.4, 0.1])[:p]
    return types.SimpleNamespace(
        components_=axes.T,
        explained_variance_=variances,
        explained_variance_ratio_=variances / 1.6,
        residuals_=np.full(p, 2e-7),
        noise_variance_=0.05,
        mean_=np.zeros(d),
        n_samples_=40,
        scale_=np.ones(d),
        choice_=Choice("parallel", p, np.full(d, 0.08)),
    )


def test_the_page_stands_alone_and_has_the_numbers():
    rows = Rows(np.random.default_rng(1).standard_normal((40, 3)), np.arange(40) % 2, 40)
    page = Page(report.page(pca_model(), {**META, "choice": "parallel"}, "out.npz", rows))
    assert page.outside == [] and "url(" not in page.text and "@import" not in page.text
    kinds = [picture["alt"].split(":")[0] for picture in page.pictures]
    assert kinds == ["Variance explained", "Rows", "Rows and columns", "Correlations", *["Loadings"] * 3]
    for picture in page.pictures:
        head, data = picture["src"].split(",", 1)
        start = base64.b64decode(data)[:5]
        assert start == (b"<?xml" if "svg" in head else b"\x89PNG\r")
    numbers = ("0.900000", "56.2500%", "81.2500%", "2.0e-07")
    for cell in (*numbers, "gram", "a < b", "yes", "parallel", "input=<b>x</b>.npy"):
        assert cell in page.cells
    assert "<b>x" not in page.text  # names are text, not tags


def test_images_replace_loadings():
    page = Page(report.page(pca_model(), META, "out.npz", None, (2, 3)))
    assert [picture["alt"].split(":")[0] for picture in page.pictures][-1] == "Components as images"
    assert len(page.pictures) == 3


def test_the_page_of_an_autoencoder_shows_its_history():
    model = pca_model()
    for name in ("explained_variance_ratio_", "residuals_", "n_samples_", "scale_", "choice_"):
        delattr(model, name)
    model.encoder_ = model.components_
    model.alignment_residuals_ = np.full(3, 1e-3)
    model.history_ = {"iteration": np.arange(5), "loss": np.linspace(2.0, 1.0, 5)}
    page = Page(report.page(model, META, "model.npz"))
    assert page.pictures[0]["alt"].startswith("Training") and "1.0e-03" in page.cells


@pytest.fixture
def made(tmp_path, monkeypatch, capfd):
    """report.html of digits, by the command line; what it printed."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["pca", "digits", "-k", "8", "-o", "digits.npz", "-q"]) == 0
    capfd.readouterr()
    assert cli.main(["report", "digits.npz", "digits", "--image", "8x8", "-o", "report.html", "--json"]) == 0
    return tmp_path, json.loads(capfd.readouterr().out)


@pytest.mark.needs_jit
def test_report_of_digits(made, capfd):
    here, said = made
    text = (here / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.outside == [] and len(page.pictures) == 3
    assert said["output"] == "report.html" and said["bytes"] == len(text.encode())
    np.save(here / "x.npy", np.eye(3))
    for arguments, message in (
        (["digits.npz", "-o", "report.txt"], "the result is a .html file"),
        (["digits.npz", "-o", "digits.npz"], "it would be overwritten"),
        (["nothing.npz", "-o", "r.html"], "does not exist"),
        (["x.npy", "-o", "r.html"], "name the data after it: lae-fast report model.npz x.npy -o r.html"),
    ):
        assert cli.main(["report", *arguments]) == 2
        assert message in capfd.readouterr().err


@pytest.mark.needs_jit
def test_a_browser_shows_the_page(made):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here: install Debian's package chromium")
    here, _ = made
    check = "<script>onload = () => { document.title = [...document.images].map(i => i.naturalWidth > 99) }"
    text = (here / "report.html").read_text(encoding="utf-8")
    (here / "checked.html").write_text(text.replace("</body>", f"{check}</script></body>"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=10000"]
    profile = f"--user-data-dir={here / 'profile'}"
    shown = subprocess.run(
        [browser, *flags, profile, "--dump-dom", (here / "checked.html").as_uri()],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert "<title>true,true,true</title>" in shown.stdout  # every picture was decoded
    assert "How it was computed" in shown.stdout
