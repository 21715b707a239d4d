"""What was measured and committed says what lessons and docstrings say of it."""

import importlib
import json
from pathlib import Path

import pytest

from deepnet_edu.course.places import RECORDS

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
RECORD = json.loads((RECORDS / "updates.json").read_text(encoding="utf-8"))
#: log-log slopes of the one-step update against depth, expected from an independent run with other batches and seeds.
SLOPES = {
    ("deepnorm", "sgd"): {"matrices": 0.00, "biases": 0.48, "norms": 1.00, "all": 0.86},
    ("deepnorm", "sign"): {"matrices": 0.49, "biases": 0.71, "norms": 1.02, "all": 0.65},
    ("deepnorm_glm", "sgd"): {"matrices": -1.00, "biases": -0.02, "norms": 1.00, "all": 0.96},
    ("deepnorm_glm", "sign"): {"matrices": -0.01, "biases": 0.45, "norms": 1.02, "all": 0.68},
}


def row(residual: str, step: str, group: str) -> dict:
    keys = {"residual": residual, "step": step, "parameters": group}
    (found,) = (row for row in RECORD["updates"] if keys.items() <= row.items())
    return found


def profile(init: str, residual: str, layers: int) -> dict:
    keys = {"init": init, "residual": residual, "layers": layers}
    (found,) = (row for row in RECORD["profiles"] if keys.items() <= row.items())
    return found


@pytest.mark.parametrize(("residual", "step"), list(SLOPES))
def test_slopes_by_group(residual: str, step: str) -> None:
    for group, expected in SLOPES[residual, step].items():
        assert row(residual, step, group)["slope"] == pytest.approx(expected, abs=0.1)


def test_the_trend_of_figure_5() -> None:
    """DeepNorm's update is far below Post-LN's at every depth, and rises too, by a factor of 5 to 12 over 16 times
    the depth: "nearly constant" is of the order, not of the line."""
    ours, post = row("deepnorm", "sgd", "all")["update"], row("post_ln", "sgd", "all")["update"]
    assert all(post[i] > 50 * ours[i] for i in range(5))
    assert 5 < ours[-1] / ours[0] < 12
    assert post[-1] / post[0] > 20
    matrices = row("deepnorm", "sgd", "matrices")["update"]
    assert max(matrices) < 0.1
    assert min(row("post_ln", "sgd", "matrices")["update"]) > 10


@pytest.mark.parametrize("init", ["xavier", "torchscale"])
def test_deepnorms_profile_is_flat_in_both_inits(init: str) -> None:
    for layers in (6, 100, 1000):
        found = profile(init, "deepnorm", layers)
        assert found["token similarity"] < 0.02
        assert found["gradient ratio"] == pytest.approx(1, abs=0.05)
    constant = [profile(init, "deepnorm", layers)["W2 gradient · √N"] for layers in (6, 24, 100, 1000)]
    assert max(constant) / min(constant) < 1.1  # the gradient of W₂ falls as N^(-1/2)


def test_post_lns_tokens_collapse_while_its_gradients_may_not() -> None:
    found = profile("xavier", "post_ln", 48)
    assert found["token similarity"] > 0.999
    assert 0.1 < found["gradient ratio"] < 10
    assert profile("torchscale", "post_ln", 1000)["gradient ratio"] < 0.05
    assert profile("torchscale", "post_ln", 12)["token similarity"] < 0.5  # a smaller init collapses later


def test_pre_lns_variance_grows_with_depth() -> None:
    variance = {layers: profile("xavier", "pre_ln", layers)["variance"] for layers in (6, 12, 24, 48, 100, 1000)}
    assert variance[1000] / variance[100] == pytest.approx(10, rel=0.25)
    assert variance[48] / variance[6] == pytest.approx(8, rel=0.4)


