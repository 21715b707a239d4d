"""The cells of a notebook as text: which names each reads and binds, and what a function needs to run elsewhere.

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
#: Functions to the compiler, which run where they are written.
_AT_ONCE = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}
#: By these a cell can bind a name that is nowhere in it; a magic is a call of the last one.
_HIDDEN = {"exec", "eval", "globals", "locals", "get_ipython"}
KNOWN = {*dir(builtins), "display", "__annotations__", "__conditional_annotations__"} - _HIDDEN


@dataclass
class Names:
    """The names of the notebook in a cell.

    Attributes:
        needed: read when the cell runs, and not bound in it before.
        later: read when a function of the cell is called.
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
    """Add the names of ``code``, in the order in which they are written.

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


def needed_for(name: str, cells: Sequence[str]) -> str:
    """The statements of a notebook that bind ``name`` and what it uses, in their order, so that it can run elsewhere.

    What a statement needs when it runs is what the last one before it has bound; what a function reads when it is
    called, what the last of all has. No statement counts that hands a name to ``kit.mine_or_reference``.

    Args:
        name: of a function, or whatever is called as one.
        cells: sources, in the order in which they ran; those that Python cannot read are left out.

    Returns:
        Python's source; without a statement that binds ``name`` if there is none.
    """
    statements = [one for cell in cells for one in _statements(cell)]
    found = [names(one) for one in statements]
    taken = {place for place, one in enumerate(found) if "*" in one.needed}  # what they import cannot be known
    wanted = [(name, len(found))]
    while wanted:
        one, end = wanted.pop()
        place = next((i for i in reversed(range(end)) if one in found[i].bound), None)
        if place is not None and place not in taken:
            taken.add(place)
            wanted += [(other, place) for other in found[place].needed]
            wanted += [(other, len(found)) for other in found[place].later]
    return "\n\n\n".join(statements[i] for i in sorted(taken))


@cache
def _statements(cell: str) -> list[str]:
    try:
        body = ast.parse(TransformerManager().transform_cell(cell)).body
        found = [ast.unparse(one) for one in body if "mine_or_reference(" not in ast.unparse(one)]
        return [one for one in found if names(one)]
    except (SyntaxError, ValueError):
        return []
