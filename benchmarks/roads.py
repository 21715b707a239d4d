"""The roads to a cheap layer, each alone, at the size of benchmarks/depth.py's layer: what was there, what was tried.

Microseconds, one thread, tensors in the cache; the best of several batches of calls. Writes results/roads.json.

Run with: python benchmarks/roads.py (about a minute and a half)
"""

import json
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deepnet_edu.files import write_atomic
from deepnet_edu.model.fast import native

RESULTS = Path(__file__).parent / "results" / "roads.json"
B, T, H, D, FF = 4, 64, 4, 16, 256
R, WIDTH, LAYERS = B * T, H * D, 1000
aten = torch.ops.aten


def microseconds(call: Callable[[], Any], calls: int = 200, batches: int = 8) -> float:
    """The best mean over a batch of calls."""
    for _ in range(20):
        call()
    best = float("inf")
    for _ in range(batches):
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, (time.perf_counter() - begin) / calls)
    return round(1e6 * best, 1)


def attention() -> dict[str, float]:
    """Forward and backward, from packed query, key, value to the input of the output projection."""
    qkv, d_o = torch.randn(R, 3 * WIDTH), torch.randn(R, WIDTH)
    q, k, v = (t.transpose(1, 2) for t in qkv.view(B, T, 3, H, D).unbind(2))
    heads = d_o.view(B, T, H, D).transpose(1, 2)
    forward, backward = (
        aten._scaled_dot_product_flash_attention_for_cpu,
        aten._scaled_dot_product_flash_attention_for_cpu_backward,
    )
    o, lse = forward(q, k, v, 0.0, True)

    def own() -> None:
        forward(q, k, v, 0.0, True)
        backward(heads, q, k, v, o, lse, 0.0, True)

    found = {"PyTorch's own": microseconds(own)}
    found["products of batches, weights kept"] = microseconds(by_products(qkv, d_o))
    found["the same in two halves, which see less of the mask"] = microseconds(in_halves(qkv, d_o))
    library, _ = native.load()
    if library is not None:
        o, lse, d_qkv = torch.empty(R, WIDTH), torch.empty(B, H, T), torch.empty_like(qkv)
        at = [[t.data_ptr() + 4 * WIDTH * i for i in range(3)] for t in (qkv, d_qkv)]
        sizes = (3 * WIDTH, 3 * WIDTH, B, T, T, H, D, 1, D**-0.5)

        def compiled() -> None:
            library.attention_forward(*at[0], o.data_ptr(), lse.data_ptr(), *sizes)
            library.attention_backward(*at[0], o.data_ptr(), lse.data_ptr(), d_o.data_ptr(), *at[1], *sizes)

        found["compiled, weights computed again"] = microseconds(compiled)
    return found


def by_products(qkv: Tensor, d_o: Tensor) -> Callable[[], None]:
    """Batched products over heads, forward and backward, every tensor in its place."""
    mask = torch.full((T, T), -torch.inf).triu_(1)
    packed, packed_d = torch.empty(3, B * H, T, D), torch.empty(3, B * H, T, D)
    (q, k, v), (dq, dk, dv) = packed, packed_d
    weights, d_weights, mixed = torch.empty(B * H, T, T), torch.empty(B * H, T, T), torch.empty(B * H, T, D)
    source = qkv.view(B, T, 3, H, D).permute(2, 0, 3, 1, 4)

    def call() -> None:
        packed.view(3, B, H, T, D).copy_(source)
        torch.baddbmm(mask, q, k.transpose(1, 2), alpha=0.25, out=weights)
        torch.softmax(weights, -1, out=weights)
        torch.bmm(weights, v, out=mixed)
        mixed.view(B, H, T, D).copy_(d_o.view(B, T, H, D).transpose(1, 2))
        torch.bmm(weights.transpose(1, 2), mixed, out=dv)
        torch.bmm(mixed, v.transpose(1, 2), out=d_weights)
        torch._softmax_backward_data(d_weights, weights, -1, torch.float32, grad_input=d_weights)
        torch.baddbmm(dq, d_weights, k, beta=0, alpha=0.25, out=dq)
        torch.baddbmm(dk, d_weights.transpose(1, 2), q, beta=0, alpha=0.25, out=dk)

    return call


