"""One answer, judged: apart where values can cross between processes, else beside its judge."""

import builtins
import contextlib
import inspect
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deepnet_edu.checks.base import judged
from deepnet_edu.checks.by_name import check
from deepnet_edu.checks.forms import signature_of
from deepnet_edu.checks.trial import GaveUp, NotRight, Trial
from deepnet_edu.course.grading import wire
from deepnet_edu.course.grading.sandbox import Sandbox
from deepnet_edu.messages import one_line
from deepnet_edu.progress import ExerciseState

Evidence = Literal["apart", "beside", "progress", "none"]

TIMEOUT_S = 30.0
_MORE_S = 60.0
ALTERED = "This answer changes what judges it: look at it yourself."
ENDED = "Your cells ended the program, or took too much memory."
_BROKEN = (EOFError, ValueError, OSError)


@dataclass(frozen=True)
class Verdict:
    """What was found of one answer.

    Attributes:
        state: ``"done"``, ``"tried"`` or ``"open"``.
        sentence: what its card would say.
        evidence: ``"apart"``: the judge was in another process than the answer; ``"beside"``: in the same one, which it
            could change; ``"progress"``: the student's own file says so; ``"none"``: there was nothing to judge.
    """

    state: ExerciseState
    sentence: str = ""
    evidence: Evidence = "none"


class Judgement:
    """Judges answers to the exercises in a sandbox.

    Args:
        sandbox: that runs.
        timeout: seconds that an answer may take.
    """

    def __init__(self, sandbox: Sandbox, timeout: float = TIMEOUT_S) -> None:
        self.sandbox, self.timeout = sandbox, timeout
        self._crosses: dict[str, bool] = {}

    def of(self, exercise: str, cells: Sequence[str]) -> Verdict:
        """The verdict on an answer. Whatever it does, it neither raises here nor runs afterwards.

        Args:
            exercise: its name.
            cells: sources of the notebook's code cells, in order.
        """
        if not any(exercise in cell for cell in cells):
            return Verdict("open")
        if self.crosses(exercise):
            with contextlib.suppress(wire.NotPlainError):
                return self._apart(exercise, cells)
        return self._beside(exercise, cells)

    def crosses(self, exercise: str) -> bool:
        """Whether all that the judge gives to the reference answer, and gets from it, can cross between processes."""
        if exercise not in self._crosses:
            reference, judge = check._reference(exercise), check.judges[exercise]
            assert reference is not None
            if "trial.function" in inspect.getsource(judge):  # it looks into the function's code
                self._crosses[exercise] = False
                return False
            trial = _Copying(reference, exercise)
            self._crosses[exercise] = (
                judged(exercise, check.judges[exercise], reference_of(trial), self.timeout, trial=trial).state == "done"
            )
        return self._crosses[exercise]

    def _apart(self, exercise: str, cells: Sequence[str]) -> Verdict:
        asked = wire.first_line(signature_of(check._reference(exercise) or print))
        job = {"kind": "apart", "name": exercise, "cells": list(cells), "signature": asked}
        with self.sandbox.begin(job, self.timeout) as line:
            try:
                kind, *details = wire.receive(line)
                own = wire.signature(details[0]) if kind == "ready" else None
            except TimeoutError:
                return Verdict("tried", f"Your cells did not end within {self.timeout:g} s.", "apart")
            except _BROKEN:
                return Verdict("tried", ENDED, "apart")
            if kind in ("missing", "untouched"):
                return Verdict("open", "", "apart")
            if kind != "ready":
                return Verdict("tried", _said(f"Your cells raised {details[0]}: {details[1]}"), "apart")
            remote = _Remote(line, own, time.monotonic() + self.timeout)
            patience = self.timeout + _MORE_S  # the line gives up first
            result = judged(exercise, check.judges[exercise], remote, patience, trial=Trial(remote, exercise))
            if remote.late:
                said = f"Your function did not return within {self.timeout:g} s: is there a loop without end?"
                return Verdict("tried", said, "apart")
            if remote.strange:
                raise wire.NotPlainError(remote.strange)
            state = "open" if result.state == "noted" else result.state
            return Verdict(state, _said(result.sentence), "apart")

    def _beside(self, exercise: str, cells: Sequence[str]) -> Verdict:
        nonce = secrets.token_hex(16)
        job = {
            "kind": "beside",
            "name": exercise,
            "cells": list(cells),
            "timeout": self.timeout,
            "nonce": nonce,
        }
        with self.sandbox.begin(job, 3 * self.timeout) as line:
            said = b""
            try:
                while not said.endswith(b"\0\0") and len(said) < 2**16 and (part := line.recv(2**12)):
                    said += part
            except TimeoutError:
                return Verdict("tried", f"Your cells did not end within {self.timeout:g} s.", "beside")
            except OSError:
                said = b""
        word, _, rest = said.decode(errors="replace").removesuffix("\0\0").partition("\0")
        state, _, sentence = rest.partition("\0")
        if not said:
            return Verdict("tried", ENDED, "beside")
        if word != nonce or state == "altered":
            return Verdict("tried", ALTERED, "beside")
        known: dict[str, ExerciseState] = {"open": "open", "tried": "tried", "done": "done"}
        return Verdict(known.get(state, "tried"), _said(sentence), "beside")


