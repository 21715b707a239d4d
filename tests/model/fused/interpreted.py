"""The kernels under Triton's interpreter beside PyTorch in float64, as one JSON line.

A process of its own: Triton reads TRITON_INTERPRET when it is first imported.
"""

import itertools
import json
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deepnet_edu.model.fused import operator
from deepnet_edu.model.fused.operator import add_norm

#: Rows and features: odd numbers of both, one row, more rows than a tile has, a power of two.
SHAPES = [((3, 5), 7), ((1, 1), 33), ((2, 150), 16), ((2, 3), 64), ((4,), 1)]
FLAGS = list(itertools.product([True, False], repeat=6))


def made(shape: tuple[int, ...], d: int, layout: str, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """A tensor whose rows lie side by side, or far apart, or whose features do."""
    if layout == "columns":
        return torch.randn(d, *shape, generator=generator, dtype=dtype).movedim(0, -1)
    wide = torch.randn(*shape, d * (2 if layout == "slice" else 1), generator=generator, dtype=dtype)
    return wide[..., :d]


def off(
    shape: tuple[int, ...], d: int, flags: tuple[bool, ...], layout: str, dtypes: tuple[torch.dtype, torch.dtype]
) -> float:
    """The largest difference of outputs and gradients, over the largest number."""
    centred, branch_bias, alpha, bias, total, narrow = flags
    g = torch.Generator().manual_seed(d)
    of_x, of_f = dtypes
    weights = torch.float64 if of_x == torch.float64 else torch.float32
    x, f = made(shape, d, layout, of_x, g).requires_grad_(), made(shape, d, layout, of_f, g).requires_grad_()
    vectors = [torch.randn(d, generator=g, dtype=weights).requires_grad_() for _ in range(3)]
    b, weight, beta = vectors[0] if branch_bias else None, vectors[1], vectors[2] if bias else None
    a = torch.tensor(1.7, dtype=weights) if alpha else None
    y, u, copy = add_norm(x, f, b, a, weight, beta, 1e-5, centred=centred, total=total, narrow=narrow)
    ours = [y, *([u] if total else []), *([copy] if narrow else [])]

    inputs = [one for one in (x, f, b, weight, beta) if one is not None]
    right = {one: one.detach().double().requires_grad_() for one in inputs}
    sums = (1.7 if alpha else 1) * right[x] + right[f] + (right[b] if b is not None else 0)
    norm = F.layer_norm(sums, (d,), eps=1e-5) if centred else F.rms_norm(sums, (d,), eps=1e-5)
    normed = norm * right[weight] + (right[beta] if beta is not None else 0)
    theirs = [normed, *([sums] if total else []), *([normed] if narrow else [])]
    dys = [torch.randn(y.shape, generator=g, dtype=torch.float64).to(one.dtype) for one in ours]
    found = [*ours, *torch.autograd.grad(ours, inputs, dys)]
    expected = [*theirs, *torch.autograd.grad(theirs, list(right.values()), [dy.double() for dy in dys])]
    pairs = zip(found, expected, strict=True)
    return max(((p.double() - q).abs().max() / q.abs().max().clamp_min(1e-3)).item() for p, q in pairs)


def checked() -> bool:
    """gradcheck of all that is asked for at once."""
    g = torch.Generator().manual_seed(0)
    x, f = (torch.randn(2, 3, 5, generator=g, dtype=torch.float64).requires_grad_() for _ in range(2))
    b, weight, bias = (torch.randn(5, generator=g, dtype=torch.float64).requires_grad_() for _ in range(3))
    a = torch.tensor(1.7, dtype=torch.float64)

    def function(*given: Tensor) -> tuple[Tensor, ...]:
        x, f, b, weight, bias = given
        return add_norm(x, f, b, a, weight, bias, 1e-5, total=True, narrow=True)

    return torch.autograd.gradcheck(function, (x, f, b, weight, bias))


def main() -> None:
    """Print what was found."""
    f64, f32, bf16 = torch.float64, torch.float32, torch.bfloat16
    x = torch.zeros(2, 4)
    found: dict[str, Any] = {"kernels": operator._kernels(x) is not None, "gradcheck": checked()}
    whole = (True,) * 6
    found["float64"] = max(off(*SHAPES[i % len(SHAPES)], flags, "rows", (f64, f64)) for i, flags in enumerate(FLAGS))
    found["shapes"] = max(off(*one, whole, "rows", (f64, f64)) for one in SHAPES[:-1])
    layouts = [("slice", (5, 9)), ("columns", (2, 3))]
    found["layouts"] = max(off(shape, 12, whole, layout, (f64, f64)) for layout, shape in layouts)
    found["float32"] = off((3, 5), 33, whole, "rows", (f32, f32))
    found["half"] = max(off((3, 5), 33, (True, True, True, True, pre, False), "rows", (bf16, bf16)) for pre in (0, 1))
    found["both"] = off((3, 5), 33, (True, True, True, True, False, True), "rows", (f32, bf16))
    y, *_ = add_norm(torch.empty(0, 8), torch.empty(0, 8), None, None, torch.ones(8), None, 1e-5)
    found["no rows"] = list(y.shape)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
