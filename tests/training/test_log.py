"""What a run shows and writes while it trains: its log, its bar and its live picture."""

import base64
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tqdm.auto import tqdm

from deepnet_edu import TrainConfig, build_model, probe
from deepnet_edu.course import live as live_module
from deepnet_edu.figures.loss import LossFigure
from deepnet_edu.messages import UserError
from deepnet_edu.model import random_batch
from deepnet_edu.probing import Watch
from deepnet_edu.profiles import DepthProfile, History
from deepnet_edu.training import bar as bar_module
from deepnet_edu.training.bar import Bar
from deepnet_edu.training.log import COLUMNS, RunLog, read_metrics
from tests.rules import small_config

LOSSES = [2.7182818284590455, 1e-05, float("nan"), 0.1 + 0.2, 7.0]


def profile(step: int) -> DepthProfile:
    share = np.array([1.0, 0.25 * step])
    roles = {"query": np.array([0.125, np.nan])}
    return DepthProfile("x", input_share=share, gradient_by_role=roles, stack=("decoder",) * 2, layer=(0, 0))


def write(log: RunLog, first: int, last: int) -> None:
    for i in range(first, last):
        scale = 1024.0 if i % 2 else None
        log.write(
            i, loss=LOSSES[i], gradient_norm=0.5, learning_rate=1e-7 * i, tokens=64 * (i + 1), seconds=0.25, scale=scale
        )
        if i % 2 == 0:
            log.write_profile(i, profile(i))


def content(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The folder of a run that nothing has disturbed."""
    with RunLog(tmp_path / "whole") as log:
        write(log, 0, len(LOSSES))
    return tmp_path / "whole"


# The log


def test_what_is_read_is_what_was_written(whole: Path) -> None:
    history = read_metrics(whole, "a run")
    assert history.label == "a run"
    assert read_metrics(whole).label == "whole"
    np.testing.assert_array_equal(history.loss, LOSSES)  # to the last digit, NaN included
    assert history.learning_rate == [1e-7 * i for i in range(5)]
    assert history.tokens == [64, 128, 192, 256, 320]
    assert history.seconds == [0.25] * 5
    assert list(history.profiles) == [0, 2, 4]
    np.testing.assert_equal(asdict(history.profiles[2]), asdict(profile(2)))


def test_the_file_is_plain_csv(whole: Path) -> None:
    header, first, second, *_ = (whole / "metrics.csv").read_text().splitlines()
    assert header == ",".join(COLUMNS)
    assert first == "0,2.7182818284590455,0.5,0.0,,64,0.250000"
    assert second == "1,1e-05,0.5,1e-07,1024.0,128,0.250000"


def test_every_line_is_there_before_the_next_step(tmp_path: Path) -> None:
    """Nothing waits in this process's memory for a kill."""
    log = RunLog(tmp_path)
    assert content(tmp_path) == {"metrics.csv": ",".join(COLUMNS) + "\n"}
    for i in range(3):
        write(log, i, i + 1)
        assert read_metrics(tmp_path).tokens[-1] == 64 * (i + 1)
        assert len(read_metrics(tmp_path).profiles) == i // 2 + 1
    log.close()


@pytest.mark.parametrize("name", ["metrics.csv", "profiles.jsonl"])
def test_killed_at_any_byte_and_resumed(whole: Path, name: str) -> None:
    """From every length that the file may have had at the kill, a resumed run writes the undisturbed run's files."""
    expected = content(whole)
    for length in range(0, len(expected[name]), 7):
        (whole / name).write_text(expected[name][:length])
        lines = expected[name][:length].count("\n")
        before = read_metrics(whole)
        assert len(before.profiles if name == "profiles.jsonl" else ["header", *before.loss]) == max(
            lines, name == "metrics.csv"
        )
        at = {"metrics.csv": max(lines - 1, 0), "profiles.jsonl": 2 * lines}[name]  # a checkpoint is never ahead of it
        for step in {at, max(at - 2, 0), 0}:
            with RunLog(whole, resume_at=step) as log:
                assert len(read_metrics(whole).loss) == min(step, 5)
                assert all(known < step for known in read_metrics(whole).profiles)
                write(log, step, len(LOSSES))
            assert content(whole) == expected


def test_a_second_run_is_refused_and_changes_nothing(whole: Path) -> None:
    before = content(whole)
    with pytest.raises(UserError, match=r"holds a run already.*--resume.*--out FOLDER"):
        RunLog(whole)
    assert content(whole) == before
    (whole / "metrics.csv").unlink()
    with pytest.raises(UserError, match="holds a run already"):
        RunLog(whole)
    (whole / "profiles.jsonl").unlink()
    (whole / "checkpoints" / "step-00000002").mkdir(parents=True)
    with pytest.raises(UserError, match="holds a run already"):
        RunLog(whole)


@pytest.mark.parametrize("begun", ["", "step,lo", ",".join(COLUMNS) + "\n"])
def test_a_run_that_was_killed_before_its_first_step_holds_nothing(tmp_path: Path, begun: str) -> None:
    (tmp_path / "metrics.csv").write_text(begun)
    with RunLog(tmp_path) as log:
        write(log, 0, 1)
    assert len(read_metrics(tmp_path).loss) == 1


@pytest.mark.parametrize("resume_at", [None, 3])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, resume_at: int | None) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,accuracy\n3,0.5\n")
    with pytest.raises(UserError, match="not the record of a run: expected a first line 'step,loss"):
        RunLog(tmp_path, resume_at)
    assert content(tmp_path) == {"metrics.csv": "epoch,accuracy\n3,0.5\n"}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(UserError, match=r"cannot be written \(.*choose another folder"):
            RunLog(folder)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log._files["metrics.csv"] = open("/dev/full", "w", buffering=1)  # noqa: SIM115
        with pytest.raises(UserError, match=r"metrics.csv cannot be written \(No space left on device\): make room"):
            write(log, 0, 1)


