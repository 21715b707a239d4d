"""The kernels, in Triton: LN(αx + f + b) in one pass over memory forward and one backward.

Several rows are one tile, (ROWS, BLOCK), BLOCK the width rounded up to a power of two. All is computed in float32, of
float64 in float64, and rounded once, where it is written. What is not asked for is not compiled: the flags are
constants. ``@triton.jit`` reads ``TRITON_INTERPRET=1`` when this file is imported, and then all runs on a CPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Numbers of a tile and of a warp's share of it: the backward pass holds five tiles and three sums in registers.
FORWARD, BACKWARD = (4096, 512), (2048, 256)
#: The widest row that is one tile.
WIDEST = 4096
#: Programs of the backward pass for each processor of the device: each adds up what its rows give γ, β and the bias.
PER_PROCESSOR = 4
#: Without a GPU, for the interpreter.
PROCESSORS = 2


@triton.jit
def forward_kernel(
    x, f, b, alpha, weight, bias, y, total, narrow, mean, rstd, rows, d, x_row, f_row, eps,
    ALPHA: tl.constexpr, BRANCH_BIAS: tl.constexpr, BIAS: tl.constexpr, CENTRED: tl.constexpr, TOTAL: tl.constexpr,
    NARROW: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = LN(u), u = αx + f + b; with TOTAL u is written too, and normalised as it was rounded."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < d)
    u = tl.load(x + row * x_row + column, mask=inside, other=0).to(WIDE)
    if ALPHA:
        u *= tl.load(alpha).to(WIDE)
    u += tl.load(f + row * f_row + column, mask=inside, other=0).to(WIDE)
    if BRANCH_BIAS:
        u += tl.where(inside, tl.load(b + column, mask=column < d, other=0).to(WIDE), 0)
    if TOTAL:
        rounded = u.to(total.dtype.element_ty)
        tl.store(total + row * d + column, rounded, mask=inside)
        u = rounded.to(WIDE)
    if CENTRED:
        centre = tl.sum(u, 1) / d
        u = tl.where(inside, u - centre[:, None], 0)
        tl.store(mean + row, centre[:, None], mask=row < rows)
    scale = 1 / tl.sqrt(tl.sum(u * u, 1) / d + eps)
    tl.store(rstd + row, scale[:, None], mask=row < rows)
    out = u * scale[:, None] * tl.load(weight + column, mask=column < d, other=0).to(WIDE)
    if BIAS:
        out += tl.load(bias + column, mask=column < d, other=0).to(WIDE)
    tl.store(y + row * d + column, out.to(y.dtype.element_ty), mask=inside)
    if NARROW:
        tl.store(narrow + row * d + column, out.to(narrow.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(
    dy, d_total, d_narrow, x, f, b, alpha, weight, mean, rstd, dx, df, d_weight, d_bias, d_branch_bias, rows, d, x_row,
    f_row,
    ALPHA: tl.constexpr, BRANCH_BIAS: tl.constexpr, BIAS: tl.constexpr, CENTRED: tl.constexpr, TOTAL: tl.constexpr,
    NARROW: tl.constexpr, TWO: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradients of x and f, and one row of sums for γ, β and b from each program; x is the sum itself with TOTAL.

    With TWO both gradients are written; else they are equal but for their names.
    """
    column = tl.arange(0, BLOCK)[None, :]
    known = column < d
    gamma = tl.load(weight + column, mask=known, other=0).to(WIDE)
    factor = tl.full((), 1, WIDE)
    if ALPHA:
        factor = tl.load(alpha).to(WIDE)
    sum_weight = tl.zeros((ROWS, BLOCK), WIDE)
    sum_bias = tl.zeros((ROWS, BLOCK), WIDE)
    sum_branch = tl.zeros((ROWS, BLOCK), WIDE)
    for tile in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row = (tile * ROWS + tl.arange(0, ROWS).to(tl.int64))[:, None]
        inside = (row < rows) & known
        u = tl.load(x + row * x_row + column, mask=inside, other=0).to(WIDE)
        if not TOTAL:
            u = u * factor + tl.load(f + row * f_row + column, mask=inside, other=0).to(WIDE)
            if BRANCH_BIAS:
                u += tl.load(b + column, mask=known, other=0).to(WIDE)
        if CENTRED:
            u -= tl.load(mean + row, mask=row < rows, other=0)
        scale = tl.load(rstd + row, mask=row < rows, other=0)
        normal = tl.where(inside, u * scale, 0)
        g = tl.load(dy + row * d + column, mask=inside, other=0).to(WIDE)
        if NARROW:
            g += tl.load(d_narrow + row * d + column, mask=inside, other=0).to(WIDE)
        sum_weight += g * normal
        if BIAS:
            sum_bias += g
        g *= gamma
        along = tl.sum(g * normal, 1) / d
        du = g - normal * along[:, None]
        if CENTRED:
            du -= (tl.sum(g, 1) / d)[:, None]
        du *= scale
        if TOTAL:
            du += tl.load(d_total + row * d + column, mask=inside, other=0).to(WIDE)
        if BRANCH_BIAS:
            sum_branch += tl.where(inside, du, 0)
        tl.store(df + row * d + column, du.to(df.dtype.element_ty), mask=inside)
        if TWO:
            tl.store(dx + row * d + column, (du * factor).to(dx.dtype.element_ty), mask=inside)
    place = tl.program_id(0).to(tl.int64) * d + tl.arange(0, BLOCK)
    whole = tl.arange(0, BLOCK) < d
    tl.store(d_weight + place, tl.sum(sum_weight, 0), mask=whole)
    if BIAS:
        tl.store(d_bias + place, tl.sum(sum_bias, 0), mask=whole)
    if BRANCH_BIAS:
        tl.store(d_branch_bias + place, tl.sum(sum_branch, 0), mask=whole)