def test_warm_up_allows_a_larger_peak_and_a_clip_makes_a_bad_batch_one_among_many() -> None:
    """Lesson 10: at the best rate of each, runs with and without warm-up end at the same loss, over three seeds."""
    runs = json.loads((RECORDS / "lesson_10.json").read_text(encoding="utf-8"))["runs"]
    ends: dict[tuple, list[float]] = {}
    for run in runs:
        key = (run["part"], run["schedule"], run["rate"], run["clip"], run["bad"])
        ends.setdefault(key, []).append(sum(run["loss"][-4:]) / 4)
    assert {len(values) for values in ends.values()} == {3}
    mean = {key: sum(values) / 3 for key, values in ends.items()}
    best = {
        schedule: min((mean[key], key[2]) for key in mean if key[:2] == ("warm-up", schedule))
        for schedule in ("warm-up", "constant")
    }
    assert abs(best["warm-up"][0] - best["constant"][0]) < 0.1
    assert best["warm-up"][1] > 1.5 * best["constant"][1]
    cost = {
        clip: [
            bad - good
            for bad, good in zip(*(ends["clipping", "warm-up", 1e-3, clip, bad] for bad in (13, None)), strict=True)
        ]
        for clip in (1.0, None)
    }
    assert max(map(abs, cost[1.0])) < 0.05
    assert min(cost[None]) > 0.3


def test_depth_is_cheap() -> None:
    """Half of what the matrix products allow, and the other targets of docs/depth.md; a missing peer is named."""
    record = json.loads((RESULTS / "depth.json").read_text(encoding="utf-8"))
    assert len(record["targets"]) == 11
    missed = {one["what"] for one in record["targets"] if one["met"] is False}
    assert not missed
    missing = {row["contender"] for row in record["rows"] if "missing" in row}
    assert all("TorchScale is not here" in row["missing"] for row in record["rows"] if row["contender"] in missing)
    assert {row["contender"] for row in record["rows"]} >= {"floor", "ours", "torch.nn", "TorchScale", "probe"}


def test_pages_have_the_tables_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RESULTS.parent))
    tables = importlib.import_module("tables")
    texts = [path.read_text(encoding="utf-8") for path in tables.PAGES]
    assert [tables.page(text) for text in texts] == texts, "run python benchmarks/tables.py"
    assert [text.count(", from the record -->") for text in texts] == [1, 8]


TIED = json.loads((RECORDS / "tied_embedding.json").read_text(encoding="utf-8"))["runs"]


def tied(arm: str, column: str, step: int) -> list[float]:
    """A column of an arm after this many updates, seed by seed."""
    rows = [row for row in TIED if (row["part"], row["arm"]) == ("arms", arm)]
    assert [row["seed"] for row in rows] == [0, 1, 2]
    return [row[column][row["step"].index(step)] for row in rows]


def test_one_table_repeats_and_its_encoder_collapses() -> None:
    """What ``ModelConfig`` says of ``shared_embeddings``: by arms that each take one explanation away."""
    one = tied("one table", "source", 160)
    for arm in ("one table", "head apart, same start"):
        assert min(tied(arm, "repeats", 0)) > 0.3
        assert min(tied(arm, "common", 40)) > 0.999
        assert max(tied(arm, "source", 80)) < 0.1
        assert max(tied(arm, "source", 160)) < 1
    for arm in ("own tables", "one table, head turned", "one table, encoder held", "one table, α = 1"):
        assert max(tied(arm, "common", 40)) < 0.6
        assert all(b > a + 0.7 for a, b in zip(one, tied(arm, "source", 160), strict=True))
    for arm in ("one table, head turned", "one table, encoder held", "one table, Pre-LN, tokens × 5"):
        assert min(tied(arm, "source", 160)) > 3
    assert all(b > a for a, b in zip(one, tied("one table, warm-up 100", "source", 160), strict=True))


def test_the_wider_the_more_one_table_repeats_at_the_start() -> None:
    start = {(r["arm"], r["layers"], r["width"]): r["loss"][0] for r in TIED if r["part"] == "start"}
    assert [start["one table", 4, width] > height for width, height in ((48, 6.5), (192, 11), (512, 18))] == [True] * 3
    assert max(loss for (arm, *_), loss in start.items() if arm == "own tables") < 6.1
    assert start["one table", 100, 48] == pytest.approx(start["one table", 4, 48], abs=0.1)


def test_one_table_is_a_plateau_and_no_wall() -> None:
    bleu = {(row["arm"], row["steps"]): row["bleu"] for row in TIED if row["part"] == "long"}
    assert bleu["one table", 400] < 10
    assert min(bleu["own tables", 400], bleu["one table", 800], bleu["own tables", 800]) > 99
