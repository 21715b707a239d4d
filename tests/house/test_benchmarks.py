"""The benchmarks' own arithmetic and judgement, and their pieces at sizes for any CPU."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import (
    gpu_cases,
    gpu_depth,
    laptop_1000,
    lesson_12,
    lesson_13,
    lesson_14,
    tied_embedding,
    tournament,
    training_cpu,
)
from benchmarks.resumed import complete
from deepnet_edu import TrainConfig, train
from deepnet_edu.data import digits
from deepnet_edu.experiment.config import find_run
from deepnet_edu.planning import count_parameters

FLOPS, FORMULA = 4e14, 50_000_000_000


def ran(seconds: float, peak: int = FORMULA, **more: Any) -> dict[str, Any]:
    times = [1.1 * seconds, seconds, 0.9 * seconds]
    return {"seconds": times, "build": 1.0, "first step": 30.0, "loss": 5.0, "peak": peak, "reserved": peak, **more}


def judged(found: dict[str, Any], name: str = "a", peak: float = 8e14) -> dict[str, Any]:
    rows = [gpu_depth.row(who, many, int(FLOPS), 16384, peak) for who, many in found.items()]
    return {one["what"].split(",")[0]: one for one in gpu_depth.goals(name, found, rows, FORMULA)} | {
        "fastest way": gpu_depth.goals(name, found, rows, FORMULA)[1 + (name != "c")]
    }


def test_goals_that_are_reached_are_said_so() -> None:
    """0.8 s for 4e14 operations at a peak of 8e14: 62% of it; TorchScale takes 2.5 times as long."""
    found = {"ours": [ran(1.0)] * 2, "ours, graph": [ran(0.8)] * 2, "TorchScale": [ran(2.0)] * 2}
    said = judged(found)
    assert said["model FLOPs utilisation of the measured peak"]["measured"] == pytest.approx(0.625)
    assert said["times TorchScale's steps a second"]["measured"] == pytest.approx(2.5)
    assert said["first step"]["measured"] == 30
    assert all(one["met"] is True for one in said.values())


def test_a_missed_goal_is_missed() -> None:
    found = {
        "ours": [ran(1.5, peak=int(1.2 * FORMULA), **{"first step": 91.0})],
        "TorchScale": [ran(2.9)],
        "TorchScale, layers compiled": [ran(1.0)],
    }
    said = judged(found)
    assert all(one["met"] is False for one in said.values())
    assert said["model FLOPs utilisation of the measured peak"]["measured"] == pytest.approx(1 / 3, abs=1e-4)
    assert said["peak memory off the formula"]["measured"] == pytest.approx(0.2)
    assert said["fastest way"]["measured"] == pytest.approx(1 / 1.5, abs=1e-3)
    rows = [gpu_depth.row(who, many, int(FLOPS), 16384, 8e14) for who, many in found.items()]
    case = {"what": "x", "device": "H100", "measured peak, TFLOP/s": 800, "rows": rows, "goals": [*said.values()]}
    text = gpu_depth.report("a", case)
    assert "ours: 1.5 s a step, 10,923 tokens a second, 33.3% of the peak, first step 91 s, 60 GB, rounds 1" in text
    assert text.count("missed: ") == len(said)
    assert "reached" not in text
    assert "a goal for an H200; this is H100" in text


def test_what_did_not_run_is_not_measured_and_says_why() -> None:
    found = {"ours": [{"missing": "out of memory", "wall": 1.0}], "TorchScale": [ran(2.0)]}
    rows = [gpu_depth.row(who, many, int(FLOPS), 16384, 8e14) for who, many in found.items()]
    assert rows[0] == {"contender": "ours", "missing": "out of memory"}
    assert {one["met"] for one in gpu_depth.goals("b", found, rows, FORMULA)} == {None}
    without = {"ours": [ran(0.01)], "TorchScale": [{"missing": "TorchScale is not here", "wall": 1.0}]}
    said = judged(without, "c")
    assert said["times TorchScale's steps a second"]["met"] is None
    assert said["fastest way"]["met"] is None
    assert said["first step"]["met"] is True


def test_a_goal_over_all_ways_is_met_only_after_all_have_run() -> None:
    """One more way can make the fastest faster and the worst worse: a miss stays one, and what was met is open."""
    spent = [{"missing": "not run: the minutes were spent", "wall": 0.0}]
    failed = [{"missing": "RuntimeError: out of memory", "wall": 9.0}]
    found = {"ours": [ran(1.0)], "ours, graph": spent, "TorchScale": [ran(3.0)], "TorchScale, compiled": spent}
    rows = [gpu_depth.row(who, many, int(FLOPS), 16384, 8e14) for who, many in found.items()]
    said = {one["what"]: one for one in gpu_depth.goals("a", found, rows, FORMULA)}
    assert said["times TorchScale's steps a second, eager"]["met"] is True
    assert said[gpu_depth.FASTEST_WAY]["met"] is said[gpu_depth.WORST_WAY]["met"] is None
    assert said[gpu_depth.FASTEST_WAY]["measured"] == 3
    assert said[gpu_depth.FASTEST_WAY]["not run"] == ["TorchScale, compiled"]
    assert judged({**found, "TorchScale, compiled": failed})["fastest way"]["met"] is True
    assert judged({**found, "TorchScale": [ran(1.5)]})["fastest way"]["met"] is False


def test_the_record_is_judged_as_the_script_judges() -> None:
    record = json.loads(gpu_depth.RESULTS.read_text(encoding="utf-8"))
    assert gpu_depth.rejudged(json.loads(json.dumps(record))) == record
    for case in record["cases"].values():
        for one in case["goals"]:
            assert not (one["met"] and gpu_depth.not_run(case["rows"], gpu_depth.OVER_ALL.get(one["what"], "nobody")))


def test_ratios_are_taken_within_a_round() -> None:
    """The machine is twice as slow in the second round; no contender is the slower for it."""
    found = {"ours": [ran(1.0), ran(2.0)], "TorchScale": [ran(3.0), ran(6.0)]}
    assert gpu_depth.ratio(found, "TorchScale", "ours") == pytest.approx(3)
    found["TorchScale"][1] = {"missing": "no result"}
    assert gpu_depth.ratio(found, "TorchScale", "ours") == pytest.approx(3)
    assert gpu_depth.ratio(found, "TorchScale", None) is None


def test_later_rounds_have_the_fastest_of_ours_and_who_got_through(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    speeds = {"ours": 2.0, "ours, graph": 1.0, "torch.nn": 3.0}

    def measure(task: dict[str, Any], limit: float, caches: str) -> dict[str, Any]:
        order.append(who := task["contender"])
        return (
            {**ran(speeds[who]), "wall": 1.0} if who in speeds else {"missing": "no result within 150 s", "wall": 1.0}
        )

    monkeypatch.setattr(gpu_depth, "measure", measure)
    everyone = ["TorchScale", *speeds]
    found = gpu_depth.rounds_of("c", everyone, 3, time.monotonic() + 1000, True, "")
    assert order == [*everyone, *["ours, graph", "torch.nn"] * 2]
    assert len(found["ours, graph"]) == 3
    assert len(found["ours"]) == len(found["TorchScale"]) == 1


def test_everyone_has_a_first_turn_before_anyone_has_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 s for a case: the last one in the first round may take all that is left."""
    limits: dict[str, float] = {}

    def measure(task: dict[str, Any], limit: float, caches: str) -> dict[str, Any]:
        limits.setdefault(task["contender"], limit)
        return {**ran(1.0), "wall": 60.0}

    monkeypatch.setattr(gpu_depth, "measure", measure)
    found = gpu_depth.rounds_of("c", ["TorchScale", "ours"], 2, time.monotonic() + 100, True, "")
    assert limits["ours"] == pytest.approx(100, abs=2)
    assert len(found["ours"]) == 1  # a second round would take 120 s


