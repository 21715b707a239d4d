"""The functions in C against PyTorch's in float64, and what happens where they cannot be had."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from deepnet_edu.model.fast import native

pytestmark = pytest.mark.xdist_group("native")  # compiled once


@pytest.fixture
def compiled() -> Any:
    found, reason = native.load()
    if found is None:
        pytest.skip(reason)
    return found


@pytest.mark.parametrize("head_dim", native.HEAD_DIMS)
@pytest.mark.parametrize(
    ("T", "S", "causal"),
    [
        *((T, T, causal) for T in (1, 5, 64, 128) for causal in (True, False)),
        *((T, S, False) for T, S in ((6, 33), (33, 6), (128, 17))),
    ],
)
def test_attention(compiled: Any, T: int, S: int, causal: bool, head_dim: int) -> None:
    B, H, d = 2, 2, 2 * head_dim
    generator = torch.Generator().manual_seed(T)
    q, kv = torch.randn(B * T, d, generator=generator), torch.randn(B * S, 2 * d, generator=generator)
    do = torch.randn(B * T, d, generator=generator)
    q64, kv64 = q.double().requires_grad_(), kv.double().requires_grad_()
    heads = [q64.view(B, T, H, head_dim), *kv64.view(B, S, 2, H, head_dim).unbind(2)]
    expected = nn.functional.scaled_dot_product_attention(*(h.transpose(1, 2) for h in heads), is_causal=causal)
    expected = expected.transpose(1, 2).reshape(B * T, d)
    dq64, dkv64 = torch.autograd.grad(expected, (q64, kv64), do.double())
    o, lse, dq, dkv = torch.empty(B * T, d), torch.empty(B, H, T), torch.empty_like(q), torch.empty_like(kv)
    sizes = (d, 2 * d, B, T, S, H, head_dim, int(causal), head_dim**-0.5)
    k, dk = kv.data_ptr(), dkv.data_ptr()
    compiled.attention_forward(q.data_ptr(), k, k + 4 * d, o.data_ptr(), lse.data_ptr(), *sizes)
    pointers = (o.data_ptr(), lse.data_ptr(), do.data_ptr(), dq.data_ptr(), dk, dk + 4 * d)
    compiled.attention_backward(q.data_ptr(), k, k + 4 * d, *pointers, *sizes)
    # A number is a sum over features and one over tokens, of products that are as large as the largest gradient, also
    # where they cancel (with one token, dq is 0): each addition rounds by ε, in the order that the compiler chose.
    rounding = (head_dim + max(T, S)) * torch.finfo(torch.float32).eps * max(dq64.abs().max(), dkv64.abs().max()).item()
    for mine, true in ((o, expected), (dq, dq64), (dkv, dkv64)):
        torch.testing.assert_close(mine.double(), true.detach(), rtol=0, atol=rounding)


def test_attention_with_scores_far_apart_and_with_nan(compiled: Any) -> None:
    T, d = 8, 8
    qkv = 300 * torch.randn(T, 3 * d, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.scaled_dot_product_attention(*qkv[None, None].chunk(3, -1), is_causal=True, scale=1.0)
    o, lse = torch.empty(T, d), torch.empty(T)
    p = qkv.data_ptr()
    for broken in (False, True):
        if broken:
            qkv[3, d] = torch.nan
        sizes = (3 * d, 3 * d, 1, T, T, 1, d, 1, 1.0)
        compiled.attention_forward(p, p + 4 * d, p + 8 * d, o.data_ptr(), lse.data_ptr(), *sizes)
        torch.testing.assert_close(o[:3], expected[0, 0, :3])
        assert o[3:].isnan().any(1).all() if broken else torch.allclose(o, expected[0, 0])


def test_gelu_from_end_to_end(compiled: Any) -> None:
    h = torch.cat([torch.linspace(-40, 40, 8008), torch.tensor([0.0, -0.0, 1e30, -1e30, 1e-30, -1e-30, 88.0, -88.0])])
    x = h.double().requires_grad_()
    expected = nn.functional.gelu(x)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    a, b, d = torch.empty_like(h), torch.empty_like(h), torch.ones_like(h)
    compiled.gelu_forward(h.data_ptr(), a.data_ptr(), len(h))
    compiled.gelu_backward(h.data_ptr(), b.data_ptr(), d.data_ptr(), len(h))
    assert torch.equal(a, b)
    torch.testing.assert_close(a.double(), expected.detach(), rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(d.double(), slope, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("width", [8, 24, 64, 256])
def test_norm_and_sums(compiled: Any, width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    u, ds = (3 * torch.randn(2, 33, width, generator=generator) + 2).unbind()
    gain, bias = torch.randn(2, width, generator=generator).unbind()
    true = [t.double().requires_grad_() for t in (u, gain, bias)]
    expected = nn.functional.layer_norm(true[0], (width,), true[1], true[2])
    gradients = torch.autograd.grad(expected, true, ds.double())
    s, du, mean, inverse = torch.empty_like(u), torch.empty_like(u), torch.empty(33), torch.empty(33)
    d_gain, d_bias, total = torch.ones(width), torch.ones(width), torch.ones(width)
    at = [t.data_ptr() for t in (u, gain, bias)], [t.data_ptr() for t in (s, mean, inverse)]
    compiled.norm_forward(*at[0], 1e-5, *at[1], 33, width)
    at = [t.data_ptr() for t in (ds, u, gain, mean, inverse, du)], [t.data_ptr() for t in (d_gain, d_bias)]
    compiled.norm_backward(*at[0], *at[1], 33, width)
    compiled.add_rows(ds.data_ptr(), total.data_ptr(), 33, width)
    found = (s, du, d_gain - 1, d_bias - 1, total - 1)
    for mine, value in zip(found, (expected.detach(), *gradients, ds.double().sum(0)), strict=True):
        torch.testing.assert_close(mine.double(), value, rtol=1e-4, atol=2e-5)
    alone = torch.empty_like(du)
    compiled.norm_backward(*at[0][:-1], alone.data_ptr(), None, None, 33, width)
    torch.testing.assert_close(alone, du)


def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> tuple[Any, str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.load.cache_clear()
    try:
        return native.load()
    finally:
        native.load.cache_clear()


def test_there_may_be_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    assert fresh(monkeypatch, tmp_path) == (None, "there is no C compiler (cc, gcc, clang)")


def test_it_can_be_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("DEEPNET_EDU_NATIVE", "0")
    assert fresh(monkeypatch, tmp_path) == (None, "DEEPNET_EDU_NATIVE is 0")


@pytest.fixture
def unoptimized(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler has nothing to make quick, which is what takes it seconds."""
    run = native._run
    monkeypatch.setattr(native, "_run", lambda command: run([part for part in command if part != "-O3"]))


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        ("1.061405429f", "1.07f", "its GELU is not PyTorch's"),
        ("dk + j * h.kv_stride, h.kv_stride)", "dv + j * h.kv_stride, h.kv_stride)", "its attention is not PyTorch's"),
        ("#include <math.h>", "#include <no_such_file.h>", "made nothing that can be used"),
    ],
)
def test_what_computes_something_else_is_refused(
    compiled: Any, unoptimized: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, good: str, bad: str, reason: str
) -> None:
    source = tmp_path / "native.c"
    text = native.SOURCE.read_text(encoding="utf-8")
    assert good in text
    source.write_text(text.replace(good, bad), encoding="utf-8")
    monkeypatch.setattr(native, "SOURCE", source)
    library, why = fresh(monkeypatch, tmp_path)
    assert library is None
    assert reason in why
    assert not list((tmp_path / "deepnet_edu").iterdir())


