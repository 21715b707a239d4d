"""Generated wrong answers: small changes of a right one, one at a time, on its syntax tree."""

import ast
import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

_SWAPS: dict[type, list[type]] = {
    ast.Add: [ast.Sub, ast.Mult],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Add, ast.Div],
    ast.Div: [ast.Mult],
    ast.Pow: [ast.Mult],
}


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """The ways to change one node: operators swapped, constants changed, arguments of calls dropped or exchanged."""
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
    elif isinstance(node, ast.Call) and len(node.args) == 2 and not node.keywords:
        yield ast.Call(node.func, node.args[::-1], [])


def mutants(source: str) -> list[str]:
    """Every single change of ``source``, as source; what does not parse again is left out."""
    tree = ast.parse(source)
    places = [(i, new) for i, node in enumerate(ast.walk(tree)) for new in _changed(node)]
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


def function(source: str, name: str) -> Callable[..., Any]:
    """The function ``name`` that ``source`` defines, with what lessons import at hand."""
    space: dict[str, Any] = {"np": np, "math": math, "torch": torch, "sqrt": math.sqrt, "comb": math.comb}
    exec(source, space)
    return space[name]


def equal_everywhere(
    a: Callable[..., Any], b: Callable[..., Any], draw: Callable[[np.random.Generator], tuple]
) -> bool:
    """Whether two functions agree on 1,000 random inputs in float64: then a mutant is no mutant."""
    generator = np.random.default_rng(0)
    for _ in range(1000):
        arguments = draw(generator)
        try:
            x, y = np.asarray(a(*arguments), float), np.asarray(b(*arguments), float)
        except Exception:
            return False
        if x.shape != y.shape or not np.allclose(x, y, rtol=1e-9, atol=1e-12, equal_nan=False):
            return False
    return True
