"""What the kernel of a run keeps in view: an IPython extension, which the worker has its kernel load.

A notebook can be executed to its end although a thread of it died. Nothing in its outputs need say so; what was not
handled by anyone is kept here until the last cell is over, and told there.

It needs the standard library alone: a kernel of another environment loads it too.
"""

import asyncio
import concurrent.futures
import gc
import multiprocessing.pool
import multiprocessing.popen_fork
import multiprocessing.process
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import count
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any
from weakref import WeakSet

#: Folder of the notebook, to find something beside it; here, folder in which the kernel works.
NOTEBOOK_DIR, CWD = "DEEPNET_EDU_NOTEBOOK_DIR", "DEEPNET_EDU_CWD"
#: Name of the GPU that the run was given; empty or missing without one.
GPU = "DEEPNET_EDU_GPU"
#: A request that the kernel answers with how many cells are ``running``.
QUESTION = "deepnet_edu_request"
#: Packages of the kernel itself: what fails in them alone is not the notebook's fault.
_KERNEL = ("ipykernel", "IPython", "tornado", "zmq", "jupyter_client", "jupyter_core", "comm", "traitlets", "debugpy")
_STDLIB = (sysconfig.get_paths()["stdlib"], "<frozen")
#: More of them say nothing more.
_MOST = 5

_numbers = count()
#: By number, in order; those whose result is asked for are taken out again.
_faults: dict[int, str] = {}


def load_ipython_extension(shell: Any) -> None:
    """Begin; what was found is then to be had by ``shell.deepnet_edu_end()``."""
    shell.deepnet_edu_end = end
    _watch_threads()
    _watch_tasks()
    _watch_futures()
    _watch_processes()
    beside = os.environ.get(NOTEBOOK_DIR)
    if beside and beside not in sys.path:  # PYTHONPATH cannot hold a folder with a colon in its name
        sys.path.insert(1, beside)
    if working := os.environ.get(CWD):
        try:
            os.chdir(working)
        except OSError as error:
            _note(f"its working folder {working} cannot be entered: {error.strerror}")
    if kernel := getattr(shell, "kernel", None):
        _answer(kernel)


def end() -> dict[str, Any]:
    """What happened: ``faults``, a sentence each; ``notes``, what data sets left out; ``memory``, the most that this
    process held, in bytes; whether a GPU was ``unused``; matplotlib's ``backend`` and number of open ``figures``."""
    multiprocessing.active_children()  # which looks whether they have ended
    found = [*_faults.values(), *_unawaited(), *_fallen_back()]
    torch = sys.modules.get("torch")
    unused = bool(os.environ.get(GPU) and torch and not torch.cuda.is_initialized())
    told = {"faults": list(dict.fromkeys(found))[:_MOST], "memory": _memory(), "unused": unused}
    data = sys.modules.get("deepnet_edu.data.left_out")
    told["notes"] = list(dict.fromkeys(data.SAID if data else ()))[:_MOST]
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        told |= {"backend": pyplot.get_backend(), "figures": len(pyplot.get_fignums())}
    return told


def _lose_no_output(kernel: Any) -> None:
    """Keep all that is published; by default it is thrown away once a thousand messages wait for a slow reader.

    To be said again before each cell: it holds for readers that are there, and not for one that comes later.
    """
    thread = kernel.iopub_thread
    thread.schedule(lambda: setattr(thread.socket, "sndhwm", 0))


def _answer(kernel: Any) -> None:
    """Let the kernel say whether it is within a cell, at any time, or when it comes to the question."""
    before, running = kernel.do_execute, 0

    @wraps(before)
    async def do_execute(*args: Any, **options: Any) -> Any:
        nonlocal running
        _lose_no_output(kernel)
        running += 1
        try:
            return await before(*args, **options)
        finally:
            running -= 1

    def answer(stream: Any, ident: Any, parent: Any) -> None:
        kernel.session.send(stream, QUESTION.replace("request", "reply"), {"running": running}, parent, ident=ident)

    kernel.do_execute = do_execute
    kernel.control_handlers[QUESTION] = kernel.shell_handlers[QUESTION] = answer


def _note(sentence: str) -> int:
    _faults[number := next(_numbers)] = sentence
    return number


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except Exception:  # of a notebook's own __str__
        return type(error).__name__


def _is_the_kernels(error: BaseException) -> bool:
    """Whether an exception passed through the kernel's own packages, and through no others but Python's."""
    files = [frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)]
    parts = [Path(file).parts for file in files]
    own = [any(name in part for name in _KERNEL) and "site-packages" in part for part in parts]
    python = [file.startswith(_STDLIB) and "site-packages" not in part for file, part in zip(files, parts, strict=True)]
    return any(own) and all(one or other for one, other in zip(own, python, strict=True))


