"""deepnet-edu train --gpus: its ranks are stopped, killed and resumed, and one of them says what happened."""

import json
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from typer.testing import CliRunner

from deepnet_edu.cli import app
from deepnet_edu.experiment.config import find_run
from deepnet_edu.experiment.execute import find_plan
from deepnet_edu.messages import UserError
from deepnet_edu.planning import Plan, rank_memory
from deepnet_edu.training.checkpoint import checkpoints
from deepnet_edu.training.log import read_metrics
from tests.training.distributed.conftest import COMMAND, CPU, LIMIT, SMALL, finished, training, wait_for_steps


def test_a_run_is_stopped_goes_on_is_killed_goes_on_to_its_end_and_goes_on_alone(tmp_path: Path) -> None:
    """A signal reaches the command alone, which hands it on; a rank that is killed ends all, and another says so."""
    out = tmp_path / "run"
    (temporary := tmp_path / "tmp").mkdir()
    endless, again = ["--set=steps=100000", *CPU], [str(out / "run.toml"), "--resume"]
    with training("laptop-1000", *SMALL, *endless, f"--out={out}", TMPDIR=str(temporary)) as process:
        wait_for_steps(process, out, 3)
        process.send_signal(signal.SIGHUP)
        said, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signal.SIGHUP, errors
    assert re.search(r"Stopped after \d+ steps; they are saved\. Resume with: deepnet-edu train .*--resume", said)
    assert "Traceback" not in errors

    before = len(read_metrics(out).loss)
    with training(*again, *endless, "--plan=pipeline=2", TMPDIR=str(temporary)) as process:
        wait_for_steps(process, out, before + 6)
        ranks = {rank.environ()["RANK"]: rank for rank in psutil.Process(process.pid).children()}
        ranks["0"].kill()  # whose bar is on the terminal
        said, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks.values())
    sentences = [line for line in errors.split("\n") if "ended without a word" in line]
    assert len(sentences) == 1, errors
    assert sentences[0].startswith("Rank 0 (process ")
    assert sentences[0].endswith("--resume --gpus=2 --plan=pipeline=2 --device=cpu")
    assert "Traceback" not in errors + said

    last = int(checkpoints(out)[-1].name.removeprefix("step-"))
    more = [f"--set=steps={last + 2}", *CPU, "--plan=shard=2"]  # which talks by every kind of message
    with training(*again, *more, TMPDIR=str(temporary)) as process:
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    assert len(read_metrics(out).loss) == last + 2
    assert not [path.name for path in temporary.iterdir() if path.name.startswith("deepnet_edu_")]

    alone = ["train", *again, f"--set=steps={last + 4}", "--device=cpu", "--json"]
    done = CliRunner().invoke(app, alone, catch_exceptions=False)
    assert json.loads(done.stdout)["steps"] == last + 4
    assert len(read_metrics(out).loss) == last + 4


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
    with pytest.raises(UserError, match="add --gpus 4"):
        find_plan("auto", run, None, "cpu")
