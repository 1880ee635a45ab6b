"""Sphinx configuration of the documentation site; `make docs` builds it with warnings as errors."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import video_mvit  # noqa: E402
from video_mvit.cli import VERBS  # noqa: E402
from video_mvit.cli.help import help_text  # noqa: E402

project = "video_mvit"
author = "the video_mvit authors"
project_copyright = author
version = release = video_mvit.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# Classes show their own docstring and arguments, modules what they define and nothing imported.
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_default_options = {
    "members": True,
    "ignore-module-all": True,  # a class is documented where it is defined
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # those of Lightning are written for another site
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# References that cannot resolve here. The build downloads nothing, so that it works without a
# network, and has no inventories of other projects.
nitpick_ignore_regex = [
    # Names of other packages and of the standard library.
    (r"py:.*", r"(torch|nn|pl|np|numpy|PIL|av|jinja2|markupsafe|matplotlib|omegaconf)\..*"),
    (r"py:.*", r"(pytorch_lightning|lightning_fabric|torchmetrics|rich|pytorchvideo)\..*"),
    (r"py:.*", r"(collections|pathlib|datetime|fractions|types|typing|concurrent|logging)\..*"),
    (r"py:.*", r"(hashlib|contextlib|functools|os|safetensors)\..*"),
    (
        r"py:class",
        r"Any|Callable|DataclassInstance|Figure|Literal|Module|NDArray|Optimizer|Path|Sequence|Tensor"
        r"|VideoSource|video_mvit\.[a-z_.]+\.(ModelT|ManifestT|VideoT|RowT)",
    ),
    # Words before a colon that are taken for types: `optional`, and names of arguments.
    (r"py:class", r"[a-z][a-z_0-9]*(\[\w+)?"),
    # Fields of dataclasses are described in their class, kernels and networks in their own files.
    (r"py:(obj|attr)", r"video_mvit\..*"),
    (r"py:class", r"video_mvit\.kernels\..*"),
    # Types of modules that have no page here.
    (r"py:class", r"video_mvit\..*\.(DrawnObject|BatchDetections|WeightFile)"),
]

html_theme = "pydata_sphinx_theme"
html_title = "video_mvit"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_sidebars = {name: [] for name in ("index", "get_started", "architecture")}  # no subpages
html_theme_options: dict[str, Any] = {
    "logo": {"text": "video_mvit"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

# Copies what a person types, without prompts and output.
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"


class VerbHelp(Directive):
    """`video-mvit VERB --help` as a literal block, always that of the code at hand."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        verb = self.arguments[0]
        os.environ["COLUMNS"] = "80"
        summary, config, groups, bare = VERBS[verb]
        assert config, f"{verb} has no YAML file"
        text = help_text(verb, summary, config, groups, bare)
        return [nodes.literal_block(text, text, language="none")]


CODE = re.compile(r"(`+[^`]*`+)")
MARKUP = re.compile(r"[*|]|(?<=\w)_\b(?!_)")


COLON = "\ue000"  # stands for one that is no field of napoleon's


def escape_docstring(
    _app: Sphinx, what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Make reStructuredText of docstrings, which are plain text with `code` in single backticks."""
    for i, line in enumerate(lines):
        parts = CODE.split(line)
        for j, part in enumerate(parts):
            is_code = j % 2 == 1
            parts[j] = f"``{part.strip('`')}``" if is_code else escape(part)
        lines[i] = "".join(parts)
        if what in ("property", "attribute"):
            lines[i] = lines[i].replace(":", COLON)  # else the words before it become a type


def escape(text: str) -> str:
    return MARKUP.sub(lambda match: "\\" + match[0], text)


def restore_colons(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    lines[:] = [line.replace(COLON, ":") for line in lines]


def setup(app: Sphinx) -> None:
    app.add_directive("verb-help", VerbHelp)
    app.connect("autodoc-process-docstring", escape_docstring, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", restore_colons, priority=600)