def _watch_threads() -> None:
    before, unraisable = threading.excepthook, sys.unraisablehook
    own = WeakSet(threading.enumerate())  # those of the kernel

    def died(args: Any) -> None:
        error = args.exc_value
        if error is not None and not isinstance(error, SystemExit) and args.thread not in own:
            _note(f"the thread {args.thread.name if args.thread else '?'} raised {_told(error)}")
        before(args)

    def low_level(args: Any) -> None:
        """What ``_thread.start_new_thread`` calls; an exception in ``__del__`` is not a failure."""
        if args.exc_value is not None and "in thread started by" in (args.err_msg or ""):
            _note(f"a thread raised {_told(args.exc_value)}")
        unraisable(args)

    threading.excepthook, sys.unraisablehook = died, low_level


def _watch_tasks() -> None:
    loop = asyncio.base_events.BaseEventLoop
    before = loop.default_exception_handler

    @wraps(before)
    def handler(self: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException) and not _is_the_kernels(error):
            future = context.get("future") or context.get("task")
            _note(f"{_name(future)} raised {_told(error)}, and nothing awaited it")
        before(self, context)

    loop.default_exception_handler = handler  # type: ignore[method-assign]


def _name(future: Any) -> str:
    if isinstance(future, asyncio.Task):
        return f"the asyncio task {getattr(future.get_coro(), '__qualname__', future.get_name())}"
    return "an asyncio future" if future is not None else "a callback of asyncio"


def _unawaited() -> Iterator[str]:
    """Tasks that have raised and are still held by a name of the notebook: Python says nothing of them yet."""
    for found in gc.get_objects():
        # type(): isinstance would wake what pretends to be something else
        if issubclass(type(found), asyncio.Future) and getattr(found, "_log_traceback", False):
            error = found._exception
            if error is not None and not _is_the_kernels(error):
                yield f"{_name(found)} raised {_told(error)}, and nothing awaited it"


def _watch_futures() -> None:
    """A cell that starts work in a pool and does not ask how it ended does not hear of its exception."""
    future: Any = concurrent.futures.Future
    set_exception = future.set_exception

    @wraps(set_exception)
    def failed(self: Any, error: BaseException | None) -> None:
        cancelled = isinstance(error, concurrent.futures.CancelledError)
        if error is not None and not cancelled and not _is_the_kernels(error):
            self._deepnet_edu = _note(f"work in a pool raised {_told(error)}, and nothing asked for its result")
        set_exception(self, error)

    future.set_exception = failed
    _taken_out_by(future, "result", "exception")

    apply: Any = multiprocessing.pool.ApplyResult
    for kind in (apply, multiprocessing.pool.MapResult):
        _watch_pool(kind)
    _taken_out_by(apply, "get", "successful")


def _watch_pool(kind: Any) -> None:
    before = kind._set

    @wraps(before)
    def _set(self: Any, number: int, result: tuple[bool, Any]) -> None:
        good, value = result
        if not good and self._error_callback is None and not hasattr(self, "_deepnet_edu"):
            self._deepnet_edu = _note(f"work in a pool raised {_told(value)}, and nothing asked for its result")
        before(self, number, result)

    kind._set = _set


def _taken_out_by(kind: Any, *names: str) -> None:
    """Let methods that tell of an exception take its sentence out."""

    def wrapped(before: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(before)
        def ask(self: Any, *args: Any, **options: Any) -> Any:
            try:
                return before(self, *args, **options)
            finally:
                _faults.pop(getattr(self, "_deepnet_edu", -1), None)

        return ask

    for name in names:
        setattr(kind, name, wrapped(getattr(kind, name)))


def _watch_processes() -> None:
    """Watch processes of multiprocessing: one that raises ends with status 1, which its parent may not check."""
    kind: Any = multiprocessing.process.BaseProcess
    popen: Any = multiprocessing.popen_fork.Popen
    start, exitcode, poll = kind.start, kind.exitcode.fget, popen.poll

    @wraps(start)
    def started(self: Any) -> None:
        start(self)
        self._popen.deepnet_edu_name = self.name

    @wraps(poll)
    def polled(self: Any, *flags: Any) -> Any:
        status = poll(self, *flags)
        if status and status > 0 and not hasattr(self, "_deepnet_edu"):
            name = getattr(self, "deepnet_edu_name", "?")
            self._deepnet_edu = _note(f"the process {name} ended with exit status {status}, and nothing asked for it")
        return status

    def asked(self: Any) -> Any:
        status = exitcode(self)
        _faults.pop(getattr(getattr(self, "_popen", None), "_deepnet_edu", -1), None)
        return status

    kind.start, kind.exitcode, popen.poll = started, property(asked), polled


def _fallen_back() -> Iterator[str]:
    """A GPU that PyTorch cannot use: the run was on the CPU, and took its time there."""
    torch: ModuleType | None = sys.modules.get("torch")
    if torch is not None and (name := os.environ.get(GPU)) and not torch.cuda.is_available():
        why = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        yield f"it fell back to the CPU: PyTorch, which {why}, cannot use its GPU ({name})"


def _memory() -> int:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
