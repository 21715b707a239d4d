"""The folder of a run: one writer, every ending saves, a full disk at any write, and nothing of anybody's is lost."""

import errno
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from deepnet_edu import ModelConfig, TrainConfig, build_model, files, lock, train
from deepnet_edu.cli import app, main
from deepnet_edu.cli.training import ask
from deepnet_edu.data import TokenMap
from deepnet_edu.experiment.config import FILE, find_run
from deepnet_edu.experiment.execute import TOKENIZER, carry_out, unwritten
from deepnet_edu.experiment.forecast import beyond
from deepnet_edu.lock import Holder, beat
from deepnet_edu.messages import UserError
from deepnet_edu.training import Interrupted, read_metrics
from deepnet_edu.training.checkpoint import checkpoints
from deepnet_edu.training.claim import LOCK, claimed

MODEL = ModelConfig("decoder", "lm", 1, d_model=8, n_heads=2, d_ff=8, vocab_size=16, max_length=16)
SMALL = ["decoder_layers=1", "d_model=8", "n_heads=2", "d_ff=8", "sequences=2", "length=16", "steps=4", "save_every=2"]
PARENT = Holder.of(os.getppid())
ELSEWHERE = replace(PARENT, host="elsewhere")


def run(out: Path, steps: int = 4, **how: Any) -> None:
    config = TrainConfig(steps=steps, save_every=2)
    train(build_model(MODEL), TokenMap(batch_size=2), config, out=out, progress=False, **how)


