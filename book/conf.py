"""Sphinx's settings for the web book; `make book` gathers the pages and calls Sphinx (deepnet_edu/course/book.py)."""

from itertools import pairwise

import deepnet_edu

project = "deepnet_edu"
author = "the authors of deepnet_edu"
copyright = "the authors of deepnet_edu, MIT licence"
release = deepnet_edu.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]

# Notebooks are executed by `make build`, and shown as they are.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # it would come from a CDN; widgets have their picture beside them
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "text/html", 5), ("html", "image/png", 8)]
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type", "mystnb.lexer"]

# MathJax is shipped: a reader needs no network.
mathjax_path = "mathjax/tex-mml-chtml.js"
mathjax3_config = {
    "tex": {"processEscapes": True},
    "options": {"enableMenu": False},  # its menu loads parts that are not shipped
}

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields that a docstring explains and autodoc finds would be said twice
python_use_unqualified_type_names = True
nitpicky = False

html_theme = "sphinx_book_theme"
html_title = "A thousand layers deep"
html_favicon = "icon.svg"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_persistent": [],  # the side bar has the search
    "show_toc_level": 2,
    "max_navbar_depth": 1,  # without the switches of nested pages
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navigation_with_keys": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def tables(app, what, name, obj, options, lines):
    """A Markdown table of a docstring, which reStructuredText would take for something else, is shown as it stands."""
    result = []
    for before, line in pairwise(["", *lines]):
        inside, was = line.lstrip().startswith("|"), before.lstrip().startswith("|")
        if inside and not was:
            result += ["", ".. code-block:: text", ""]
        absolute = line if "``" in line else line.replace("|", r"\|")  # bars of a size, not of a substitution
        result.append(f"   {line.strip()}" if inside else absolute)
        if was and not inside:
            result.insert(-1, "")
    lines[:] = result


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", tables)