def test_reading_says_what_is_wrong(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no metrics.csv: expected the folder of a run"):
        read_metrics(tmp_path)
    with (whole / "profiles.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(UserError, match="Line 4 of .*profiles.jsonl is not what a run writes: '{}'"):
        read_metrics(whole)
    with (whole / "metrics.csv").open("a") as file:
        file.write("5,1.0,2.0\n6,")
    with pytest.raises(UserError, match="Line 7 of .*metrics.csv is not what a run writes: '5,1.0,2.0'"):
        read_metrics(whole)


def test_tensorboard_gets_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Writer:
        def __init__(self, folder: str, **settings: Any) -> None:
            seen.append((folder, settings["purge_step"]))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, value, step))

        def close(self) -> None:
            seen.append("closed")

    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    with RunLog(tmp_path, resume_at=1) as log:
        write(log, 1, 2)
    folder = str(tmp_path / "tensorboard")
    numbers = [("loss", 1e-5, 1), ("gradient_norm", 0.5, 1), ("learning_rate", 1e-7, 1), ("scale", 1024.0, 1)]
    assert seen == [(folder, 1), *numbers, "closed"]


def test_without_tensorboard_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with RunLog(tmp_path) as log:
        write(log, 0, 2)
    assert not (tmp_path / "tensorboard").exists()
    assert not recwarn.list


def test_gradients_before_clipping_are_larger_by_the_factor() -> None:
    config = small_config("deepnorm", "decoder", 2)
    model, batch = build_model(config), random_batch(config, 2, 6)
    with Watch(model) as watch:
        model.loss(batch).backward()
    weights = [weight for sublayer in model.sublayers() for weight in sublayer.matrices()]
    found = watch.profile({weight: weight.grad / 8 for weight in weights}, factor=8.0)
    expected = probe(model, batch)
    np.testing.assert_allclose(found.gradient_norm, expected.gradient_norm, rtol=1e-5)
    for role, norms in expected.gradient_by_role.items():
        np.testing.assert_allclose(found.gradient_by_role[role], norms, rtol=1e-5)


def test_a_probed_profile_comes_back() -> None:
    config = small_config("pre_ln", "encoder_decoder", 2)
    measured = probe(build_model(config), random_batch(config, 2, 6))
    again = DepthProfile.from_dict(measured.to_dict())
    assert again.to_dict() == measured.to_dict()
    assert (again.stack, again.layer, again.sublayer) == (measured.stack, measured.layer, measured.sublayer)
    np.testing.assert_allclose(again.gradient_norm, measured.gradient_norm, rtol=1e-3)
    np.testing.assert_array_equal(again.depth, measured.depth)
    assert again.judge().passed == measured.judge().passed


# The bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(bar_module.time, "perf_counter", lambda: now.seconds)
    return now


def test_the_rate_is_that_of_the_last_steps(clock: SimpleNamespace) -> None:
    with Bar(100, progress=False, peak=1e9) as bar:
        clock.seconds += 90  # the first step compiles
        bar.update(2.0, 256, 256 * 2e6)
        assert bar.rate is None
        assert bar.text == ""
        clock.seconds += 2
        bar.update(2.0, 256, 256 * 2e6)
        assert bar.rate == pytest.approx(128)
        assert bar.text == ", 128 tokens/s, 26% of peak"
        for _ in range(20):  # from now on twice as fast
            clock.seconds += 1
            bar.update(2.0, 256)
        assert bar.rate == pytest.approx(256)


