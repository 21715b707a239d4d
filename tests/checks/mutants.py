"""Generated wrong answers: small changes of a right one, one at a time, on its syntax tree."""

import ast
import copy
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

_SWAPS: dict[type, list[type]] = {
    ast.Add: [ast.Sub, ast.Mult],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Add, ast.Div],
    ast.Div: [ast.Mult],
    ast.Pow: [ast.Mult],
}


BUILTINS = {"range", "sum", "np", "nn", "torch", "sqrt", "comb"}


def _changed(node: ast.AST, arguments: list[str]) -> Iterator[ast.AST]:
    """The ways to change one node: operators swapped, constants changed, values off by one, arguments exchanged or
    dropped, a call or a line forgotten."""
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
    elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
        yield ast.Tuple(node.elts[::-1], ast.Load())
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in BUILTINS:
        yield ast.BinOp(node, ast.Add(), ast.Constant(1))
        yield ast.BinOp(node, ast.Sub(), ast.Constant(1))
        yield from (ast.Name(other, ast.Load()) for other in arguments if node.id in arguments and other != node.id)
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


def mutants(source: str) -> list[str]:
    """Every single change of ``source``, as source; what does not parse again is left out."""
    tree = ast.parse(source)
    arguments = [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    places = [(i, new) for i, node in enumerate(ast.walk(tree)) for new in _changed(node, arguments)]
    result = []
    for index, new in places:
        changed = copy.deepcopy(tree)
        target = list(ast.walk(changed))[index]

        class Replace(ast.NodeTransformer):
            def visit(self, node: ast.AST, target: ast.AST = target, new: ast.AST = new) -> ast.AST:
                return copy.deepcopy(new) if node is target else self.generic_visit(node)

        text = ast.unparse(ast.fix_missing_locations(Replace().visit(changed)))
        if text not in result and text != ast.unparse(tree):
            result.append(text)
    return result


def function(source: str, name: str, module: ModuleType) -> Callable[..., Any]:
    """The function ``name`` that ``source`` defines, with all that stands in ``module`` at hand."""
    space: dict[str, Any] = {**vars(module), "__name__": "an answer"}
    exec(source, space)
    return space[name]


def equal_everywhere(
    a: Callable[..., Any], b: Callable[..., Any], observe: Callable[[Callable[..., Any], np.random.Generator], Any]
) -> bool:
    """Whether two functions agree on 1,000 random inputs in float64: then a mutant is no mutant."""
    for seed in range(1000):
        try:
            x, y = (np.asarray(observe(f, np.random.default_rng(seed)), float) for f in (a, b))
        except Exception:
            return False
        if x.shape != y.shape or not np.allclose(x, y, rtol=1e-9, atol=1e-12, equal_nan=False):
            return False
    return True
