"""Runs of many ranks in folders: kept, and resumed by others; each failure is one sentence, the same on all ranks."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.training.distributed.cases import run_of
from tests.training.distributed.conftest import in_one_process

pytestmark = pytest.mark.xdist_group("ranks")


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
