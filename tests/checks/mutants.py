"""Generated wrong answers: small changes of a right one, one at a time, on its syntax tree."""

import ast
from collections.abc import Callable, Iterator
from itertools import product
from math import ceil, floor
from types import ModuleType
from typing import Any

import numpy as np
import torch

_SWAPS: dict[type, list[type]] = {
    ast.Add: [ast.Sub, ast.Mult],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Add, ast.Div],
    ast.Div: [ast.Mult, ast.FloorDiv],
    ast.FloorDiv: [ast.Div],
    ast.Pow: [ast.Mult],
}
#: What differs at exact powers and at the last step alone.
_AT_THE_EDGE: dict[type, type] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_ROUNDED = {"floor": "ceil", "ceil": "floor"}


BUILTINS = {"range", "sum", "np", "nn", "torch", "sqrt", "comb"}
#: What an answer with a memory takes for all of its arguments, which are told as texts.
REMEMBERED = ("told[:1]", "told[1:]", "told[:-1]")
#: Wrong answers that wrap a right one, WORK: no gradient; results of earlier calls, kept by some of the arguments alone
#: (and the arguments with them: an address, which many reprs name, must not be another object's later); a sum that
#: grows from call to call.
WRAPPED = (
    "def NAME(*given, **named):\n    with torch.no_grad():\n        return WORK(*given, **named)",
    *(
        "def NAME(*given, kept={}, **named):\n    told = [*map(repr, given), *map(repr, named.values())]\n"
        f"    key = repr({some})\n    if key not in kept:\n        kept[key] = WORK(*given, **named), given\n"
        "    return kept[key][0]"
        for some in REMEMBERED
    ),
    "def NAME(*given, kept=[0], **named):\n    result = WORK(*given, **named) + kept[0]\n    kept[0] = 0 * result + 1\n"
    "    return result",
)


def _changed(node: ast.AST, arguments: list[str]) -> Iterator[ast.AST]:
    """The ways to change one node: operators swapped, constants changed, values off by one, everywhere or at 0 and 1
    alone, arguments exchanged, dropped, cut off from the gradient or made whole numbers, a call or a line forgotten."""
    if isinstance(node, ast.BinOp):
        for operator in _SWAPS.get(type(node.op), []):
            yield ast.BinOp(node.left, operator(), node.right)
        yield node.left
        yield node.right
        if not isinstance(node.op, ast.Add | ast.Mult):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        for value in (node.value + 1, node.value - 1, -node.value, 2 * node.value):
            if value != node.value:
                yield ast.Constant(value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq):
        yield ast.Compare(node.left, [ast.NotEq()], node.comparators)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _AT_THE_EDGE:
        yield ast.Compare(node.left, [_AT_THE_EDGE[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
        yield ast.Tuple(node.elts[::-1], ast.Load())
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in BUILTINS:
        yield ast.BinOp(node, ast.Add(), ast.Constant(1))
        yield ast.BinOp(node, ast.Sub(), ast.Constant(1))
        if node.id in arguments:
            yield from (ast.Name(other, ast.Load()) for other in arguments if other != node.id)
            yield ast.Call(ast.Attribute(node, "detach", ast.Load()), [], [])
            yield ast.Call(ast.Name("int", ast.Load()), [node], [])
        elif node.id in _ROUNDED:
            yield ast.Name(_ROUNDED[node.id], ast.Load())
    elif isinstance(node, ast.Call):
        if len(node.args) == 1 and not node.keywords:
            yield node.args[0]  # the call is forgotten
        for i in range(len(node.args) - 1):
            exchanged = [*node.args[:i], node.args[i + 1], node.args[i], *node.args[i + 2 :]]
            yield ast.Call(node.func, exchanged, node.keywords)
        for i in range(len(node.keywords)):
            yield ast.Call(node.func, node.args, node.keywords[:i] + node.keywords[i + 1 :])
    elif isinstance(node, ast.Expr | ast.Assign | ast.For):
        yield ast.Pass()  # a line is forgotten


def _places(tree: ast.AST) -> Iterator[tuple[Any, Any]]:
    """Where each node below ``tree`` hangs, in the order of ast.walk: a list or the fields of a node, and the key."""
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if isinstance(value, ast.AST):
                yield vars(parent), name
            elif isinstance(value, list):
                yield from ((value, i) for i, item in enumerate(value) if isinstance(item, ast.AST))


def mutants(source: str) -> list[str]:
    """Every single change of ``source``, as source; each text once, and never that of ``source`` itself."""
    tree = ast.parse(source)
    arguments = [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    found = dict.fromkeys([ast.unparse(tree)])
    top = tree.body[0]
    # Of a class, its methods: what it inherits from and what it says of itself cannot be another number.
    roots = [one for one in top.body if isinstance(one, ast.FunctionDef)] if isinstance(top, ast.ClassDef) else [tree]
    for home, key in [place for root in roots for place in _places(root)]:
        node = home[key]
        for new in _changed(node, arguments):
            home[key] = new  # and nothing else changes: to copy the tree for each mutant takes ten times as long
            found[ast.unparse(tree)] = None
        home[key] = node
    if isinstance(function := tree.body[0], ast.FunctionDef):
        for name, value in product((one.arg for one in function.args.args), (0, 1)):
            line = f"if {name} is not None and {name} == {value}: {name} = {value + 1}"
            function.body.insert(0, ast.parse(line).body[0])
            found[ast.unparse(tree)] = None
            del function.body[0]
        for text in WRAPPED:
            work = f"work_of_{function.name}"
            wrapped = text.replace("NAME", function.name).replace("WORK", work)
            found[f"{ast.unparse(tree)}\n\n{work} = {function.name}\n\n{wrapped}"] = None
    return list(found)[1:]


def function(source: str, name: str, module: ModuleType) -> Callable[..., Any]:
    """The function ``name`` that ``source`` defines, with all that is in ``module`` at hand."""
    space: dict[str, Any] = {"torch": torch, "ceil": ceil, "floor": floor, **vars(module), "__name__": "an answer"}
    exec(source, space)
    return space[name]


class Observed:
    """What a function computes on random inputs in float64, each computed once, when it is first asked for.

    Args:
        function: the reference answer.
        observe: what it computes on inputs from a generator.
        draws: how many inputs two functions must agree on to be equal: then a mutant does not count.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        observe: Callable[[Callable[..., Any], np.random.Generator], Any],
        draws: int,
    ) -> None:
        self.function, self.observe, self.draws = function, observe, draws
        self.seen: list[Any] = []

    def on(self, function: Callable[..., Any], draw: int) -> Any:
        """What a function computes on the inputs of a draw."""
        return np.array(self.observe(function, np.random.default_rng(draw)), float)

    def equals(self, other: Callable[..., Any]) -> bool:
        """Whether another function computes the same on all draws; the first difference ends it."""
        for draw in range(self.draws):
            if draw == len(self.seen):
                self.seen.append(self.on(self.function, draw))
            x = self.seen[draw]
            try:
                y = self.on(other, draw)
            except Exception:
                return False
            if x.shape != y.shape or not np.allclose(x, y, rtol=1e-9, atol=1e-12, equal_nan=False):
                return False
        return True