def reference_of(trial: Trial) -> Any:
    """What :func:`judged` asks whether it is a function: anything but the reference, which it would refuse."""
    return lambda *given, **named: trial.function(*given, **named)


def _said(sentence: str, most: int = 300) -> str:
    """A sentence that a student's program may have had a hand in."""
    sentence = one_line(sentence)
    return sentence if len(sentence) <= most else sentence[: most - 1] + "…"


@contextlib.contextmanager
def judging(needed: bool) -> Iterator[tuple[Judgement | None, str]]:
    """A sandbox that runs, what judges in it, and how it holds answers, in a sentence; nothing where none is needed."""
    if not needed:
        yield None, ""
        return
    with Sandbox() as sandbox:
        yield Judgement(sandbox), sandbox.in_words()


class _Copying(Trial):
    """A trial whose function gets copies of what the judge gives, as if it were in another process."""

    def change(self, *arguments: Any, **keywords: Any) -> Any:
        given, named = wire.unpack(wire.pack([arguments, keywords]))
        before = wire.pack([given, named])
        plain = self.function
        try:
            self.function = lambda *_, **__: wire.unpack(wire.pack(plain(*given, **named)))
            self.function.__signature__ = inspect.signature(plain)  # type: ignore[attr-defined]
            result = super().change(*arguments, **keywords)
        finally:
            self.function = plain
        if wire.pack([given, named]) != before:
            wire.put([arguments, keywords], [given, named])
        return result

    @contextlib.contextmanager
    def without(self, *names: str, autograd: bool = False) -> Iterator[None]:
        """What is forbidden can be seen only where it is used."""
        raise wire.NotPlainError("a forbidden function")
        yield


class _Remote:
    """An answer in a process of its own, called as if it were here."""

    def __init__(self, line: socket.socket, own: inspect.Signature | None, until: float) -> None:
        self._line, self._until, self.late, self.strange = line, until, False, ""
        self.__wrapped__ = min  # a function without a file: no line of this one is shown as the student's
        self._results: list[Any] = []
        if own is not None:
            self.__signature__ = own

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Call it there.

        Raises:
            Exception: what it raised there, by name and sentence.
        """
        try:
            self._line.settimeout(max(0.001, self._until - time.monotonic()))
            wire.send(self._line, [given, named])
            kind, *details = wire.receive(self._line)
        except TimeoutError:
            self.late = True
            raise GaveUp from None
        except _BROKEN:
            raise SystemExit from None
        if kind == "gave":
            return self._gave([given, named], *details)
        if kind == "raised":
            raise _raised(*details)
        if details and details[0] == "generator":
            return _nothing()
        self.strange = str(details[0]) if details else "?"
        raise NotRight("The answer is of a kind that this exercise cannot use.")

    def _gave(self, mine: Any, result: Any, changed: list[Any], moved: list[Any]) -> Any:
        for theirs in changed:
            wire.put(mine, theirs)
        for place, one in moved:
            wire.put(self._results[place], one)
        self._results.append(result)
        return result


def _nothing() -> Iterator[None]:
    """A generator, as the answer's is one."""
    yield


def _raised(name: str, sentence: str) -> BaseException:
    """An error of the same name, which the card repeats."""
    kind = getattr(builtins, str(name), None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        with contextlib.suppress(TypeError):  # some want more than a sentence
            return kind(str(sentence))
    return type(str(name), (Exception,), {})(str(sentence))