def test_when_the_minutes_are_spent_the_rest_is_not_run() -> None:
    found = gpu_depth.rounds_of("c", ["TorchScale", "ours"], 3, time.monotonic() + 1, True, "")
    assert {many[0]["missing"] for many in found.values()} == {"not run: the minutes were spent"}


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "slow.py"
    script.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(gpu_depth, "__file__", str(script))
    found = gpu_depth.measure({}, 0.5, str(tmp_path))
    assert found["missing"] == "no result within 0 s"
    script.write_text("raise SystemExit('no such thing')")
    assert gpu_depth.measure({}, 60, str(tmp_path))["missing"] == "no such thing"


def test_the_shapes_are_those_of_the_paper() -> None:
    """3.8 billion parameters are the paper's, with a larger vocabulary; six operations a parameter and token."""
    a, b, c = (gpu_cases.CASES[name] for name in "abc")
    assert count_parameters(a.config)["all"] == pytest.approx(3.7e9, rel=0.01)
    for case in (a, b, c):
        parameters = count_parameters(case.config)
        looked_up = case.config.max_length + (0 if case.config.shared_embeddings else case.config.vocab_size)
        weights = parameters["all"] - looked_up * case.config.d_model
        products = 6 * weights * case.sequences * case.tokens
        assert products < gpu_cases.model_flops(case) < 1.2 * products
    assert b.sequences * b.tokens == 32_768
    assert c.sequences * c.tokens == 256


