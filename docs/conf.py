"""Sphinx: pages in Markdown, notebooks executed, reference from the docstrings.

`.ci/docs` builds the site in docs/_build/html, which needs no network to be read:
formulas are MathML, which browsers draw by themselves, and their font is in the site.
"""

import os
import re
from pathlib import Path
from typing import Any

import jupytext
import ziamath
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from jax.typing import ArrayLike
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import stringify_annotation

import jaxpoly

DOCS = Path(__file__).parent
# The notebooks use the experiments, which are in the repository and not in the package.
os.environ["PYTHONPATH"] = str(DOCS.parent)
# The tutorial is a script in cells, so that it runs without a notebook too.
os.environ["JAXPOLY_TUTORIAL_SMALL"] = "1"
jupytext.write(jupytext.read(DOCS / "tutorial.py"), DOCS / "tutorial.ipynb")

logger = logging.getLogger(__name__)

project = "jaxpoly"
author = "The jaxpoly authors"
project_copyright = author
version = release = jaxpoly.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpick_ignore_regex = [
    # Other packages: their pages are not at hand without a network.
    ("py:.*", r"(jax|numpy|np|optax|collections|typing|sklearn|os)\..*"),
    ("py:.*", r"Array|ArrayLike|Any|Callable|Sequence|Literal"),
    # The type of a field of Run that only the driver reads.
    ("py:class", r"jaxpoly\.units\.Units"),
]

html_theme = "furo"
html_title = f"jaxpoly {release}"
# MathML needs a font that knows how formulas are set; STIX Two Math comes with ziamath.
html_static_path = ["static", str(Path(ziamath.__file__).with_name("fonts"))]
html_css_files = ["site.css"]
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_in_temp = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
# As a list under its own name, with names such as `neurons_` whole.
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_param = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
python_trailing_comma_in_multi_line_signatures = False
default_role = "code-or-link"


def code_or_link(name, rawtext, text, lineno, inliner, options=None, content=()):
    """Return single back-ticks as code, with a link where they are a public name."""
    literal = nodes.literal(rawtext, text)
    target = text.removeprefix("jaxpoly.")
    if target.split(".")[0] not in jaxpoly.__all__:
        return [literal], []
    link = pending_xref("", literal, refdomain="py", reftype="obj", reftarget=f"jaxpoly.{target}")
    return [link], []


def shorten_signature(app, what, name, obj, options, signature, returns):
    """Write `ArrayLike` as such, and not as the union that it stands for."""
    long = stringify_annotation(ArrayLike, "smart")

    def shorten(text: str | None) -> str | None:
        return text and text.replace(long, "ArrayLike")

    return shorten(signature), shorten(returns)


def adapt_docstring(app, what, name, obj, options, lines):
    """Show formulas and, in the sections of scikit-learn's form, types as they are.

    A formula is a paragraph that is indented for itself.
    """
    adapted, last = [], ""
    for line in lines:
        starts = line.startswith("    ") and adapted and not adapted[-1].strip()
        if starts and last and not last.startswith((" ", "-", ">>>")):
            adapted += [".. code-block:: text", ""]
        adapted.append(re.sub(r"^(\w+) : (.+)$", r"\1 : ``\2``", line))
        last = line if line.strip() else last
    lines[:] = adapted


def visit_math(self: Any, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML."""
    block = isinstance(node, nodes.math_block)
    try:
        formula = tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        logger.warning("%s: %s", error, node.astext(), location=node)
        formula = ""
    self.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the above."""
    app.add_role("code-or-link", code_or_link)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("autodoc-process-signature", shorten_signature)
    # Before napoleon, at 500, makes other paragraphs of the sections.
    app.connect("autodoc-process-docstring", adapt_docstring, priority=400)
