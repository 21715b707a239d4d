"""Inside the sandbox: one process that has loaded PyTorch, and forks another for each answer.

sandbox.py starts ``python -m deepnet_edu.course.grading.inside FD FOLDER``. What is forked takes one job from its line,
gives up all that it does not need, runs the answer, and ends.
"""

import ast
import contextlib
import ctypes
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from IPython.core.inputtransformer2 import TransformerManager

from deepnet_edu.checks.base import judged
from deepnet_edu.checks.by_name import check
from deepnet_edu.checks.forms import as_asked, signature_of, untouched
from deepnet_edu.checks.trial import Trial
from deepnet_edu.course.cells import needed_for
from deepnet_edu.course.grading import guards, wire

_TICK_S = 0.02


class Missing(Exception):
    """No cell binds the name of the exercise."""


def main() -> None:
    """Serve jobs until the other side is gone."""
    control, folder = socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2])
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as kit.setup does
    control.sendall(b"r")
    while True:
        said, lines, *_ = socket.recv_fds(control, 1, 1)
        if not said or not lines:
            return
        own = Path(tempfile.mkdtemp(dir=folder))  # one of a killed predecessor may be there still
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                control.close()
                _serve(socket.socket(fileno=lines[0]), own)
            os._exit(0)
        os.close(lines[0])
        _wait(child, control)
        shutil.rmtree(own, ignore_errors=True)