def _wide(x: Tensor) -> tuple[torch.dtype, object]:
    """What is computed in: PyTorch's name and Triton's."""
    return (torch.float64, tl.float64) if x.dtype == torch.float64 else (torch.float32, tl.float32)


def tile(d: int, numbers: int, a_warp: int) -> dict[str, int]:
    """Rows and columns of a tile of ``numbers``, and the warps that share it, ``a_warp`` each."""
    block = max(16, 1 << (d - 1).bit_length())
    rows = max(1, numbers // block)
    return {"ROWS": rows, "BLOCK": block, "num_warps": min(16, max(4, rows * block // a_warp))}


def _rows(x: Tensor) -> Tensor:
    """(…, d) as (rows, d), the features of a row side by side."""
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.stride(-1) == 1 else flat.contiguous()


def launch_forward(
    x: Tensor, f: Tensor, branch_bias: Tensor | None, alpha: Tensor | None, weight: Tensor, bias: Tensor | None,
    eps: float, centred: bool, total: bool, narrow: bool,
) -> list[Tensor]:  # fmt: skip
    """y, the sum, the narrow copy, mean and rstd; what is not asked for is empty."""
    shape, (x, f) = x.shape, (_rows(x), _rows(f))
    rows, d = x.shape
    dtype, wide = _wide(x)
    y = torch.empty((rows, d), dtype=f.dtype if total else x.dtype, device=x.device)
    u = torch.empty((rows, d), dtype=x.dtype, device=x.device) if total else x.new_empty(0)
    copy = torch.empty((rows, d), dtype=f.dtype, device=x.device) if narrow else f.new_empty(0)
    rstd = torch.empty(rows, dtype=dtype, device=x.device)
    mean = torch.empty(rows if centred else 0, dtype=dtype, device=x.device)
    shares = tile(d, *FORWARD)
    if rows:
        forward_kernel[(triton.cdiv(rows, shares["ROWS"]),)](
            x, f, branch_bias, alpha, weight, bias, y, u, copy, mean, rstd, rows, d, x.stride(0), f.stride(0), eps,
            ALPHA=alpha is not None, BRANCH_BIAS=branch_bias is not None, BIAS=bias is not None, CENTRED=centred,
            TOTAL=total, NARROW=narrow, WIDE=wide, **shares,
        )  # fmt: skip
    return [y.view(shape), u.view(shape) if total else u, copy.view(shape) if narrow else copy, mean, rstd]


def launch_backward(
    dy: Tensor, d_total: Tensor | None, d_narrow: Tensor | None, x: Tensor, f: Tensor, branch_bias: Tensor | None,
    alpha: Tensor | None, weight: Tensor, mean: Tensor, rstd: Tensor, bias: bool, centred: bool, f_dtype: torch.dtype,
) -> list[Tensor]:  # fmt: skip
    """Gradients of x, f, b, γ and β; empty where there is no such thing, and x's where it is f's."""
    shape, (x, f, dy) = x.shape, (_rows(x), _rows(f), _rows(dy).contiguous())
    total = d_total is not None
    rows, d = x.shape
    dtype, wide = _wide(x)
    d_total = None if d_total is None else _rows(d_total).contiguous()
    d_narrow = None if d_narrow is None else _rows(d_narrow).contiguous()
    two = alpha is not None or x.dtype != f_dtype
    df = torch.empty((rows, d), dtype=f_dtype, device=x.device)
    dx = torch.empty((rows, d), dtype=x.dtype, device=x.device) if two else x.new_empty(0)
    shares = tile(d, *BACKWARD)
    processors = PROCESSORS
    if x.is_cuda:
        processors = PER_PROCESSOR * torch.cuda.get_device_properties(x.device).multi_processor_count
    programs = max(1, min(processors, triton.cdiv(rows, shares["ROWS"])))
    has = (True, bias, branch_bias is not None)
    sums = [torch.empty((programs if one else 0, d), dtype=dtype, device=x.device) for one in has]
    backward_kernel[(programs,)](
        dy, d_total, d_narrow, x, f, branch_bias, alpha, weight, mean, rstd, dx, df, *sums, rows, d, x.stride(0),
        f.stride(0),
        ALPHA=alpha is not None, BRANCH_BIAS=branch_bias is not None, BIAS=bias, CENTRED=centred,
        TOTAL=total, NARROW=d_narrow is not None, TWO=two, WIDE=wide, **shares,
    )  # fmt: skip
    d_weight, d_bias, d_branch = (
        found.sum(0) if one else found.flatten() for found, one in zip(sums, has, strict=True)
    )
    return [dx.view(shape) if two else dx, df.view(shape), d_branch, d_weight, d_bias]