def command(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def sentence(*arguments: object) -> str:
    """That the command ends with."""
    with pytest.raises(UserError) as error:
        CliRunner().invoke(app, ["train", *map(str, arguments)], catch_exceptions=False)
    assert "\n" not in str(error.value)
    return str(error.value)


def small(*more: str) -> list[str]:
    return [f"--set={text}" for text in (*SMALL, *more)] + ["--device=cpu"]


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on how often a run was stopped."""
    last = checkpoints(folder)[-1]
    kept = {file.name: file.read_bytes() for file in last.iterdir() if file.suffix == ".safetensors"}
    history = read_metrics(folder)
    profiles = {step: profile.to_dict() for step, profile in history.profiles.items()}
    return {"last": last.name, "loss": history.loss, "tokens": history.tokens, "profiles": profiles, **kept}


# One writer


def test_a_second_writer_is_refused_and_the_first_ends_as_it_would(tmp_path: Path) -> None:
    refused = []

    def once_more(_history: object) -> None:
        with pytest.raises(UserError, match=rf"is being written by process {os.getpid()} on .*\(this one\)") as error:
            run(tmp_path / "run", resume=True)
        refused.append(error)

    run(tmp_path / "run", on_step=once_more)
    assert len(refused) == 4
    run(tmp_path / "alone")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "alone")
    assert not (tmp_path / "run" / LOCK).exists()


def test_another_process_is_named(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / LOCK).write_text(json.dumps(vars(PARENT)))
    before = content(tmp_path)
    with pytest.raises(UserError, match=rf"process {PARENT.pid} on {PARENT.host}, since .*: kill {PARENT.pid}\."):
        run(tmp_path, 6, resume=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "left",
    [json.dumps(vars(replace(PARENT, pid=2**22 + 1))), json.dumps(vars(replace(PARENT, boot="earlier"))), "", "{"],
)
def test_the_lock_of_a_process_that_was_killed_holds_nobody_off(left: str, tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / LOCK).write_text(left)
    run(tmp_path, 6, resume=True)
    assert len(read_metrics(tmp_path).loss) == 6


def test_another_machine_is_waited_for_and_then_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "SILENCE", 0.1)
    assert command("laptop-1000", f"--out={tmp_path}", *small()).exit_code == 0
    again = [tmp_path / FILE, "--resume", "--set=steps=6", "--device=cpu"]
    (tmp_path / LOCK).write_text(json.dumps(vars(ELSEWHERE)))
    assert f"process {PARENT.pid} on elsewhere" in (said := sentence(*again))
    assert "resume with --take-over" in said
    with monkeypatch.context() as alive:
        alive.setattr(time, "sleep", lambda _: beat(tmp_path / LOCK))
        assert "on elsewhere, since" in (said := sentence(*again, "--take-over"))
    assert "which is alive" in said
    done = command(*again, "--take-over")
    assert done.exit_code == 0
    assert "for a sign of life of process" in done.stderr
    assert len(read_metrics(tmp_path).loss) == 6
    assert "--take-over resumes" in sentence("laptop-1000", *small(), "--take-over")


def test_who_was_taken_over_writes_nothing_more(tmp_path: Path) -> None:
    def taken(history: Any) -> None:
        if len(history.loss) == 3:
            (tmp_path / LOCK).unlink()
            (tmp_path / "other").write_text(json.dumps(vars(PARENT)))
            (tmp_path / "other").rename(tmp_path / LOCK)

    with pytest.raises(UserError, match=rf"was taken over by process {PARENT.pid}"):
        run(tmp_path, 8, on_step=taken)
    assert len(read_metrics(tmp_path).loss) == 3
    assert (tmp_path / LOCK).exists()  # the other's


def test_a_folder_that_was_made_for_nothing_is_gone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no reason"), claimed(tmp_path / "new"):
        raise UserError("no reason")
    assert not (tmp_path / "new").exists()


# Every ending saves


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of a run that is not stopped."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert command("laptop-1000", f"--out={out}", *small()).exit_code == 0
    return outcome(out)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_a_signal_saves_and_the_status_tells_it_from_done(
    name: str, tmp_path: Path, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(signal, name)
    given = signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored
    monkeypatch.setattr("deepnet_edu.training.bar.Bar.update", lambda *_: os.kill(os.getpid(), number))
    done = command("laptop-1000", f"--out={tmp_path / 'run'}", *small())
    after = signal.signal(number, given)
    assert done.exit_code == 128 + number
    assert "Stopped after 1 steps; they are saved. Resume with: deepnet-edu train" in done.stdout
    assert after is signal.SIG_DFL
    monkeypatch.undo()
    assert command(tmp_path / "run" / FILE, "--resume").exit_code == 0
    assert outcome(tmp_path / "run") == alone


def test_what_is_ignored_stays_ignored_and_own_handlers_stay(tmp_path: Path) -> None:
    """nohup ignores SIGHUP."""
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    try:
        run(tmp_path, on_step=lambda _: [os.kill(os.getpid(), one) for one in (signal.SIGHUP, signal.SIGUSR1)])  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGUSR1, before[1])
    assert len(heard) == len(read_metrics(tmp_path).loss) == 4


def test_the_terminal_is_closed(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if not pid:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
        try:
            sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
            sys.argv = ["deepnet-edu", "train", "laptop-1000", f"--out={tmp_path / 'run'}", *small("steps=1000000")]
            sys.argv.append("--yes")
            main()
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 1)
        finally:
            os._exit(99)
    end = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "step-00000002").exists() and time.monotonic() < end:
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 65536)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP
    assert len(read_metrics(tmp_path / "run").loss) == int(checkpoints(tmp_path / "run")[-1].name[5:])


def test_nobody_to_show_the_bar_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_text: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=write, flush=lambda: None, isatty=lambda: True))
    history = train(build_model(MODEL), TokenMap(batch_size=2), TrainConfig(steps=3), out=tmp_path)
    assert len(history.loss) == 3


def test_a_signal_is_part_of_the_exception(tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as stopped:
        run(tmp_path, on_step=lambda _: os.kill(os.getpid(), signal.SIGUSR1))
    assert (stopped.value.signal, stopped.value.step) == (signal.SIGUSR1, 1)


# A full disk

WRITES = ["tokenizer=bpe", "vocab_size=270", "profile_every=2", "keep=1"]
NUMBERS = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO]


@pytest.fixture
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepnet_edu.experiment.data.python_documents", lambda: ["a few words of text " * 9] * 5)


def carried_out(folder: Path) -> dict[str, Any]:
    """As the command does."""
    given = find_run("laptop-1000", [*SMALL, *WRITES])
    try:
        return carry_out(given, folder, "cpu", (folder / FILE).exists(), "again", progress=False)
    except OSError as error:
        raise unwritten(error, folder, "again") from None


def writes(monkeypatch: pytest.MonkeyPatch, full_at: int = 10**9) -> list[str]:
    """The files that are written from now on; from the ``full_at``-th on, the disk is full."""
    seen: list[str] = []

    def point(path: Path) -> None:
        seen.append(path.name)
        if len(seen) > full_at:
            number = NUMBERS[full_at % len(NUMBERS)]
            raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(files, "write_point", point)
    return seen


@pytest.mark.usefixtures("few_words")
def test_a_disk_that_is_full_at_any_write_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = writes(monkeypatch)
    carried_out(tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    names = {FILE, TOKENIZER, "metrics.csv", "profiles.jsonl", "state.json", "manifest.json", "step-00000002"}
    assert names | {f"{name}.safetensors" for name in ("model", "optimizer", "random")} <= set(seen)
    for at in range(len(seen)):
        folder = tmp_path / str(at)
        writes(monkeypatch, at)
        with pytest.raises(UserError, match=r": (make room|look after the disk, which reports a fault), then") as error:
            carried_out(folder)
        assert "\n" not in str(error.value)
        assert not (folder / LOCK).exists()
        monkeypatch.setattr(files, "write_point", lambda _path: None)
        carried_out(folder)
        assert outcome(folder) == expected, seen[at]
        assert not list(folder.rglob("*.part"))


def test_a_limit_on_the_size_of_files_is_one_sentence(tmp_path: Path) -> None:
    """safetensors has an error of its own, which is not an OSError."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        said = "nothing"
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
            run(tmp_path)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(read, 10_000).decode()
    assert said.startswith("UserError: The checkpoint of step 2 could not be written")
    assert "File too large" in said
    assert ": make room, then resume" in said
    run(tmp_path, resume=True)
    run(tmp_path / "alone")
    assert outcome(tmp_path) == outcome(tmp_path / "alone")


def test_what_to_do_depends_on_what_failed() -> None:
    for number, what in ((errno.ENOSPC, "make room"), (errno.EROFS, "make it writable"), (errno.ENOENT, "fix that")):
        assert files.remedy(os.strerror(number)) == what


# What is the user's stays


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    """A file of one's own by the name that a run's has."""
    tables = find_run("laptop-1000", SMALL).to_toml()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / FILE).write_text("# why these values\n" + tables)
    yield tmp_path / "mine" / FILE
    assert (tmp_path / "mine" / FILE).read_text() == "# why these values\n" + tables