def in_halves(qkv: Tensor, d_o: Tensor) -> Callable[[], None]:
    """Queries of the first half see half of the keys: a quarter less arithmetic, twice as many calls."""
    n = T // 2
    mask = torch.full((T, T), -torch.inf).triu_(1)
    packed = torch.empty(3, B * H, T, D)
    (q, k, v), source = packed, qkv.view(B, T, 3, H, D).permute(2, 0, 3, 1, 4)
    both, d_heads = torch.empty(2, B * H, n, D), d_o.view(B, 2, n, H, D).permute(1, 0, 3, 2, 4)
    parts = []
    for half, (rows, seen) in enumerate(((slice(0, n), n), (slice(n, T), T))):
        size = (B * H, n, seen)
        inputs = (q[:, rows], k[:, :seen], v[:, :seen], mask[rows, :seen], both[half])
        parts.append((*inputs, torch.empty(size), torch.empty(size)))
    out, dq = torch.empty(B * H, n, D), torch.empty(B * H, n, D)
    tall = [torch.empty(B * H, part[1].shape[1], D) for part in parts]

    def call() -> None:
        packed.view(3, B, H, T, D).copy_(source)
        both.view(2, B, H, n, D).copy_(d_heads)
        for (q, k, v, mask, mixed, weights, d_weights), d_keys in zip(parts, tall, strict=True):
            torch.baddbmm(mask, q, k.transpose(1, 2), alpha=0.25, out=weights)
            torch.softmax(weights, -1, out=weights)
            torch.bmm(weights, v, out=out)
            torch.bmm(weights.transpose(1, 2), mixed, out=d_keys)
            torch.bmm(mixed, v.transpose(1, 2), out=d_weights)
            torch._softmax_backward_data(d_weights, weights, -1, torch.float32, grad_input=d_weights)
            torch.baddbmm(dq, d_weights, k, beta=0, alpha=0.25, out=dq)
            torch.baddbmm(d_keys, d_weights.transpose(1, 2), q, beta=0, alpha=0.25, out=d_keys)
        for _ in ("keys", "values"):
            tall[1][:, :n].add_(tall[0])

    return call


def activation() -> dict[str, float]:
    """GELU forward, and what its backward pass needs: GELU again, and the gradient."""
    h, d = torch.randn(R, FF), torch.randn(R, FF)
    a, out = torch.empty_like(h), torch.empty_like(h)
    gelu: Any = torch._C._nn.gelu

    def again() -> None:
        gelu(h, out=a)
        gelu(h, out=a)
        aten.gelu_backward.grad_input(d, h, grad_input=out)

    found = {"PyTorch's own": microseconds(again)}
    library, _ = native.load()
    if library is None:
        return found
    at = (h.data_ptr(), a.data_ptr(), out.data_ptr())

    def compiled() -> None:
        library.gelu_forward(*at[:2], h.numel())
        out.copy_(d)
        library.gelu_backward(*at, h.numel())

    found["compiled, one exponential for both"] = microseconds(compiled)
    inductor = torch.compile(lambda d, h: (F.gelu(h), aten.gelu_backward(d, h)))
    with torch.no_grad():
        found["torch.compile"] = microseconds(lambda: (F.gelu(h), inductor(d, h)))
    return found


