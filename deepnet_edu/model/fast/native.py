"""The C of native.c, compiled once per machine where there is a compiler, and checked before it is used.

Nothing depends on it: :mod:`deepnet_edu.model.fast` computes the same with PyTorch's operations where it is missing,
and says so. ``DEEPNET_EDU_NATIVE=0`` in the environment leaves it out.
"""

import atexit
import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from deepnet_edu.files import read_bytes, write_atomic
from deepnet_edu.model.fast.known import HEAD_DIMS, LONGEST, MULTIPLE

__all__ = ["HEAD_DIMS", "LONGEST", "MULTIPLE", "load"]

SOURCE = Path(__file__).with_suffix(".c")
_COMPILERS = ("cc", "gcc", "clang")
#: A processor's own instructions under the names that compilers have for them, or none.
_FLAGS: tuple[tuple[str, ...], ...] = (("-march=native",), ("-mcpu=native",), ())
#: A compiler that takes longer is ended, and after the second it is said what is waited for; it takes 3 s on one core.
_SECONDS, _SAY_SECONDS = 45, 10
_pointer, _int, _long, _float = ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_float
_SIGNATURES = {
    "gelu_forward": [_pointer] * 2 + [_long],
    "gelu_backward": [_pointer] * 3 + [_long],
    "add_rows": [_pointer] * 2 + [_long] * 2,
    "norm_forward": [_pointer] * 3 + [_float] + [_pointer] * 3 + [_long] * 2,
    "norm_backward": [_pointer] * 8 + [_long] * 2,
    "attention_forward": [_pointer] * 5 + [_long] * 2 + [_int] * 6 + [_float],
    "attention_backward": [_pointer] * 9 + [_long] * 2 + [_int] * 6 + [_float],
}