def test_model_flops_leave_out_what_the_mask_hides() -> None:
    case = gpu_cases.smoke(gpu_cases.CASES["b"])
    c, T, rows = case.config, case.tokens, case.sequences * case.tokens
    layer = 4 * c.d_model**2 + 2 * c.d_model * c.d_ff
    products = 6 * rows * (c.decoder_layers * layer + c.vocab_size * c.d_model)
    attention = 3 * c.decoder_layers * 4 * case.sequences * c.d_model * T * (T + 1) // 2
    assert gpu_cases.model_flops(case) == products + attention


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_ours_and_torch_nn_train_each_shape(name: str) -> None:
    case = gpu_cases.smoke(gpu_cases.CASES[name])
    for contender in ("ours", "torch.nn"):
        found = gpu_cases.contend(case, contender, "cpu")
        assert len(found["seconds"]) == case.steps
        assert 3 < found["loss"] < 6  # ln 40 = 3.7


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_torch_nns_stacks_are_as_large_as_ours(name: str) -> None:
    case = gpu_cases.smoke(gpu_cases.CASES[name])
    counts = count_parameters(case.config)
    theirs = gpu_cases.TorchStacks(case.config, case.checkpoint_every)
    assert sum(p.numel() for p in theirs.parameters()) == counts["encoder"] + counts["decoder"]


def test_a_contender_that_cannot_run_says_why() -> None:
    found = gpu_depth.work({"case": "c", "contender": "ours, graph", "smoke": True})
    assert found["missing"].startswith("UserError: cuda_graph=True")


