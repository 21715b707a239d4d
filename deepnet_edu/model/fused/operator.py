"""LN(αx + f + b) as one operation of PyTorch: by the kernels where they can run, by their formulas elsewhere.

An operation of its own, ``torch.ops.deepnet_edu.add_norm``, is the same to autograd, to torch.compile, which does not
look inside, and to a CUDA graph.
"""

import os
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

__all__ = ["add_norm", "interpreted", "why_not"]


def interpreted() -> bool:
    """Whether kernels are run by Triton's interpreter, on a CPU, which is for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not(x: Tensor) -> str:
    """Why no kernel can run on a tensor's device, a clause; empty if one can."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    if not x.is_cuda and not interpreted():
        return f"Triton's kernels run on CUDA, and x is on {x.device}"
    return ""


def _kernels(x: Tensor) -> Any:
    """The file of kernels, or None: it needs Triton."""
    if why_not(x):
        return None
    from deepnet_edu.model.fused import kernels

    return kernels if x.shape[-1] <= kernels.WIDEST else None


def add_norm(
    x: Tensor,
    f: Tensor,
    branch_bias: Tensor | None,
    alpha: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    *,
    centred: bool = True,
    total: bool = False,
    narrow: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """y = LN(u) of u = αx + f + b, with what else is wanted of it.

    Args:
        x: (…, d), the stream.
        f: (…, d), what the branch gave, in the same precision or a narrower one.
        branch_bias: b, (d,), the bias that the branch's last matrix left out, or None.
        alpha: one number, which learns nothing, or None for 1.
        weight: γ, (d,).
        bias: β, (d,), or None.
        eps: of the norm.
        centred: LayerNorm; else RMSNorm.
        total: whether u is wanted too, in x's precision; y then is LN of that, in f's precision: a branch reads it.
        narrow: whether y is wanted in f's precision too.

    Returns:
        y, u, and y in f's precision; empty where not asked for.
    """
    found = torch.ops.deepnet_edu.add_norm(x, f, branch_bias, alpha, weight, bias, eps, centred, total, narrow)
    return found[0], found[1], found[2]


@torch.library.custom_op("deepnet_edu::add_norm", mutates_args=())
def _forward(
    x: Tensor,
    f: Tensor,
    branch_bias: Tensor | None,
    alpha: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    centred: bool,
    total: bool,
    narrow: bool,
) -> list[Tensor]:
    """y, u, y in f's precision, mean and 1/std of the rows; empty what is not asked for."""
    kernels = _kernels(x)
    if kernels is not None:
        made: list[Tensor] = kernels.launch_forward(x, f, branch_bias, alpha, weight, bias, eps, centred, total, narrow)
        return made
    wide = torch.promote_types(x.dtype, torch.float32)
    u = _sum(x, f, branch_bias, alpha, wide)
    found = u.to(x.dtype)
    u = found.to(wide) if total else u
    mean = u.mean(-1) if centred else x.new_empty(0, dtype=wide)
    u = u - mean.unsqueeze(-1) if centred else u
    rstd = (u.square().mean(-1) + eps).rsqrt()
    y = u * rstd.unsqueeze(-1) * weight
    y = y if bias is None else y + bias
    copy = y.to(f.dtype, copy=True) if narrow else f.new_empty(0)
    return [
        y.to(f.dtype if total else x.dtype),
        found if total else x.new_empty(0),
        copy,
        mean.flatten(),
        rstd.flatten(),
    ]


@torch.library.custom_op("deepnet_edu::add_norm_backward", mutates_args=())
def _backward(
    dy: Tensor,
    d_total: Tensor | None,
    d_narrow: Tensor | None,
    x: Tensor,
    f: Tensor,
    branch_bias: Tensor | None,
    alpha: Tensor | None,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    bias: bool,
    centred: bool,
    f_dtype: torch.dtype,
) -> list[Tensor]:
    """Gradients of x, f, b, γ and β, empty where there is no such thing; of x too where it is that of f.

    x is u itself, and f anything, where u has a gradient of its own.
    """
    kernels = _kernels(x)
    if kernels is not None:
        made: list[Tensor] = kernels.launch_backward(
            dy, d_total, d_narrow, x, f, branch_bias, alpha, weight, mean, rstd, bias, centred, f_dtype
        )
        return made
    wide, rows = rstd.dtype, tuple(range(x.dim() - 1))
    u = _sum(x, f, branch_bias, alpha, wide) if d_total is None else x.to(wide)
    u = u - mean.view(*x.shape[:-1], 1) if centred else u
    scale = rstd.view(*x.shape[:-1], 1)
    normal, g = u * scale, dy.to(wide)
    g = g if d_narrow is None else g + d_narrow
    d_weight, d_bias = (g * normal).sum(rows), g.sum(rows) if bias else rstd.new_empty(0)
    g = g * weight
    du = g - normal * (g * normal).mean(-1, keepdim=True)
    du = scale * (du - g.mean(-1, keepdim=True) if centred else du)
    du = du if d_total is None else du + d_total
    d_branch = rstd.new_empty(0) if branch_bias is None else du.sum(rows)
    one = alpha is None and x.dtype == f_dtype
    dx = x.new_empty(0) if one else (du if alpha is None else du * alpha).to(x.dtype, copy=True)
    return [dx, du.to(f_dtype), d_branch, d_weight, d_bias]


def _sum(x: Tensor, f: Tensor, branch_bias: Tensor | None, alpha: Tensor | None, wide: torch.dtype) -> Tensor:
    """αx + f + b, as wide as asked for."""
    u = x.to(wide) if alpha is None else alpha.to(wide) * x.to(wide)
    u = u + f.to(wide)
    return u if branch_bias is None else u + branch_bias


@_forward.register_fake
def _shapes(x: Any, f: Any, branch_bias: Any, alpha: Any, weight: Any, bias: Any, eps: float, *flags: bool) -> Any:
    centred, total, narrow = flags
    rows, wide = x.numel() // x.shape[-1], torch.promote_types(x.dtype, torch.float32)
    u = torch.empty_like(x, memory_format=torch.contiguous_format)
    y = torch.empty_like(u, dtype=f.dtype if total else x.dtype)
    copy = torch.empty_like(u, dtype=f.dtype) if narrow else f.new_empty(0)
    mean = x.new_empty(rows if centred else 0, dtype=wide)
    return [y, u if total else x.new_empty(0), copy, mean, x.new_empty(rows, dtype=wide)]


@_backward.register_fake
def _shapes_backward(
    dy: Any, d_total: Any, d_narrow: Any, x: Any, f: Any, branch_bias: Any, alpha: Any, weight: Any, mean: Any,
    rstd: Any, bias: bool, centred: bool, f_dtype: torch.dtype,
) -> Any:  # fmt: skip
    df = torch.empty_like(x, dtype=f_dtype, memory_format=torch.contiguous_format)
    one = alpha is None and x.dtype == f_dtype
    dx = x.new_empty(0) if one else torch.empty_like(x, memory_format=torch.contiguous_format)
    d = x.shape[-1]
    sums = (d if one else 0 for one in (branch_bias is not None, True, bias))
    return [dx, df, *(rstd.new_empty(size) for size in sums)]


def _keep(ctx: Any, inputs: Any, output: list[Tensor]) -> None:
    x, f, branch_bias, alpha, weight, bias, _, centred, total, narrow = inputs
    _, u, _, mean, rstd = output
    # Of x and f nothing is kept where the sum is.
    ctx.save_for_backward(*((u, u) if total else (x, f)), branch_bias, alpha, weight, mean, rstd)
    ctx.dtypes = f.dtype, weight.dtype, None if bias is None else bias.dtype
    ctx.asked = centred, total, narrow


def _gradients(ctx: Any, gradients: list[Tensor]) -> tuple[Any, ...]:
    x, f, branch_bias, alpha, weight, mean, rstd = ctx.saved_tensors
    (f_dtype, weight_dtype, bias_dtype), (centred, total, narrow) = ctx.dtypes, ctx.asked
    dy, d_total, d_narrow = gradients[:3]
    dx, df, d_branch, d_weight, d_bias = torch.ops.deepnet_edu.add_norm_backward(
        dy, d_total if total else None, d_narrow if narrow else None, x, f, branch_bias, alpha, weight, mean, rstd,
        bias_dtype is not None, centred, f_dtype,
    )  # fmt: skip
    dx = df if alpha is None and x.dtype == f_dtype else dx
    return (
        dx,
        df,
        None if branch_bias is None else d_branch.to(branch_bias.dtype),
        None,
        d_weight.to(weight_dtype),
        None if bias_dtype is None else d_bias.to(bias_dtype),
        *[None] * 4,
    )


_forward.register_autograd(_gradients, setup_context=_keep)
