"""What the cells of a lesson need of each other, whichever exercises are solved."""

import ast
from collections.abc import Sequence

from IPython.core.inputtransformer2 import TransformerManager

from deepnet_edu.course.cells import KNOWN, Names, names

__all__ = ["Names", "faults", "names"]


def faults(cells: Sequence[tuple[str, str]]) -> list[str]:
    """Why some way through a lesson could meet a name that is not there, or is another's; a sentence each.

    There are as many ways as sets of exercises, and they differ in nothing that a cell sees of the others if both forms
    of an exercise's cell leave the same names behind, and do nothing else. A function need not be called at once, but
    what it reads must be there when its cell is over.

    Args:
        cells: each cell's source where the exercises are open, and where they are solved.
    """
    forms = [(names(unsolved), names(solved)) for unsolved, solved in cells]
    known, said = set(KNOWN), list[str]()
    for number, (unsolved, solved) in enumerate(forms, 1):
        for form in (unsolved, solved):
            missing = (form.needed - known) | (form.later - form.bound - known)
            said += [f"cell {number} needs {name}, which nothing before it binds" for name in sorted(missing)]
        known = (known | unsolved.bound | solved.bound) - unsolved.deleted - solved.deleted
        differ = (unsolved.bound ^ solved.bound) | (unsolved.deleted ^ solved.deleted)
        for other, both in enumerate(forms, 1):
            read = set().union(*(form.needed | form.later for form in both)) if other != number else set()
            said += [f"cell {other} needs {name}, of cell {number} in one form alone" for name in sorted(differ & read)]
    for number, (one, other) in enumerate(cells, 1):
        if one != other and _done(one) != _done(other):
            said.append(f"cell {number} does something in one form alone")
    return list(dict.fromkeys(said))


def _done(source: str) -> list[str]:
    """What a cell does besides to import and to define."""
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    statements = ast.parse(TransformerManager().transform_cell(source)).body
    return [ast.dump(one) for one in statements if not isinstance(one, definitions)]