def test_groups_compute_the_same_again() -> None:
    """A layer that returns more than the stream, as TorchScale's do, and one that does not."""

    class Layer(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), "attention"

    torch.manual_seed(0)
    layers = torch.nn.ModuleList(Layer(3, 3) for _ in range(5))
    x = torch.randn(2, 3)
    groups = gpu_cases.grouped(layers, 2)
    assert [len(group.layers) for group in groups] == [2, 2, 1]
    assert gpu_cases.grouped(layers, 0) is layers
    results = []
    for some in (layers, groups):
        y = x
        for layer in some:
            y, *rest = layer(y)
        assert len(rest) == 1
        results.append([y, *torch.autograd.grad(y.sum(), [layer.weight for layer in layers])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_the_device_is_measured() -> None:
    found = gpu_cases.machine("cpu", (32, 64), 1000)
    assert found["peak"] == max(found["products"].values()) > 0
    assert found["bandwidth"] > 0


def test_without_a_gpu_one_sentence_and_bad_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_depth.py"])
    with pytest.raises(SystemExit) as refused:
        gpu_depth.main()
    sentence = "There is no CUDA device here: run this on a machine with one, or try the script with --smoke."
    assert refused.value.code == sentence  # which Python prints, and then ends with status 1
    for wrong in (["--only", "a,d"], ["--rounds", "0"], ["--minutes", "-1"]):
        with pytest.raises(SystemExit):
            gpu_depth.parsed(wrong)


def test_a_smoke_run_judges_keeps_and_leaves_other_cases_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "record.json"
    out.write_text(json.dumps({"cases": {"a": {"rows": "as they were"}}}))
    monkeypatch.setattr(gpu_cases, "CONTENDERS", ("ours", "ours, graph"))
    monkeypatch.setattr(gpu_depth, "measure", lambda task, limit, caches: {**gpu_depth.work(task), "wall": 0.1})
    monkeypatch.setattr(sys, "argv", ["gpu_depth.py", "--smoke", "--only", "c", "--rounds", "1", "--out", str(out)])
    gpu_depth.main()
    record = json.loads(out.read_text())
    assert record["cases"]["a"] == {"rows": "as they were"}
    case = record["cases"]["c"]
    assert {"device", "driver", "versions", "seed", "date", "measured peak, TFLOP/s", "rows", "goals"} <= set(case)
    assert [row.get("missing", "")[:9] for row in case["rows"]] == ["", "UserError"]
    assert "not measured: times TorchScale's steps a second" in capsys.readouterr().out


def test_what_the_loop_adds_is_judged() -> None:
    pairs = [(1.04, 1.0), (2.08, 2.0), (9.0, 1.0)]  # one turn was disturbed
    row = training_cpu.loop_row(12, pairs, [(1.17, 1.0)] * 3)
    assert row["loop over bare"] == pytest.approx(1.04)
    assert row["profile_every for its share"] == 5  # 12.5% every fifth step
    (kept,) = training_cpu.targets([row])
    (missed,) = training_cpu.targets([{**row, "loop over bare": 1.051}])
    assert kept["met"] is True
    assert missed["met"] is False


def test_checkpoints_are_compared_with_the_copy_of_their_round() -> None:
    rounds = [
        {"bytes": 2e9, "save": 2.0, "copy": 1.0, "load": 0.5},
        {"bytes": 2e9, "save": 4.0, "copy": 2.0, "load": 1.0},
    ]
    row = training_cpu.checkpoint_row(1000, rounds)
    assert row["save over copy"] == {"median": 2, "least": 2, "most": 2}
    assert row["load, GB/s"]["most"] == 4


def test_the_pieces_of_the_loops_benchmark_run() -> None:
    for every in (0, 1):
        pairs = training_cpu.loop_over_bare(2, 2, every)
        assert len(pairs) == 2
        assert min(map(min, pairs)) > 0
    (found,) = training_cpu.checkpoint_rounds(2, 1)
    assert found["bytes"] > 3 * 4 * count_parameters(training_cpu.config(2))["all"]


def test_the_readme_names_every_benchmark_and_what_to_carry() -> None:
    folder = Path(gpu_depth.__file__).parent
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert not [path.name for path in folder.glob("*.py") if path.stem != "__init__" and f"`{path.name}`" not in text]
    wanted = [line for line in (folder / "peers.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(f"{line} " in text or f"{line}\n" in text for line in wanted)


def test_a_tournament_resumes(tmp_path: Path) -> None:
    """Every arm has the same tries; a second call measures what is missing alone, and keeps the rest as it is."""
    out = tmp_path / "tournament.json"
    arms = ["pre_ln", "deepnorm", "deepnorm again"]
    rows = tournament.tournament(out, arms[:2], tournament.SMOKE)
    tries, finals = len(tournament.SMOKE.rates), len(tournament.SMOKE.seeds)
    assert len(rows) == 2 * (tries + finals)
    for arm in arms[:2]:
        mine = [row for row in rows if row["arm"] == arm]
        best = min((row for row in mine if row["phase"] == "tuning"), key=lambda row: row["loss"])
        assert {row["learning_rate"] for row in mine if row["phase"] == "final"} == {best["learning_rate"]}
    again = tournament.tournament(out, arms, tournament.SMOKE)
    assert again[: len(rows)] == rows
    record = json.loads(out.read_text(encoding="utf-8"))
    assert len(record["runs"]) == 3 * (tries + finals)
    twins = [[row["loss"] for row in again if row["arm"] == arm] for arm in arms[1:]]
    assert twins[0] != twins[1]
    with pytest.raises(ValueError, match="did you mean 'deepnorm'"):
        tournament.tournament(out, ["deepnrm"], tournament.SMOKE)


def test_the_proof_of_the_laptops_preset_ends_as_soon_as_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 4 layers. Stopped in between, it resumes where it last saved."""
    monkeypatch.setattr(laptop_1000, "HELD_OUT", 2)
    run = find_run("laptop-1000", ("decoder_layers=4", "steps=50", "warmup=5"))
    assert laptop_1000.reaches(4.5, run, tmp_path / "proof")
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert not laptop_1000.reaches(1.0, run, tmp_path / "proof")
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["step 20", "step 40", "step 50"]
    assert not (tmp_path / "proof").exists()

    looked: list[float] = []

    def stopped(*_: Any) -> float:
        looked.append(9.0)
        if len(looked) == 2:
            raise KeyboardInterrupt
        return 9.0

    with monkeypatch.context() as patch:
        patch.setattr(laptop_1000, "held_out", stopped)
        with pytest.raises(KeyboardInterrupt):
            laptop_1000.reaches(1.0, run, tmp_path / "proof")
    assert capsys.readouterr().out.count("step ") == 1
    assert not laptop_1000.reaches(1.0, run, tmp_path / "proof")
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["step 40", "step 50"]


def test_the_record_of_lesson_12_resumes(tmp_path: Path) -> None:
    """Every arm has the same tries and more where its best rate is the last one; a second call keeps what there is."""
    out, size = tmp_path / "lesson_12.json", lesson_12.SMOKE
    rows = lesson_12.record(out, ["deepnorm"], size, jobs=1)
    shapes = {(n, width) for panel in lesson_12.widths(size).values() for n, width in panel.items()}
    assert {(row["layers"], row["width"]) for row in rows} == shapes
    for one in shapes:
        mine = [row for row in rows if (row["layers"], row["width"]) == one]
        tried = [row for row in mine if row["seed"] == 0]
        assert {*size.rates} < {row["rate"] for row in tried}  # of two rates the best is at an edge
        best = min(tried, key=lambda row: row["tune"])
        assert [row["rate"] for row in mine if row["seed"]] == [best["rate"]] * len(size.seeds)
        assert all(row["flops_a_byte"] <= size.budget for row in mine)
    del rows[0]
    out.write_text(json.dumps({"runs": rows}), encoding="utf-8")
    again = lesson_12.record(out, ["deepnorm"], size, jobs=1)
    assert again[: len(rows)] == rows
    assert len(again) == len(rows) + 1
    with pytest.raises(ValueError, match="did you mean 'deepnorm'"):
        lesson_12.record(out, ["deepnrm"], size, jobs=1)


def test_the_record_of_lesson_13_resumes(tmp_path: Path) -> None:
    """Every arm at both rates, its better one again at the depths that are repeated; and the multilingual arm."""
    out, size = tmp_path / "lesson_13.json", lesson_13.SMOKE
    rows = lesson_13.record(out, ["deepnorm", "many"], size.layers, size, jobs=1)
    for layers in size.layers:
        mine = [row for row in rows if (row["layers"], row["languages"]) == (layers, len(size.languages))]
        assert {row["rate"] for row in mine if not row["seed"]} == {*size.rates}
        best = min((row for row in mine if not row["seed"]), key=lambda row: row["tune"])
        again = [row["rate"] for row in mine if row["seed"]]
        assert again == [best["rate"]] * len(size.seeds) * (layers in size.repeated)
        assert all(row["outcome"] == "diverged" for row in mine)  # three updates teach nothing
        assert all(low <= score <= high for score, low, high in (row["bleu"] for row in mine))
    (many,) = (row for row in rows if row["languages"] == len(size.all_languages))
    assert {*many["by_language"]} == {*size.all_languages}
    del rows[0]
    out.write_text(json.dumps({"runs": rows}), encoding="utf-8")
    assert len(lesson_13.record(out, ["deepnorm"], size.layers, size, jobs=1)) == len(rows) + 1
    with pytest.raises(ValueError, match="did you mean 'deepnorm'"):
        lesson_13.record(out, ["deepnrm"], size.layers, size, jobs=1)
    with pytest.raises(ValueError, match="expected some of 1, 2"):
        lesson_13.record(out, ["deepnorm"], [3], size, jobs=1)


def test_the_record_of_lesson_14_says_which_images_were_wrong(tmp_path: Path) -> None:
    rows = lesson_14.record(tmp_path / "lesson_14.json", lesson_14.SMOKE, jobs=1)
    assert len(rows) == len(lesson_14.RULES) * (len(lesson_14.SMOKE.rates) + len(lesson_14.SMOKE.seeds))
    images = len(digits().test.targets)
    assert all(row["test"] == pytest.approx(len(row["wrong"]) / images, abs=1e-5) for row in rows)


def test_the_arms_of_one_table_differ_in_what_they_say(tmp_path: Path) -> None:
    """Before training a head that is apart, or an encoder that is held, changes nothing, and a turned head repeats
    nothing; afterwards the encoder that was held is the one that it was."""
    size = tied_embedding.SMOKE
    dates = tied_embedding.Dates(size, one_text=False)
    models = {
        name: tied_embedding.build(arm, size, dates.vocab_size, False, 0) for name, arm in tied_embedding.ARMS.items()
    }
    start = {name: tied_embedding.look(model, dates) for name, model in models.items()}
    one = start["one table"]
    assert start["head apart, same start"] == start["one table, encoder held"] == one
    assert one[2] > 5 * start["one table, head turned"][2]
    assert one[2] > 5 * start["own tables"][2]
    for name in ("one table", "one table, encoder held"):
        model = models[name]
        before = [weight.detach().clone() for weight in model.stacks()["encoder"].parameters()]
        train(model, dates, TrainConfig(2, warmup=0), progress=False)
        kept = all(map(torch.equal, before, model.stacks()["encoder"].parameters()))
        assert kept == (name == "one table, encoder held")


def test_the_record_of_one_table_resumes(tmp_path: Path) -> None:
    out, size = tmp_path / "tied.json", tied_embedding.SMOKE
    wanted = [one for one in tied_embedding.plan(size) if one["arm"] in ("one table", "own tables")]
    rows = complete(out, {}, wanted, lambda settings: tied_embedding.measure(settings, size))
    assert {row["part"] for row in rows} == {"start", "arms", "decoder", "long"}
    for row in rows:
        assert row["step"] == ([0] if row["part"] == "start" else [0, 2])
        assert ("bleu" in row) == (row["part"] == "long")
        assert ("common" in row) == (row["part"] != "decoder")
    assert complete(out, {}, wanted, lambda settings: pytest.fail("measured again")) == rows
