"""MathJax, as a package brings it, for pages that need no network."""

import shutil
from importlib.util import find_spec
from pathlib import Path

_PARTS = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2")


def copy_mathjax(to: Path) -> None:
    """Copy what pages need into a folder.

    Args:
        to: the folder; its script is ``tex-mml-chtml.js``.
    """
    spec = find_spec("sphinx-mathjax-offline")
    assert spec is not None
    assert spec.origin is not None
    static = Path(spec.origin).parent / "static" / "mathjax"
    for part in _PARTS:
        target = to / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (static / part).is_dir() else shutil.copy)(static / part, target)