@pytest.mark.parametrize(("flops", "peak"), [(None, 1e9), (1e9, None)])
def test_no_share_of_a_peak_that_is_not_known(clock: SimpleNamespace, flops: float | None, peak: float | None) -> None:
    with Bar(3, progress=False, peak=peak) as bar:
        for _ in range(3):
            clock.seconds += 1
            bar.update(2.0, 1234, flops)
        assert bar.text == ", 1,234 tokens/s"


def test_a_bar_in_a_file_is_not_a_line_per_step(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(500, start=100) as bar:
        for i in range(400):
            bar.update(3.0 - i / 400, 64)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1  # at its end
    assert shown.count("\r") < 5
    assert "500/500" in shown
    assert "loss 2.002" in shown  # of the last step
    assert "tokens/s" in shown


@pytest.mark.parametrize(("terminal", "drawn"), [(False, range(12, 20)), (True, range(400, 405))])
def test_a_bar_is_drawn_as_often_as_somebody_looks(
    terminal: bool, drawn: range, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of a second: every half minute into a file, where it would be a line each; at once in a terminal."""
    written: list[str] = []
    monkeypatch.setattr(
        sys, "stderr", SimpleNamespace(write=written.append, flush=lambda: None, isatty=lambda: terminal)
    )
    monkeypatch.setattr("tqdm.std.time", lambda: clock.seconds)
    with Bar(400) as bar:
        for _ in range(400):
            clock.seconds += 1
            bar.update(2.0, 64)
    assert "".join(written).count("tokens/s") in drawn
    assert "loss 2.000, 64 tokens/s" in written[-2] + written[-1]


def test_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(3, progress=False) as bar:
        bar.update(1.0, 64)
    assert capsys.readouterr() == ("", "")
    assert not tqdm._instances


# The live picture


def run(steps: int) -> History:
    return History("x", loss=[5.0 / (i + 1) for i in range(steps)], learning_rate=[1e-3] * steps)


def test_the_live_picture_follows_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, clock = [], SimpleNamespace(seconds=0.0)
    handle = SimpleNamespace(update=shown.append)
    monkeypatch.setattr(live_module, "display", lambda picture, display_id: shown.append(picture) or handle)
    monkeypatch.setattr(live_module.time, "monotonic", lambda: clock.seconds)
    live = live_module.LiveLoss(TrainConfig(steps=40), "Loss falls from 5 to below 1.", {"ln 16": 2.77})
    for i in range(39):
        live(run(i + 1))
        clock.seconds += 0.1
    assert len(shown) == 1 + 8  # at first, and twice a second
    live(run(40))
    assert len(shown) == 10  # the last step, however soon
    bundle = shown[-1]._repr_mimebundle_()
    assert bundle["text/plain"] == "[picture] Loss falls from 5 to below 1."
    assert 'alt="Loss falls from 5 to below 1."' in bundle["text/html"]
    assert shown[-1].png.startswith(b"\x89PNG")
    assert base64.b64encode(shown[-1].png).decode() in bundle["text/html"]
    assert len(shown[-1].png) < len(shown[-2].png)  # it is kept, so it is packed


def test_a_slow_drawing_is_made_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 1% of the time goes into drawing."""
    clock, drawn = SimpleNamespace(seconds=0.0), []

    def update(picture: object) -> None:
        clock.seconds += 0.05
        drawn.append(picture)

    monkeypatch.setattr(live_module, "display", lambda picture, display_id: SimpleNamespace(update=update))
    monkeypatch.setattr(live_module.time, "monotonic", lambda: clock.seconds)
    live = live_module.LiveLoss(TrainConfig(steps=1000), "A run.")
    for i in range(200):
        live(run(i + 1))
        clock.seconds += 0.5
    assert 0.05 * len(drawn) <= 0.01 * clock.seconds + 0.05
    assert len(drawn) > 15


def test_axes_are_fixed_by_the_first_step() -> None:
    figure = LossFigure(40, 1e-3, "A run.", {"ln 16": 2.77})
    upper, lower = figure.figure.axes
    figure.move(run(1))
    fixed = (upper.get_xlim(), upper.get_ylim(), lower.get_ylim())
    assert fixed == ((0, 40), (0, 5.75), (0, pytest.approx(1.15e-3)))
    history = run(20)
    history.loss[7] = float("inf")
    figure.move(history)
    assert (upper.get_xlim(), upper.get_ylim(), lower.get_ylim()) == fixed
    assert [len(line.get_xdata()) for line in (upper.lines[-1], lower.lines[-1])] == [20, 20]
    blank = LossFigure(40, 1e-3, "A run.")
    blank.move(History("x", loss=[float("nan")], learning_rate=[1e-3]))
    assert blank.figure.axes[0].get_ylim() == (0, 1.15)


def test_empty_and_moved_pictures_differ() -> None:
    figure = LossFigure(40, 1e-3, "A run.")
    pictures = [figure.png(history) for history in (History("x"), run(1), run(20), run(20))]
    assert len(set(pictures)) == 3