def norm() -> dict[str, float]:
    """LayerNorm forward twice and backward once."""
    u, ds, gain, bias = torch.randn(R, WIDTH), torch.randn(R, WIDTH), torch.ones(WIDTH), torch.zeros(WIDTH)
    s, mean, inverse = torch.native_layer_norm(u, (WIDTH,), gain, bias, 1e-5)
    backward = aten.native_layer_norm_backward.default

    def own() -> None:
        torch.native_layer_norm(u, (WIDTH,), gain, bias, 1e-5)
        torch.native_layer_norm(u, (WIDTH,), gain, bias, 1e-5)
        backward(ds, u, (WIDTH,), mean, inverse, gain, bias, (True, True, True))

    found = {"PyTorch's own": microseconds(own)}
    library, _ = native.load()
    if library is not None:
        du, m, r, d_gain, d_bias = torch.empty_like(u), torch.empty(R), torch.empty(R), gain.clone(), bias.clone()
        forward = [t.data_ptr() for t in (u, gain, bias)], [t.data_ptr() for t in (s, m, r)]
        back = [t.data_ptr() for t in (ds, u, gain, m, r, du, d_gain, d_bias)]

        def compiled() -> None:
            library.norm_forward(*forward[0], 1e-5, *forward[1], R, WIDTH)
            library.norm_forward(*forward[0], 1e-5, *forward[1], R, WIDTH)
            library.norm_backward(*back, R, WIDTH)

        found["compiled"] = microseconds(compiled)
    return found


def heads() -> dict[str, float]:
    """Gradients of three heads' tensors back into one packed tensor."""
    split, flat = torch.randn(3, B * H, T, D), torch.empty(R, 3 * WIDTH)
    view, permuted = flat.view(B, T, 3, H, D), split.view(3, B, H, T, D).permute(1, 3, 0, 2, 4)
    rows = torch.arange(3 * B * H * T).view(3, B, H, T).permute(1, 3, 0, 2).reshape(-1).contiguous()
    return {
        "copy of a permuted view": microseconds(lambda: view.copy_(permuted)),
        "rows by number": microseconds(lambda: torch.index_select(split.view(-1, D), 0, rows, out=flat.view(-1, D))),
    }


def products() -> dict[str, float]:
    """The four forward products of a layer."""
    shapes = [(3 * WIDTH, WIDTH), (WIDTH, WIDTH), (FF, WIDTH), (WIDTH, FF)]
    parts = [(torch.randn(R, i), torch.randn(o, i), torch.empty(R, o)) for o, i in shapes]
    dnnl = torch.ops.mkldnn._linear_pointwise
    return {
        "torch.mm(out=)": microseconds(lambda: [torch.mm(x, w.t(), out=y) for x, w, y in parts]),
        "oneDNN's linear": microseconds(lambda: [dnnl(x, w, None, "none", [], "") for x, w, _ in parts]),
    }


def optimizer() -> dict[str, float]:
    """AdamW on all weights of 1,000 layers, a layer's share."""
    shapes = [(192, 64), (192,), (64, 64), (64,), (64,), (64,), (256, 64), (256,), (64, 256), (64,), (64,), (64,)]
    many = [torch.nn.Parameter(torch.zeros(shape)) for _ in range(LAYERS) for shape in shapes]
    one = [torch.nn.Parameter(torch.zeros(sum(p.numel() for p in many)))]
    found = {}
    for name, parameters in (("fused, 12,000 tensors", many), ("fused, one flat tensor", one)):
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        step = torch.optim.AdamW(parameters, lr=1e-5, fused=True).step
        found[name] = round(microseconds(step, calls=1, batches=5) / LAYERS, 1)
    return found


ROADS: dict[str, Callable[[], dict[str, float]]] = {
    "attention, forward and backward": attention,
    "GELU, forward, again and backward": activation,
    "LayerNorm, forward, again and backward": norm,
    "heads into one tensor": heads,
    "products, forward": products,
    "AdamW, a layer's share": optimizer,
}


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    rows = []
    for name, measure in ROADS.items():
        rows.append({"part of a layer": name, "microseconds": measure()})
        print(rows[-1], flush=True)
    record = {
        "what": "Parts of a layer by several roads, one thread, tensors in the cache",
        "command": "python benchmarks/roads.py",
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU, one thread",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", "deepnet-edu")}},
        "seed": "none: times only",
        "rows": rows,
    }
    write_atomic(RESULTS, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