def _wait(child: int, control: socket.socket) -> None:
    """Until the child has ended, or the other side wants the next one, or is gone; then nothing of it is left."""
    first = os.getpid() == 1  # of a namespace of its own, in which all others are the answer's
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if select.select([control], [], [], _TICK_S)[0]:
            break
    for kill in (lambda: os.killpg(child, signal.SIGKILL), lambda: os.kill(-1 if first else child, signal.SIGKILL)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill()
    os.waitpid(child, 0)
    with contextlib.suppress(ChildProcessError):
        while first:
            os.waitpid(-1, 0)


def _serve(line: socket.socket, folder: Path) -> None:
    os.setsid()
    line.sendall(b"h")
    os.chdir(folder)
    os.environ["HOME"] = os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = str(folder)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    job = wire.receive(line)
    name, cells = job["name"], job["cells"]
    if job["kind"] == "probe":
        wire.send(line, _probe(folder, job))
        return
    prepared = _prepared(name) if job["kind"] == "beside" else None
    _lock(folder)
    if prepared is None:
        _apart(line, name, cells, wire.signature(job["signature"]))
    else:
        _beside(line, name, cells, job["timeout"], job["nonce"], *prepared)


def _lock(folder: Path) -> None:
    guards.limit()
    guards.landlock(folder)
    guards.fence(folder)


def _probe(folder: Path, job: Mapping[str, Any]) -> dict[str, bool]:
    """What the system itself refuses, tried without Python's fence."""
    guards.limit()
    guards.landlock(folder)

    def refused(deed: Callable[[], object]) -> bool:
        try:
            deed()
        except OSError:
            return True
        return False

    return {
        "network": refused(lambda: socket.create_connection(("127.0.0.1", job["port"]), 2)),
        "files": refused(lambda: Path(job["outside"]).write_text("written")),
        "signals": refused(lambda: os.kill(job["pid"], 0)),
        "answers": refused(lambda: (guards.REFERENCES / "__init__.py").read_bytes()),
    }


def _defined(name: str, cells: list[str]) -> Any:
    """What the cells bind to ``name``, run in a thread of its own, whose frames lead nowhere."""
    found: list[Any] = []

    def work() -> None:
        try:
            space: dict[str, Any] = {"__name__": "__main__"}
            exec(compile(needed_for(name, cells), f"<{name}>", "exec"), space)
            if name not in space:
                for cell in cells:
                    if f"def {name}" in cell or f"class {name}" in cell:
                        ast.parse(TransformerManager().transform_cell(cell))
                raise Missing
            found.append(space[name])
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def _apart(line: socket.socket, name: str, cells: list[str], asked: Any) -> None:
    """The answer alone: its first line, then each call that the judge makes, until the judge hangs up."""
    try:
        function = _defined(name, cells)
    except Missing:
        wire.send(line, ["missing"])
        return
    except BaseException as error:
        wire.send(line, ["broken", type(error).__name__, str(error)])
        return
    if untouched(function, name):
        wire.send(line, ["untouched"])
        return
    if not callable(function):
        wire.send(line, ["broken", "TypeError", f"{name} is not a function"])
        return

    def model() -> None:
        """Has the first line that the exercise asks for."""

    model.__signature__ = asked  # type: ignore[attr-defined]
    function = as_asked(function, model if asked else None)
    wire.send(line, ["ready", wire.first_line(signature_of(function))])
    earlier: list[tuple[Any, bytes]] = []
    while True:
        given, named = wire.receive(line)
        before = wire.pack([given, named])
        try:
            result = function(*given, **named)
        except BaseException as error:
            wire.send(line, ["raised", type(error).__name__, str(error)])
            continue
        try:
            changed = [] if wire.pack([given, named]) == before else [[given, named]]
            moved = [[place, one] for place, (one, packed) in enumerate(earlier) if wire.pack(one) != packed]
            packed = wire.pack(result)
            wire.send(line, ["gave", result, changed, moved])
        except wire.NotPlainError as error:
            wire.send(line, ["strange", str(error)])
            continue
        earlier = [(one, wire.pack(one)) for one, _ in earlier] + [(result, packed)]


def _prepared(name: str) -> tuple[Any, Any]:
    """The judge, and the reference answer for its first line alone, before the answer is there."""
    judge, reference = check.judges[name], check._reference(name)
    for module in [one for one in sys.modules if one.startswith("deepnet_edu.course.references")]:
        del sys.modules[module]
    judged(name, judge, lambda *_, **__: None)  # what is loaded late is loaded now
    _ = ctypes.pythonapi.PyThreadState_SetAsyncExc
    return judge, reference


def _beside(
    line: socket.socket, name: str, cells: list[str], timeout: float, nonce: str, judge: Any, reference: Any
) -> None:
    """The answer and its judge in one process, for what cannot cross: modules, functions, gradients.

    It could change the judge. So what the judge is made of is compared before and after, and the judge must still
    refuse an answer that is none. What is sent begins with a word that only the judge's side knows.
    """
    descriptor, write, intact = line.fileno(), os.write, _seal()
    try:
        function = _defined(name, cells)
    except Missing:
        found = ["open", ""]
    except BaseException as error:
        found = ["tried", f"Your cells raised {type(error).__name__}: {error}"]
    else:
        if untouched(function, name):
            found = ["open", ""]
        else:
            trial = Trial(as_asked(function, reference), name) if callable(function) else None
            result = judged(name, judge, function, timeout, trial=trial)
            found = [str(result.state), str(result.sentence)]
    if found[0] == "done" and judged(name, judge, lambda *_, **__: None, timeout).state == "done":
        found = ["altered", ""]
    state, sentence = found if intact() else ["altered", ""]
    write(descriptor, "\0".join([nonce, state, sentence[:2000]]).encode(errors="replace") + b"\0\0")


_JUDGES = "deepnet_edu.checks"
_LIBRARIES = ("builtins", "math", "copy", "inspect", "numpy", "torch", "torch.nn.functional", "torch.autograd")
#: Python itself puts these into modules and classes.
_PYTHONS = ("__warningregistry__", "__annotations_cache__", "__annotate_func__", "__annotations__", "__slotnames__")


def _seal() -> Callable[[], bool]:
    """Remember all that a judge calls; the function says later whether it is still the same."""
    before, made_of = _made_of(), _made_of

    def intact() -> bool:
        after = made_of()
        same = all(after.get(place) is value for place, value in before.items())
        more = [place for place in after.keys() - before.keys() if place[0].startswith(_JUDGES)]
        return same and all(name in _PYTHONS or type(after[home, name]) is type(sys) for home, name in more)

    return intact


def _made_of() -> dict[tuple[str, str], Any]:
    """The objects behind the judges' names, and behind the libraries' that they use."""
    parts: dict[tuple[str, str], Any] = {}
    for module, space in list(sys.modules.items()):
        ours = module.startswith(_JUDGES)
        if not ours and module not in _LIBRARIES:
            continue
        for name, value in list(vars(space).items()):
            parts[module, name] = value
            if isinstance(value, type) and (ours or value is torch.Tensor):
                parts |= {(f"{module}.{name}", inner): one for inner, one in vars(value).items()}
            elif ours and hasattr(value, "__code__"):
                parts[f"{module}.{name}", "__code__"] = value.__code__
    return {place: value for place, value in parts.items() if place[1] not in _PYTHONS}


if __name__ == "__main__":
    main()