def test_it_is_right_without_the_processors_own_instructions(
    compiled: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(native, "_FLAGS", ((),))
    library, reason = fresh(monkeypatch, tmp_path)  # compared with PyTorch before it is used
    assert library is not None, reason


def test_each_processor_compiles_for_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """In a home that machines share, one may have instructions that end a program on another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native.shutil, "which", lambda _: "cc")
    found = set()
    monkeypatch.setattr(native, "_kept", lambda _cache, name: found.add(name) or "a library")
    for flags in ("flags: avx2", "flags: avx2 avx512f"):
        monkeypatch.setattr(native, "_processor", lambda flags=flags: flags)
        native.load.cache_clear()
        assert native.load() == ("a library", "")
    native.load.cache_clear()
    assert len(found) == 2


def kept(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "deepnet_edu").iterdir()
    return file


@pytest.fixture(scope="module")
def made() -> bytes:
    """The library's bytes from the cache of this machine, where the first test that needs it compiles it."""
    native.load()
    native.load.cache_clear()
    library, reason = native.load()
    if library is None:
        pytest.skip(reason)
    return Path(library._name).read_bytes()


@pytest.fixture
def calls(made: bytes, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How often the compiler was called; it gives what it gave before, in no time."""
    calls = []

    def run(command: list[str]) -> None:
        calls.append(command)
        Path(command[command.index("-o") + 1]).write_bytes(made)

    monkeypatch.setattr(native, "_run", run)
    return calls


def test_what_was_compiled_is_kept(calls: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert fresh(monkeypatch, tmp_path)[0] is not None
    assert fresh(monkeypatch, tmp_path)[0] is not None
    assert len(calls) == 1
    assert kept(tmp_path).suffix == ".so"


def test_a_cache_that_others_may_write_is_not_used(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "deepnet_edu"
    cache.mkdir()
    cache.chmod(0o777)
    library, _ = fresh(monkeypatch, tmp_path)
    assert library is not None
    assert not list(cache.iterdir())


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zeros(file: Path) -> None:
    with file.open("r+b") as handle:
        handle.seek(4096)
        handle.write(bytes(4096))


def a_link(file: Path) -> None:
    file.rename(file.parents[1] / "elsewhere.so")
    file.symlink_to(file.parents[1] / "elsewhere.so")


@pytest.mark.parametrize("damage", [cut, zeros, lambda file: file.write_bytes(b""), a_link])
def test_a_damaged_library_is_compiled_again_and_never_loaded(
    calls: list[Any], made: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: Any
) -> None:
    fresh(monkeypatch, tmp_path)
    damage(kept(tmp_path))
    assert fresh(monkeypatch, tmp_path)[0] is not None
    assert len(calls) == 2
    assert not kept(tmp_path).is_symlink()
    assert kept(tmp_path).read_bytes() == made


def test_without_a_home_it_compiles_into_a_temporary_folder(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(native.Path, "home", none)
    native.load.cache_clear()
    try:
        assert native.load()[0] is not None
    finally:
        native.load.cache_clear()


def test_a_disk_that_is_full_afterwards_keeps_nothing_and_trains(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native, "write_atomic", full)
    assert fresh(monkeypatch, tmp_path)[0] is not None
    assert not list((tmp_path / "deepnet_edu").iterdir())


def test_a_compiler_that_hangs_is_ended_with_its_children(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said what is waited for, and the slow path does the work."""
    child = tmp_path / "child"
    compiler = tmp_path / "cc"
    compiler.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\n"
        "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(child)!r}, 'w').write(str(one.pid))\none.wait()\n"
    )
    compiler.chmod(0o755)
    monkeypatch.setattr(native, "_COMPILERS", (str(compiler),))
    real = subprocess.Popen.wait

    def wait(self: Any, timeout: float | None = None) -> int:
        while timeout and not (child.exists() and child.read_text()):
            pass  # its child must be there before the time is up
        return real(self, timeout and 0.01)

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    library, reason = fresh(monkeypatch, tmp_path / "cache")
    assert library is None
    assert reason == f"{compiler} did not end within 45 s"
    assert f"Waiting for {compiler}, which compiles the fast path, for 45 s at most." in capsys.readouterr().err
    assert not list((tmp_path / "cache" / "deepnet_edu").iterdir())
    with contextlib.suppress(psutil.NoSuchProcess):
        left, end = psutil.Process(int(child.read_text())), time.monotonic() + 30
        while left.status() != psutil.STATUS_ZOMBIE:  # killed; not waited for yet
            assert time.monotonic() < end
            time.sleep(0.01)
