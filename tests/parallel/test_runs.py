"""Runs of many ranks: kept, stopped, resumed by others, killed; each failure one sentence by one rank."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from typer.testing import CliRunner

from deepnet_edu.cli import app
from deepnet_edu.messages import UserError
from deepnet_edu.parallel import Plan
from deepnet_edu.planning import rank_memory
from deepnet_edu.training.checkpoint import checkpoints
from deepnet_edu.training.log import read_metrics
from deepnet_edu.training.runs import find_run
from deepnet_edu.training.whole import find_plan
from tests.parallel.cases import run_of
from tests.parallel.conftest import ROOT, environment, finished, in_one_process

COMMAND = [sys.executable, "-c", "from deepnet_edu.cli import main; main()"]
SMALL = [
    f"--set={text}"
    for text in ("decoder_layers=2", "d_model=16", "n_heads=2", "d_ff=16", "save_every=5", "sequences=4", "length=16")
]
CPU = ["--gpus=2", "--device=cpu"]


def test_all_plans_have_the_same_losses(two: Any, four: Any, single: list[float]) -> None:
    assert len(single) == 6
    for rank, name in [(two[0], "two"), (four[0], "four")]:
        assert rank[name] == pytest.approx(single, abs=1e-9)


@pytest.mark.parametrize(
    "name", ["four under data=2", "four under pipeline=2", "single under shard=2", "single under pipeline=2"]
)
def test_a_run_goes_on_under_another_plan(name: str, two: Any, single: list[float]) -> None:
    assert two[0][name] == pytest.approx(single, abs=1e-9)


@pytest.mark.parametrize("name", ["two", "four"])
def test_a_run_of_many_goes_on_in_one_process(name: str, two: Any, single: list[float], folder: Path) -> None:
    path = run_of(folder, f"{name} in one")
    shutil.copytree(run_of(folder, name), path)
    shutil.rmtree(path / "checkpoints" / "step-00000006")
    assert in_one_process(path) == pytest.approx(single, abs=1e-9)


def test_a_checkpoint_is_of_all_ranks_and_holds_no_code(four: Any, folder: Path) -> None:
    path = run_of(folder, "four") / "checkpoints" / "step-00000006"
    files = sorted(file.name for file in path.iterdir())
    shards = [f"shard-0000{rank}-model-00001-of-00001.safetensors" for rank in (1, 2, 3, 4)]
    assert files == ["manifest.json", "random.safetensors", *shards, "state.json"]
    assert json.loads((path / "state.json").read_text())["plan"] == "shard=2,pipeline=2"
    # A shard is a share: no file has all of it, and embeddings that two stages have are there once.
    sizes = [(path / name).stat().st_size for name in shards]
    assert max(sizes) < 0.5 * sum(sizes)


def test_only_one_rank_writes(two: Any, folder: Path) -> None:
    lines = (run_of(folder, "two") / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", *map(str, range(6))]


SAID = {
    "missing": r"shard-00002.*is missing\. The one before it is .*step-00000003: delete step-00000006",
    "flipped": r"shard-00002.*its SHA-256 is another\. The one before it is .*step-00000003",
    "other training": r"of another training configuration: learning_rate=0\.01 there, 0\.02 here",
    "other model": r"of another model configuration: d_ff=12 there, 16 here",
    "again": r"holds a run already, and nothing in it was changed",
    "different version": r"Rank 0 has deepnet_edu '0\.0\.0', rank 1 has '0\.1\.0'",
    "different steps": r"Rank 0 has train\.steps 1, rank 1 has 2: all ranks need the same",
    "stopped": r"Stopped after 2 steps, saved as .*step-00000002: resume with resume=True",
}


@pytest.mark.parametrize("what", SAID)
def test_all_ranks_end_with_the_same_sentence(what: str, two: Any) -> None:
    first, second = (rank[what] for rank in two)
    assert first == second
    assert re.search(SAID[what], first)
    assert "\n" not in first


def test_a_run_is_stopped_goes_on_is_killed_and_goes_on_alone(tmp_path: Path) -> None:
    """A signal reaches the command alone, which hands it on; a rank that is killed ends all within 30 seconds."""
    out = tmp_path / "run"
    endless = ["--set=steps=100000", *CPU]
    process = started("laptop-1000", *SMALL, *endless, f"--out={out}")
    wait_for_steps(out, 3)
    process.send_signal(signal.SIGHUP)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGHUP, errors
    assert re.search(r"Stopped after \d+ steps; they are saved\. Resume with: deepnet-edu train .*--resume", said)
    assert "Traceback" not in errors

    before = len(read_metrics(out).loss)
    process = started(str(out / "run.toml"), "--resume", *endless, "--plan=pipeline=2")
    wait_for_steps(out, before + 6)
    ranks = psutil.Process(process.pid).children()
    begin = time.monotonic()
    ranks[0].kill()  # whose bar stands on the terminal
    said, errors = process.communicate(timeout=60)
    assert time.monotonic() - begin < 30
    assert process.returncode == 1
    assert not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks)
    sentences = [line for line in errors.split("\n") if "ended without a word" in line]
    assert len(sentences) == 1, errors
    assert sentences[0].startswith("Rank 0 (process ")
    assert sentences[0].endswith("--resume --gpus=2 --plan=pipeline=2 --device=cpu")
    assert "Traceback" not in errors + said

    last = int(checkpoints(out)[-1].name.removeprefix("step-"))
    more = ["train", str(out / "run.toml"), "--resume", f"--set=steps={last + 2}", "--device=cpu", "--json"]
    done = CliRunner().invoke(app, more, catch_exceptions=False)
    assert json.loads(done.stdout)["steps"] == last + 2
    assert len(read_metrics(out).loss) == last + 2


def test_what_a_rank_refuses_is_one_sentence_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("here")
    done = finished([*COMMAND, "train", "laptop-1000", *SMALL, *CPU, f"--out={tmp_path}"])
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path} is not an empty folder: begin the run in another one with --out.\n"
    assert not done.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--plan=pipeline=3"], "needs data=1 × shard=1 × pipeline=3 = 3 processes, and there are 2"),
        (["--plan=pipeline=2,schedule=interleaved"], "has 4 stages, and the model 2 layers"),
        (["--plan=pipelines=2"], "Unknown key 'pipelines': did you mean 'pipeline'?"),
        (["--plan=data=2,shard=2"], "shards see their own share of the batch already"),
        (["--plan=pipeline=2,microbatches=1"], "schedule=1f1b keeps 2 ranks busy with 2 or more"),
        (["--plan=pipeline=2,microbatches=3"], "A batch of 4 sequences cannot be cut into 1 × 3 equal pieces"),
        (["--gpus=0"], "--gpus '0': expected a whole number from 1"),
        (["--device=auto"], "PyTorch finds no GPU here. With --device cpu they are processes on this CPU"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_anything_starts(
    options: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    given = ["train", "laptop-1000", *SMALL, *CPU, *options]
    with pytest.raises(UserError) as error:
        CliRunner().invoke(app, given, catch_exceptions=False)
    assert sentence in str(error.value)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("plan", ["data=2", "shard=2", "pipeline=2"])
def test_two_gpus_have_the_loss_of_one(plan: str, tmp_path: Path) -> None:
    given = [*COMMAND, "train", "laptop-1000", *SMALL, "--set=steps=10", "--device=cuda", "--json"]
    one, two = (
        json.loads(finished([*given, f"--out={tmp_path / name}", *options]).stdout)
        for name, options in (("one", []), ("two", ["--gpus=2", f"--plan={plan}"]))
    )
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "train", *arguments], env=environment(), cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def wait_for_steps(out: Path, steps: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with_steps = out / "metrics.csv"
        if with_steps.exists() and with_steps.read_text().count("\n") > steps:
            return
        time.sleep(0.1)
    raise AssertionError(f"{out} has not come to step {steps}: {os.listdir(out) if out.exists() else 'nothing there'}")


def test_a_plan_is_found_for_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    run = find_run("laptop-1000")
    plan, why = find_plan("auto", run, 2, "cpu")
    assert plan == Plan(data=2)
    assert why.startswith("Copies fit: a GPU needs ")
    need = max(rank.total for rank in rank_memory(run.model, *run.data.batch_shape, data=2))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=2 * need))
    plan, why = find_plan("auto", run, 2, "cpu")
    assert plan != Plan(data=2)
    assert why.startswith("A copy needs ")
    with pytest.raises(UserError, match="say how many, --gpus 4"):
        find_plan("auto", run, None, "cpu")