@pytest.mark.parametrize("more", [(), ("--set=steps=1",), ("--resume",), ("--resume", "--set=steps=1")])
@pytest.mark.parametrize("beside", [None, "notes.txt", "tokenizer.json", "train.lock.txt"])
def test_a_file_of_ones_own_is_not_a_run(mine: Path, more: tuple[str, ...], beside: str | None) -> None:
    if beside:
        (mine.parent / beside).write_text("x")
    before = content(mine.parent)
    said = sentence(mine, *more)
    assert "holds no run to resume" in said if "--resume" in more else "begin the run in another" in said
    assert content(mine.parent) == before


def test_its_run_goes_to_another_folder(mine: Path, tmp_path: Path) -> None:
    assert command(mine, f"--out={tmp_path / 'run'}", "--device=cpu").exit_code == 0
    assert len(read_metrics(tmp_path / "run").loss) == 4


def test_a_file_that_was_edited_is_not_replaced(tmp_path: Path) -> None:
    assert command("laptop-1000", f"--out={tmp_path}", *small()).exit_code == 0
    edited = "# longer next time\n" + (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(edited)
    assert "change train.steps in it" in sentence(tmp_path / FILE, "--resume", "--set=steps=6", "--device=cpu")
    assert command(tmp_path / FILE, "--resume", "--device=cpu").exit_code == 0
    assert (tmp_path / FILE).read_text() == edited


def test_data_edited_in_the_runs_own_file(tmp_path: Path) -> None:
    """It is the file that one is told to pass, so it agrees with itself."""
    assert command("laptop-1000", f"--out={tmp_path}", *small()).exit_code == 0
    path = tmp_path / FILE
    path.write_text(path.read_text().replace("length = 16", "length = 8"))
    assert "another data configuration: length=16 there, 8 here" in sentence(path, "--resume", "--set=steps=6")


def test_checkpoints_that_are_gone_are_not_taken_for_a_beginning(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "checkpoints").rename(tmp_path / "moved")
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"metrics.csv has the steps of a run, and .*checkpoints is gone: put it back"):
        run(tmp_path, 6, resume=True)
    assert content(tmp_path) == before
    (tmp_path / "moved").rename(tmp_path / "checkpoints")
    run(tmp_path, 6, resume=True)


