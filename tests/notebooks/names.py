"""What the cells of a lesson need of each other, whichever exercises are solved.

Nothing is run: Python's compiler says which names of the notebook a cell reads, binds and deletes.
"""

import ast
import builtins
import dis
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from types import CodeType

from IPython.core.inputtransformer2 import TransformerManager

_READ = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}
_BIND = {"STORE_NAME", "STORE_GLOBAL"}
_DELETE = {"DELETE_NAME", "DELETE_GLOBAL"}
#: Functions in the compiler's eyes that run where they stand.
_AT_ONCE = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}
#: By these a cell can bind what stands nowhere in it; a magic is a call of the last one.
_HIDDEN = {"exec", "eval", "globals", "locals", "get_ipython"}
_KNOWN = {*dir(builtins), "display", "__annotations__", "__conditional_annotations__"} - _HIDDEN


@dataclass
class Names:
    """The names of the notebook in a cell.

    Attributes:
        needed: read when the cell runs, and not bound in it before.
        later: read when somebody calls a function of the cell.
        bound: there after the cell.
        deleted: no longer there.
    """

    needed: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    bound: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)


@cache
def names(source: str) -> Names:
    """The names of a cell.

    Args:
        source: of the cell, magics and all.
    """
    found = Names()
    text = TransformerManager().transform_cell(source)
    _look(compile(text, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), found, at_once=True, own=None)
    return found


def _look(code: CodeType, found: Names, *, at_once: bool, own: set[str] | None) -> None:
    """Add the names of ``code``, in the order in which they stand.

    Args:
        code: of a cell, or of a function or class in it.
        found: what is added to.
        at_once: whether it runs with the cell, and not when it is called.
        own: what a class has bound in its body; None for anything else.
    """
    for step in dis.get_instructions(code):
        name = step.argval
        if isinstance(name, CodeType):
            function = bool(name.co_flags & inspect.CO_OPTIMIZED)
            runs = at_once and (not function or name.co_name in _AT_ONCE)
            _look(name, found, at_once=runs, own=None if function else set())
        elif "IMPORT_STAR" in step.opname + step.argrepr:
            found.needed.add("*")
        elif own is not None and step.opname == "STORE_NAME":
            own.add(name)
        elif step.opname in _BIND:
            found.bound.add(name)
            found.deleted.discard(name)
        elif step.opname in _DELETE:
            found.bound.discard(name)
            found.deleted.add(name)
        elif step.opname in _READ and name not in (own or ()):
            if not at_once:
                found.later.add(name)
            elif name not in found.bound:
                found.needed.add(name)


def faults(cells: Sequence[tuple[str, str]]) -> list[str]:
    """Why some way through a lesson could meet a name that is not there, or is another's; a sentence each.

    There are as many ways as sets of exercises, and they differ in nothing that a cell sees of the others if both forms
    of an exercise's cell leave the same names behind, and do nothing else. A function need not be called at once, but
    what it reads must be there when its cell is over.

    Args:
        cells: each cell's source where the exercises are open, and where they are solved.
    """
    forms = [(names(unsolved), names(solved)) for unsolved, solved in cells]
    known, said = set(_KNOWN), list[str]()
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
