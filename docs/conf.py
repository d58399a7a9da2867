"""How Sphinx makes the site of these pages: `python -m sphinx -W docs docs/_build`, with the extra `docs`.

Pages are Markdown that reads well on GitHub too, and docstrings are plain text. What Sphinx wants otherwise is done
here. Mathematics becomes MathML, which browsers draw without a script: the site needs nothing from the network.
"""

import html
import importlib.util
import os
import re
from xml.etree import ElementTree

import latex2mathml.converter
from docutils.nodes import SkipNode

from lae_fast import __version__

os.environ["NUMBA_DISABLE_JIT"] = "1"  # kernels are then plain functions, which have signatures

project = author = copyright = "lae_fast"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "literal"
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
autodoc_typehints = "none"  # docstrings say more: shapes, units, dtypes
autodoc_mock_imports = [] if importlib.util.find_spec("torch") else ["torch"]
napoleon_google_docstring = False
napoleon_use_param = napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]
html_theme, html_title = "furo", "lae_fast"
html_static_path, html_css_files = ["_static"], ["site.css"]
html_show_copyright = html_show_sourcelink = html_copy_source = False
html_math_renderer = "mathml"
highlight_language = "text"  # of what stands after :: in docstrings; examples are Python all the same


# What napoleon has made of a line, which stays, and the text after it.
_FIELD = re.compile(r"(\s*(?:\.\. .*|(?::[^:]*:)? *(?:(?:\* )?\*\*.*?(?: -- |$)|\*[^*]+\*(?= -- |$))?))(.*)", re.DOTALL)


def plain_dollars(app, page, text):
    """GitHub's $`x_1$`, where underscores are safe, is $x_1$ here."""
    text[0] = re.sub(r"\$`(.+?)`\$", r"$\1$", text[0])


def plain_text(app, what, name, thing, options, lines):
    """In docstrings `|`, `*` and a last `_` are what they are, no markup; those of kernels are set as they stand."""
    if what == "function" and re.fullmatch(r"lae_fast\.kernels\.\w+", name):
        lines[:] = ["::", "", *(f"   {line}" for line in lines), ""]
        return
    in_example = False
    for i, line in enumerate(lines):
        in_example = bool(line.strip()) and (in_example or line.lstrip().startswith(">>>"))
        if in_example:
            continue  # what Python prints
        field, text = _FIELD.fullmatch(line).groups()
        parts = re.split(r"(`+[^`]+`+)", text)
        parts[::2] = [re.sub(r"([|*]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
        lines[i] = field + re.sub(r"docs/([\w-]+)\.md", r":doc:`/\1`", "".join(parts))


def of_scikit_learn(app, what, name, thing, skip, options):
    """Whether a member is inherited from there, and documented there; None leaves the choice to autodoc."""
    return True if (getattr(thing, "__module__", None) or "").startswith("sklearn.") else None


def mathml(equation, display="inline"):
    """A prime stands beside its letter: it is high by itself, and as an exponent too small to be seen."""
    root = latex2mathml.converter.convert_to_element(equation, display=display)
    for power in [one for one in root.iter() if one.tag in ("msup", "msubsup")]:
        *base, prime = power
        if prime.text in ("&#x02032;", "&#x02033;"):
            power.tag, prime.tag, prime.attrib = "mrow", "mo", {"lspace": "0", "rspace": "0"}
            if len(base) > 1:
                letter = ElementTree.Element("msub")
                letter.extend(base)
                base = [letter]
            power[:] = [*base, prime]
    return html.unescape(ElementTree.tostring(root, encoding="unicode"))


def inline_math(self, node):
    self.body.append(mathml(node.astext()))
    raise SkipNode


def displayed_math(self, node):
    equation, _, number = re.fullmatch(r"(.*?)(\\tag\{(\d+)\}\s*)?", node.astext(), re.DOTALL).groups()
    tag = f'<span id="equation-{number}">({number})</span>' if number else ""
    self.body.append(f'<div class="equation"><div>{mathml(equation, "block")}</div>{tag}</div>\n')
    raise SkipNode


def setup(app):
    app.connect("source-read", plain_dollars)
    app.connect("autodoc-process-docstring", plain_text, priority=600)  # after napoleon
    app.connect("autodoc-skip-member", of_scikit_learn)
    app.add_html_math_renderer("mathml", (inline_math, None), (displayed_math, None))
