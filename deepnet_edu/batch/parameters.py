"""The cell of parameters: what types its names have, and what it says once some of them have other values.

Nothing of it is executed here: types follow from the source, as far as they can.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Tags of papermill's.
TAG, INJECTED = "parameters", "injected-parameters"
#: What a function of this name returns, whatever it is given.
_RETURNS: dict[str, type] = {
    "int": int, "len": int, "ord": int, "float": float, "bool": bool, "str": str, "repr": str, "list": list,
    "sorted": list, "dict": dict, "Path": Path, "PosixPath": Path, "pathlib.Path": Path, "Path.cwd": Path,
    "Path.home": Path, "pathlib.Path.cwd": Path, "pathlib.Path.home": Path, "os.getenv": str, "os.environ.get": str,
    "os.path.join": str, "math.sqrt": float, "math.log": float, "math.exp": float,
}  # fmt: skip
_ANNOTATED: dict[str, type] = {
    "int": int, "float": float, "bool": bool, "str": str, "list": list, "dict": dict, "Path": Path, "pathlib.Path": Path
}  # fmt: skip
_SAME = {"abs", "min", "max", "sum"}  # of several of a type, one of that type


def parse(source: str) -> ast.Module:
    """The cell's source as a tree.

    Raises:
        SyntaxError: it is none; Python gives up in other ways too: ValueError, RecursionError, MemoryError.
    """
    return ast.parse(source)


def defaults(source: str) -> dict[str, tuple[str, type | None]]:
    """Names of the parameters with their defaults, as written, and the types of those; None where only running the
    cell would tell."""
    found: dict[str, tuple[str, type | None]] = {}
    types: dict[str, type | None] = {}
    for node in parse(source).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
            kind = _type(value, types)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            name, value = node.target.id, node.value
            kind = _ANNOTATED.get(ast.unparse(node.annotation)) or _type(value, types)
        else:
            continue
        types[name] = kind
        found[name] = (ast.get_source_segment(source, value) or "", kind)
    return found


def injected(source: str, values: Mapping[str, Any]) -> str:
    """Source of the cell that follows the one of the parameters.

    Where anything there is computed from a parameter that is set, the whole cell comes again with the values in place
    of the defaults, as if they had been typed there.

    Args:
        source: of the cell of parameters; it need not be Python where no values are set.
        values: by name, as they came out of JSON.
    """
    known = defaults(source)
    texts = {
        name: f"type({name})({value!r})" if known.get(name, ("", None))[1] is Path else repr(value)
        for name, value in values.items()
    }
    tree = parse(source)
    lines = [f"{name} = {text}" for name, text in texts.items()]
    if any(_depends(node, values) for node in tree.body):
        lines = ast.unparse(ast.fix_missing_locations(_Set(texts).visit(tree))).splitlines()
    return "\n".join(["# Parameters", *lines])


class _Set(ast.NodeTransformer):
    """Puts values in the place of whatever is assigned to their names."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts

    def _assigned(self, node: Any, target: ast.expr) -> Any:
        if not (isinstance(target, ast.Name) and target.id in self.texts):
            return self.generic_visit(node)
        return ast.parse(f"{target.id} = {self.texts[target.id]}").body[0]

    def visit_Assign(self, node: ast.Assign) -> Any:
        return self._assigned(node, node.targets[0]) if len(node.targets) == 1 else self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        return self._assigned(node, node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        return self._assigned(node, node.target)


def _depends(node: ast.stmt, values: Mapping[str, Any]) -> bool:
    """Whether a statement reads one of the names, and assigns another, or one under a condition."""
    names = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
    read = {name.id for name in names if isinstance(name.ctx, ast.Load)}
    written = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    simple = isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
    return bool(read & values.keys() and (written - values.keys() if simple else written))


def _type(node: ast.expr, names: Mapping[str, type | None]) -> type | None:
    """The type of an expression, from its source; tuples count as lists, since parameters travel as JSON."""
    match node:
        case ast.Constant():
            return type(node.value)
        case ast.JoinedStr():
            return str
        case ast.List() | ast.Tuple() | ast.ListComp():
            return list
        case ast.Dict() | ast.DictComp():
            return dict
        case ast.Compare() | ast.UnaryOp(op=ast.Not()):
            return bool
        case ast.UnaryOp():
            inner = _type(node.operand, names)
            return int if inner is bool else inner
        case ast.BinOp(op=ast.Pow(), right=ast.UnaryOp()):
            return float
        case ast.BinOp():
            return _arithmetic(node.op, _type(node.left, names), _type(node.right, names))
        case ast.BoolOp():
            return _common(node.values, names)
        case ast.IfExp():
            return _common([node.body, node.orelse], names)
        case ast.Name():
            return names.get(node.id)
        case ast.Subscript(value=ast.Dict(values=values)):
            return _common(values, names)
        case ast.Subscript(value=ast.List(elts=values) | ast.Tuple(elts=values), slice=ast.Constant() | ast.Name()):
            return _common(values, names)
        case ast.Subscript(value=value) if ast.unparse(value) == "os.environ":
            return str
        case ast.Call():
            return _returned(node, names)
    return None


def _returned(node: ast.Call, names: Mapping[str, type | None]) -> type | None:
    function = ast.unparse(node.func)
    if function in ("os.getenv", "os.environ.get"):
        return _type(node.args[1], names) if len(node.args) > 1 else None  # None where it is not set
    if function == "round":
        return int if len(node.args) == 1 else float
    if function in _SAME:
        return _common(node.args, names) if len(node.args) > 1 or function == "abs" else None
    return _RETURNS.get(function)


def _arithmetic(op: ast.operator, left: type | None, right: type | None) -> type | None:
    numbers = {bool, int, float}
    if left in numbers and right in numbers:
        return float if isinstance(op, ast.Div) or float in (left, right) else int
    if left is Path and isinstance(op, ast.Div):
        return Path
    if left in (str, list) and (right in (left, int) or isinstance(op, ast.Mod)):
        return left
    return None


def _common(nodes: list[ast.expr], names: Mapping[str, type | None]) -> type | None:
    """The type that all of them have; a number if some are whole and some are not."""
    kinds = {_type(node, names) for node in nodes}
    return kinds.pop() if len(kinds) == 1 else float if kinds == {int, float} else None