def test_a_run_that_begins_again_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was killed before its first checkpoint, say."""
    run(tmp_path)
    for path in checkpoints(tmp_path):
        shutil.rmtree(path)
    run(tmp_path, resume=True)
    assert "has no checkpoint: the run begins at its first step again." in capsys.readouterr().err
    assert len(read_metrics(tmp_path).loss) == 4


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_gap_in_the_metrics_is_said(kept: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    lines = (tmp_path / "metrics.csv").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.csv").write_text("".join(lines[:kept]))
    run(tmp_path, 6, resume=True)
    lost = 4 - max(kept - 1, 0)
    assert (
        f"it lacks {lost} of the 4 steps before the checkpoint, the first of them {4 - lost}."
        in capsys.readouterr().err
    )
    assert len(read_metrics(tmp_path).loss) == 6 - lost


def test_metrics_that_are_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.csv")
    with pytest.raises(UserError, match=r"metrics.csv is not a file"):
        run(tmp_path)


# Sizes are asked first


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("decoder_layers=100000", "GB of memory, and this machine has 8 GB"),
        ("d_model=16384", "GB of memory"),
        ("sequences=100000", "GB of memory"),
        ("vocab_size=10000000", "GB of memory"),
        ("steps=100000000", "takes about"),
        ("accumulate=1000000", "takes about"),
    ],
)
def test_a_run_beyond_this_machine_is_refused_with_its_numbers(
    override: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepnet_edu.experiment.forecast.limit", lambda _device: 8_000_000_000)
    found = sentence("laptop-1000", f"--set={override}", "--device=cpu", f"--out={tmp_path / 'run'}")
    assert found.startswith("This run ")
    assert said in found
    assert found.endswith("Make it smaller, or start it all the same with --yes.")
    assert not (tmp_path / "run").exists()


def test_small_runs_and_known_ones_are_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepnet_edu.experiment.forecast.limit", lambda _device: 10**12)
    assert beyond(find_run("laptop-1000", SMALL)) == ("", "")
    assert beyond(find_run("laptop-1000")) == ("", "")
    memory, time_ = beyond(find_run("wmt17-18x18"))
    assert not memory
    assert "years" in time_ or "days" in time_
    asked = partial(ask, "wmt17-18x18", device="cpu", devices=1, resume=False, sure=False, quiet=True)
    asked(find_run("wmt17-18x18"))
    with pytest.raises(UserError, match=r"takes about .*1,000,000 steps"):
        asked(find_run("wmt17-18x18", ["steps=1000000"]))


def test_hours_are_asked_about_where_somebody_can_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hours = find_run("laptop-1000", [*SMALL, "steps=100000000"])
    asked = partial(ask, "my.toml", hours, device="cpu", devices=1, resume=False, sure=False, quiet=False)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    asked()
    assert re.search(r"^This run takes about \d\S* hours, 100,000,000 steps of 32 tokens", capsys.readouterr().err)
    questions: list[str] = []
    monkeypatch.setattr("typer.confirm", lambda text, **_: questions.append(text))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    asked()
    assert questions == ["Start it?"]


def test_yes_starts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepnet_edu.experiment.forecast.limit", lambda _device: 1000)
    assert "needs about" in sentence("laptop-1000", *small(), f"--out={tmp_path / 'run'}")
    assert command("laptop-1000", *small(), f"--out={tmp_path / 'run'}", "--yes").exit_code == 0


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps=100000000000000000000", "steps=100000000000000000000: expected 1,000,000,000 at most."),
        ("seed=-1", "seed=-1: expected a whole number, 0 or more."),
        ("seed=100000000000000000000000", "seed=100000000000000000000000: expected 9,223,372,036,854,775,807 at most."),
        ("seed=x", "train.seed='x': expected a whole number."),
        ("sequences=100000000000", "sequences=100000000000: expected 2,147,483,647 at most."),
        ("length=99999999999", "length=99999999999: expected 2,147,483,647 at most."),
        ("steps=" + "9" * 5000, "--set steps: its value is not one of a run (a number has thousands of digits)."),
        ("steps=" + "9" * 4000, "steps=a number of very many digits: expected 1,000,000,000 at most."),
        ("learning_rate=" + "9" * 4000, "train.learning_rate=a number of very many digits: expected a number."),
        ("steps=" + "[" * 100_000, "--set steps: its value is not one of a run (nested too deeply)."),
        ("x" * 5000, "expected key=value, for example --set steps=50."),
    ],
)
def test_values_without_end_are_refused_in_short(override: str, said: str) -> None:
    found = sentence("laptop-1000", f"--set={override}")
    assert said in found
    assert len(found) < 300


@pytest.mark.parametrize("value", [None, "x", 1.5, True, -1, 10**30, [1], 10**400])
@pytest.mark.parametrize("name", ["seed", "steps", "accumulate", "keep", "warmup", "save_every", "checkpoint_every"])
def test_whole_numbers_of_a_recipe(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.*: expected "):
        TrainConfig(**{"steps": 10, name: value})


@pytest.mark.parametrize("value", [None, "x", float("nan"), float("inf"), True, -1, [1], 10**400])
@pytest.mark.parametrize("name", ["learning_rate", "epsilon", "weight_decay", "clip", "betas"])
def test_numbers_of_a_recipe(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.*: expected "):
        TrainConfig(**{"steps": 10, name: value})


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "[train]\nsteps = " + "9" * 5000, "\x00", "= 3"])
def test_a_file_without_end_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(text)
    assert "my.toml cannot be read: " in sentence(tmp_path / "my.toml")


def test_a_file_that_is_a_pipe_a_folder_or_has_a_name_too_long(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    for name in ("pipe.toml", "folder.toml", "x" * 5000 + ".toml"):
        assert "cannot be read: " in (said := sentence(tmp_path / name))
        assert len(said) < 600


def test_an_out_with_a_name_too_long(tmp_path: Path) -> None:
    said = sentence("laptop-1000", *small(), f"--out={tmp_path / ('x' * 5000)}")
    assert "File name too long" in said
    assert "choose a shorter name" in said
    assert len(said) < 600


def test_what_train_is_given() -> None:
    model, task, config = build_model(MODEL), TokenMap(batch_size=2), TrainConfig(steps=1)
    for given, name in (((None, task, config), "model"), ((model, {}, config), "task"), ((model, task, "x"), "config")):
        with pytest.raises(ValueError, match=rf"^{name}=.*: expected "):
            train(*given)  # type: ignore[arg-type]
