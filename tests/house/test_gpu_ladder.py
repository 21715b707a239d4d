"""The ladder of levers for one GPU: its arithmetic, its judgement, and its pieces at sizes for any CPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_all, gpu_cases, gpu_ladder
from benchmarks.gpu_cases import CASES
from deepnet_edu.planning import training_memory

BASE, TOP, PEAK = gpu_ladder.BASE, gpu_ladder.TOP, 8e14


def ran(seconds: float, settings: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "settings": settings,
        "first step": 9.0,
        "rounds": [[seconds, 2 * seconds, seconds]],
        "losses": [5, 4],
        **more,
    }


def parts(**found: Any) -> dict[str, Any]:
    measured = {"peak": PEAK, "bandwidth": 4e12, "products": {}}
    return {"machine": {"found": measured, "wall": 1.0}, **{key.replace("_", ", "): one for key, one in found.items()}}


def test_each_step_has_those_below_it_but_choices_of_kernels() -> None:
    assert gpu_ladder.settings_of(BASE).items() - gpu_ladder.OFF.items() == {("compile", "layer"), ("cuda_graph", True)}
    top = gpu_ladder.settings_of(TOP)
    assert {"norm_kernel", "keep_attention", "recompute"} < top.keys()
    assert top["stream"] == "float32"
    tuned = gpu_ladder.settings_of("ours + tuned products")
    assert tuned == {**top, "autotune": True}
    assert gpu_ladder.settings_of("ours + both") == {**tuned, "attention": "cudnn"}
    with pytest.raises(KeyError):
        gpu_ladder.settings_of("ours + nothing")
    narrow = gpu_ladder.contenders("c")
    assert not any("recompute" in (settings or {}) for settings in narrow.values())
    assert narrow.keys() >= {BASE, *gpu_ladder.OTHERS}


def test_predictions_were_written_before_anything_was_measured() -> None:
    record = json.loads(gpu_all.RESULTS.read_text(encoding="utf-8"))
    made = gpu_ladder.predictions()
    if not record["parts"]:
        assert record["predictions"] == json.loads(json.dumps(made))
    rows = {row["step"]: row for row in made["milliseconds a layer, b"]}
    assert rows[BASE]["model FLOPs utilisation"] == pytest.approx(0.2945, abs=0.001)  # what was measured
    below = sum(lever.gain for lever in gpu_ladder.LADDER if not lever.beside)
    assert rows[TOP]["then"] == pytest.approx(2.936 - below)
    assert rows["ours + both"]["then"] == pytest.approx(2.936 - below - 0.27)


def test_executed_flops_count_what_is_computed_again() -> None:
    """The head is computed once, and so is the last product of each group of layers."""
    for name in "ab":
        case, model = CASES[name], gpu_cases.model_flops(CASES[name])
        every, half, kept = (
            gpu_ladder.executed_flops(case, settings) / model
            for settings in ({}, {"recompute": case.config.decoder_layers // 2}, {"keep_attention": True})
        )
        assert 1.30 < every < 4 / 3
        assert half - 1 == pytest.approx((every - 1) / 2, rel=0.01)
        assert kept < every
    assert gpu_ladder.executed_flops(CASES["c"], {}) == gpu_cases.model_flops(CASES["c"])


def test_as_few_layers_as_the_memory_allows_and_in_proportion_on_the_ladder() -> None:
    settings = gpu_ladder.settings_of(TOP)
    found = gpu_ladder.resolved(CASES["b"], settings, 150_000_000_000)
    assert 800 < found["recompute"] < 1000
    assert gpu_ladder.formula_bytes(CASES["b"], found) <= 0.9 * 150e9
    few = gpu_ladder.scaled(CASES["b"], gpu_ladder.rungs("b"), settings, 150_000_000_000)
    assert few["recompute"] == round(found["recompute"] / 1000 * gpu_ladder.RUNGS)
    assert gpu_ladder.resolved(CASES["c"], settings, 10**9).keys() == settings.keys() - {"recompute", "keep_attention"}


def test_kernels_are_told_apart_and_held_to_the_roofline() -> None:
    names = {
        "flash_fwd_kernel": "attention",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop": "attention",
        "nvjet_hsh_128x256": "products",
        "triton_tem_fused_addmm_gelu_0": "products",
        "triton_red_fused_add_native_layer_norm_2": "norms and sums",
        "multi_tensor_apply_kernel<FusedAdam>": "optimizer",
        "Memset (Device)": "other",
    }
    assert {name: gpu_ladder.kind_of(name) for name in names} == names
    kernels = [{"kernel": "nvjet", "calls": 2, "ms": 4.0}, {"kernel": "layer_norm", "calls": 2, "ms": 2.0}]
    work = {"products": (1.6e12, 4e9), "norms and sums": (0.0, 4e9)}
    rows = {row["kind"]: row for row in gpu_ladder.roofline(kernels, work, PEAK, 4e12)}
    assert rows["products"] == {
        "kind": "products", "ms": 4.0, "least ms": 2.0, "bound by": "operations", "share of the roofline": 0.5,
    }  # fmt: skip
    assert (rows["norms and sums"]["least ms"], rows["norms and sums"]["bound by"]) == (1.0, "bytes")
    assert rows["attention"]["share of the roofline"] is None


def test_least_work_is_that_of_the_shapes() -> None:
    """Operations of products and attention are those that are executed, but for the head and ends of groups."""
    case = CASES["b"]
    least = gpu_ladder.least_work(case, {})
    assert least["products"][0] == pytest.approx(gpu_ladder.executed_flops(case, {}), rel=0.1)
    wide, narrow = (gpu_ladder.least_work(case, {}, bytes_)["norms and sums"][1] for bytes_ in (4, 2))
    assert narrow < 0.7 * wide
    assert gpu_ladder.least_work(case, {"keep_attention": True})["attention"][0] < least["attention"][0]


def test_goals_are_judged_against_those_that_ran() -> None:
    steps = {BASE: ran(0.1, {}), "TorchScale": ran(2.0)}
    assert gpu_all.judged({}, False) == {}
    open_goal = gpu_all.judged(parts(c_together={"found": steps}), False)["c"]["goals"][0]
    assert open_goal["measured"] == 20
    assert (open_goal["met"], open_goal["not run"]) == (None, ["TorchScale, layers compiled"])
    steps["TorchScale, layers compiled"] = ran(1.6)
    assert gpu_all.judged(parts(c_together={"found": steps}), False)["c"]["goals"][0]["met"] is True
    steps["TorchScale, layers compiled"] = ran(1.4)
    slow = gpu_all.judged(parts(c_together={"found": steps}), False)
    assert (slow["c"]["goals"][0]["measured"], slow["c"]["goals"][0]["met"]) == (14, False)
    assert {goal["met"] for goal in slow["b"]["goals"]} == {None}
    assert "not measured: model FLOPs utilisation" in gpu_all.told({"cases": slow})
    assert "missed: times TorchScale's steps a second, its fastest way: 14" in gpu_all.told({"cases": slow})


def test_rounds_at_full_depth_are_brought_together() -> None:
    settings, formula = {"recompute": 900}, gpu_ladder.formula_bytes(CASES["b"], {"recompute": 900})
    key = f"b, alone, {gpu_all.BEST}, round "
    made = parts()
    for number, seconds in ((1, 2.0), (2, 2.2), (3, 2.4)):
        one = ran(seconds, settings, peak=int(1.05 * formula), reserved=formula)
        made[f"{key}{number}"] = {"found": {TOP: one}, "who": TOP, "wall": 1.0}
    row, *_ = gpu_all.judged(made, False)["b"]["full depth"]
    flops = gpu_cases.model_flops(CASES["b"])
    assert (row["contender"], row["rounds"], row["seconds a step"]["median"]) == (TOP, 3, 2.2)
    assert row["model FLOPs utilisation"] == pytest.approx(flops / 2.2 / PEAK, abs=1e-4)
    assert row["executed FLOPs utilisation"] > 1.25 * row["model FLOPs utilisation"]
    assert (row["peak over formula"], row["fell"]) == (1.05, True)
    goals = {goal["what"]: goal["met"] for goal in gpu_all.judged(made, False)["b"]["goals"]}
    assert goals == {
        "model FLOPs utilisation of the measured peak": True,
        "executed FLOPs utilisation": True,
        "peak memory off the formula, share, the worst of our ways": None,  # the lowest step was not run
    }


def test_contenders_take_turns_as_many_steps_each_and_the_loss_falls() -> None:
    case, saved = gpu_cases.smoke(CASES["b"]), []
    asked = {
        "ours": {"keep_attention": True, "recompute": 3},
        "torch.nn": None,
        "ours + x": "not run: this version has no x",
    }
    found = gpu_cases.contend_together(case, asked, 2, "cpu", lambda now: saved.append(json.dumps(now)))
    assert found["ours + x"] == {"missing": "not run: this version has no x"}
    for one in (found["ours"], found["torch.nn"]):
        assert [len(times) for times in one["rounds"]] == [case.steps] * 2
        assert len(one["losses"]) == 1 + gpu_cases.WARM + 2 * case.steps
        assert one["losses"][-1] < one["losses"][0]
    assert len(saved) == 2 + 4
    kernels = gpu_cases.profile(case, {}, "cpu")
    assert kernels[0]["ms"] >= kernels[-1]["ms"] > 0
    assert {gpu_ladder.kind_of(one["kernel"]) for one in kernels} >= {"products", "attention", "norms and sums"}


def test_a_second_call_does_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, asked = tmp_path / "ladder.json", []

    def measure(task: dict[str, Any], limit: float, caches: str) -> dict[str, Any]:
        asked.append(gpu_all.key_of(task))
        if task["part"] == "machine":
            return {"found": {"peak": PEAK, "bandwidth": 4e12}, "wall": 1.0}
        if task["part"] == "profile" and asked.count(asked[-1]) == 1:
            return {"found": {}, "wall": 1.0, "missing": "no result within 60 s"}
        found = (
            {BASE: ran(1.0, {}), TOP: ran(0.9, {})} if task["part"] == "together" else {task.get("who"): ran(1.0, {})}
        )
        return {"found": {} if task["part"] == "profile" else found, "wall": 1.0}

    monkeypatch.setattr(gpu_all, "measure", measure)
    first = gpu_all.run(out, 1.0, True)
    assert len(asked) == len(gpu_all.tasks()) == len(first["parts"])
    assert first["parts"][f"b, alone, {gpu_all.BEST}, round 3"]["who"] == TOP  # the fastest on the ladder
    second = gpu_all.run(out, 1.0, True)
    assert asked[len(first["parts"]) :] == ["b, profile", "a, profile"]
    assert second == json.loads(out.read_text(encoding="utf-8"))
    gpu_all.run(out, 0.1, True)  # no time for anything
    assert len(asked) == len(first["parts"]) + 2


def test_a_part_that_takes_too_long_is_ended_and_leaves_what_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "slow.py"
    text = "import json, sys, time\nopen(json.loads(sys.argv[1])['save'], 'w').write('{\"ours\": 1}')\n"
    script.write_text(text + "time.sleep(60)")
    monkeypatch.setattr(gpu_all, "__file__", str(script))
    found = gpu_all.measure({"part": "together"}, 1.0, str(tmp_path))
    assert (found["found"], found["missing"]) == ({"ours": 1}, "no result within 1 s")
    script.write_text("raise SystemExit('no such thing')")
    assert gpu_all.measure({"part": "together"}, 60, str(tmp_path))["missing"] == "no such thing"


def test_without_a_gpu_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="There is no CUDA device here"):
        gpu_all.run(None, 1.0, False)


def test_the_formula_knows_what_is_asked() -> None:
    case = CASES["b"]
    how = {"checkpoint_every": 32, "path": "plain", "precision": "autocast", "device": "cuda"}
    whole = training_memory(case.config, case.sequences, case.tokens, **how).total
    assert gpu_ladder.formula_bytes(case, {}) == whole == gpu_cases.formula_bytes(case)
    assert gpu_ladder.formula_bytes(case, {"keep_attention": True}) > whole
