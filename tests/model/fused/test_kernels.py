"""The kernels: under Triton's interpreter beside float64, compiled for an H100 without one, and on a GPU."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from deepnet_edu.model.fused import operator

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton, which the dev extra has on Linux")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What interpreted.py prints."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tests.model.fused.interpreted"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@needs_triton
def test_kernels_give_the_numbers_of_pytorch(found: dict[str, Any]) -> None:
    """Outputs and all gradients, for all 64 combinations of what can be asked for."""
    assert found["kernels"] is True
    assert found["float64"] < 1e-11
    assert found["gradcheck"] is True


@needs_triton
def test_any_width_number_of_rows_and_layout(found: dict[str, Any]) -> None:
    assert max(found["shapes"], found["layouts"]) < 1e-12
    assert found["no rows"] == [0, 8]


@needs_triton
def test_narrow_numbers_are_rounded_once(found: dict[str, Any]) -> None:
    """bfloat16 has 8 bits: half a unit in the last place is 1/256 at most, of the largest number."""
    assert found["float32"] < 1e-6
    assert max(found["half"], found["both"]) < 2 / 256


@needs_triton
@pytest.mark.parametrize("stream", ["bf16", "fp32"])
@pytest.mark.parametrize("total", [False, True])
def test_registers_suffice_at_the_width_of_the_paper(stream: str, total: bool, tmp_path: Path) -> None:
    """d = 512, compiled for sm_90, which needs no GPU: next to nothing is spilled to memory."""
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import get_ptxas
    from triton.compiler import ASTSource, compile

    kernels = operator_kernels()
    for kernel, shares in (
        (kernels.forward_kernel, kernels.tile(512, *kernels.FORWARD)),
        (kernels.backward_kernel, kernels.tile(512, *kernels.BACKWARD)),
    ):
        known = {
            "ALPHA": not total, "BRANCH_BIAS": True, "BIAS": True, "CENTRED": True, "TOTAL": total,
            "NARROW": stream == "fp32" and not total, "TWO": not total or stream == "fp32", "WIDE": kernels.tl.float32,
            "ROWS": shares["ROWS"], "BLOCK": shares["BLOCK"],
        }  # fmt: skip
        types = dict.fromkeys(("f", "df", "narrow", "d_narrow"), "*bf16")
        types |= dict.fromkeys(("x", "y", "dy", "dx", "total", "d_total"), f"*{stream}")
        types |= dict.fromkeys(("rows", "d", "x_row", "f_row"), "i32") | {"eps": "fp32"}
        constants = {name: known[name] for name in kernel.arg_names if name in known}
        constants |= {"alpha": None} if total else {}
        signature = {n: "constexpr" if n in constants else types.get(n, "*fp32") for n in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs={})
        made = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": shares["num_warps"]})
        ptx = tmp_path / "kernel.ptx"
        ptx.write_text(made.asm["ptx"])
        command = [get_ptxas(90).path, "-v", "--gpu-name=sm_90a", str(ptx), "-o", str(tmp_path / "kernel.cubin")]
        said = subprocess.run(command, capture_output=True, text=True).stderr
        assert int(re.search(r"(\d+) bytes spill stores", said)[1]) <= 16, said  # type: ignore[index]
        assert int(re.search(r"Used (\d+) registers", said)[1]) <= 128, said  # type: ignore[index]


def operator_kernels() -> Any:
    from deepnet_edu.model.fused import kernels

    return kernels


def test_elsewhere_the_formulas_are_used() -> None:
    assert operator.why_not(torch.zeros(2)) in (
        "Triton is not installed",
        "Triton's kernels run on CUDA, and x is on cpu",
    )
    assert operator._kernels(torch.zeros(2)) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@needs_triton
@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize("d", [64, 512, 515])
def test_on_a_gpu_kernels_give_the_numbers_of_their_formulas(d: int, total: bool) -> None:
    """The stream in float32, the branch in bfloat16, beside the same on the CPU."""
    g = torch.Generator().manual_seed(0)
    x, b, weight, bias, dy = (torch.randn(n, generator=g) for n in ((300, d), d, d, d, (300, d)))
    f, alpha = torch.randn(300, d, generator=g).bfloat16(), torch.tensor(6.7)
    ways = []
    for device in ("cpu", "cuda"):
        inputs = [one.to(device).requires_grad_() for one in (x, f, b, weight, bias)]
        y, u, copy = operator.add_norm(*inputs[:3], alpha.to(device), *inputs[3:], 1e-5, total=total, narrow=not total)
        found = [y, u if total else copy]
        ways.append([*found, *torch.autograd.grad(found, inputs, [dy.to(device, one.dtype) for one in found])])
    for ours, theirs in zip(*ways, strict=True):
        torch.testing.assert_close(theirs.cpu().float(), ours.float(), rtol=2e-2, atol=2e-2 * ours.abs().max().item())