@lru_cache(maxsize=1)
def load() -> tuple[ctypes.CDLL | None, str]:
    """The library and an empty string, or None and the reason why there is none."""
    if os.environ.get("DEEPNET_EDU_NATIVE") == "0":
        return None, "DEEPNET_EDU_NATIVE is 0"
    compiler = next((path for name in _COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        return None, "there is no C compiler (" + ", ".join(_COMPILERS) + ")"
    try:
        key = hashlib.sha256(SOURCE.read_bytes() + f"{compiler} {platform.platform()} {_processor()}".encode())
        cache, name = _cache(), f"native_{key.hexdigest()[:16]}"
        return _kept(cache, name) or _compiled(compiler, cache, name), ""
    except subprocess.TimeoutExpired:
        return None, f"{compiler} did not end within {_SECONDS} s"
    except (OSError, ValueError, AttributeError, subprocess.SubprocessError, ArithmeticError) as error:
        return None, f"{compiler} made nothing that can be used: {error}"


def _kept(cache: Path, name: str) -> ctypes.CDLL | None:
    """The library from the cache, whose file's name ends with the hash of its content.

    Nothing is loaded whose hash is another: a damaged library would end the process.
    """
    for path in cache.glob(f"{name}_*.so"):
        with contextlib.suppress(OSError, ValueError, AttributeError, ArithmeticError):
            if hashlib.sha256(read_bytes(path, links=False)).hexdigest() == path.stem.removeprefix(f"{name}_"):
                return _checked(ctypes.CDLL(str(path)))
        with contextlib.suppress(OSError):
            path.unlink()
    return None


def _compiled(compiler: str, cache: Path, name: str) -> ctypes.CDLL:
    """The library compiled now; it is kept in the cache once it was loaded and computes what PyTorch does."""
    for left in cache.glob("*.part"):  # of a compilation that was killed; one that is at work is younger
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 2 * _SECONDS:
                left.unlink()
    for flags in _FLAGS:
        handle, part = tempfile.mkstemp(dir=cache, suffix=".part")
        os.close(handle)
        try:
            _run([compiler, "-O3", *flags, "-funroll-loops", "-shared", "-fPIC", str(SOURCE), "-o", part, "-lm"])
            library = _checked(ctypes.CDLL(part))
            content = read_bytes(Path(part))
            with contextlib.suppress(OSError):  # on a full disk the next process compiles it again
                write_atomic(cache / f"{name}_{hashlib.sha256(content).hexdigest()}.so", content)
            return library
        except subprocess.CalledProcessError as error:
            problem = error
        finally:
            Path(part).unlink(missing_ok=True)
    raise problem


def _cache() -> Path:
    """The user's own cache folder, or a temporary one where there is none that only the user can write."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deepnet_edu"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = cache.stat()
        if (
            not os.access(cache, os.W_OK)
            or state.st_mode & 0o022
            or state.st_uid != getattr(os, "getuid", lambda: state.st_uid)()
        ):
            raise PermissionError  # what others may write is not loaded from there
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        cache = Path(tempfile.mkdtemp(prefix="deepnet_edu_"))
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
    return cache


def _run(command: Sequence[str]) -> None:
    """Run a compiler and all that it starts; after a while it says what is waited for, and later ends them.

    Raises:
        subprocess.CalledProcessError: it failed.
        subprocess.TimeoutExpired: it took too long.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        try:
            process.wait(_SAY_SECONDS)
        except subprocess.TimeoutExpired:
            waits = f"Waiting for {command[0]}, which compiles the fast path, for {_SECONDS} s at most."
            print(waits, file=sys.stderr, flush=True)
            process.wait(_SECONDS - _SAY_SECONDS)
    except BaseException as error:
        _end(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise subprocess.TimeoutExpired(command[0], _SECONDS) from None
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its whole group, since a compiler starts others."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _processor() -> str:
    """What -march=native depends on: a home directory may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return " ".join(
        sorted({line for line in lines if line.startswith(("flags", "model name", "Features", "CPU part"))})
    )


@torch.inference_mode(False)
def _checked(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, if what it computes is what PyTorch computes; else an ArithmeticError."""
    for name, signature in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = signature, None
    generator, f32 = torch.Generator().manual_seed(0), torch.float32  # whatever PyTorch's default is
    h, d = 3 * torch.randn(2, 64, generator=generator, dtype=f32, device="cpu")
    with torch.enable_grad():
        x = h.clone().requires_grad_()
        a = F.gelu(x)
        (dx,) = torch.autograd.grad(a, x, d)
    b, mine = torch.full_like(h, torch.nan), d.clone()
    library.gelu_backward(h.data_ptr(), b.data_ptr(), mine.data_ptr(), h.numel())
    if not (torch.allclose(a, b, atol=1e-6) and torch.allclose(dx, mine, atol=1e-6)):
        raise ArithmeticError("its GELU is not PyTorch's")
    B, T, H, D = 2, 13, 2, 8
    qkv, do = (torch.randn(B * T, n * H * D, generator=generator, dtype=f32, device="cpu") for n in (3, 1))
    shapes = do.shape, (B, H, T), qkv.shape
    o, lse, dqkv = (torch.full(shape, torch.nan, dtype=f32, device="cpu") for shape in shapes)
    with torch.enable_grad():
        x = qkv.clone().requires_grad_()
        q, k, v = x.view(B, T, 3, H, D).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B * T, H * D)
        (dx,) = torch.autograd.grad(y, x, do)
    sizes = (3 * H * D, 3 * H * D, B, T, T, H, D, 1, D**-0.5)
    library.attention_forward(*_parts(qkv, H * D), o.data_ptr(), lse.data_ptr(), *sizes)
    library.attention_backward(
        *_parts(qkv, H * D), o.data_ptr(), lse.data_ptr(), do.data_ptr(), *_parts(dqkv, H * D), *sizes
    )
    if not (torch.allclose(o, y, atol=1e-6) and torch.allclose(dqkv, dx, atol=1e-5)):
        raise ArithmeticError("its attention is not PyTorch's")
    return library


def _parts(packed: Tensor, width: int) -> tuple[int, ...]:
    """Where the packed columns of query, key and value start."""
    return tuple(packed.data_ptr() + packed.element_size() * width * i for i in range(packed.shape[1] // width))
