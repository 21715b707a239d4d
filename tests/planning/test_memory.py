"""Planning against what it plans: parameters and saved tensors counted, peaks as recorded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import memory
from deepnet_edu import build_model
from deepnet_edu.fields import without_former
from deepnet_edu.messages import UserError
from deepnet_edu.model import Model, ModelConfig, random_batch
from deepnet_edu.model.config import FORMER
from deepnet_edu.model.paths import knows
from deepnet_edu.planning import SHAPES, count_parameters, find_shape, training_memory
from deepnet_edu.planning.limits import probe_needs, refuse_beyond
from deepnet_edu.planning.saved import SavedNumbers
from deepnet_edu.planning.workload import Workload
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.training import TrainConfig, TrainStep
from tests.rules import CLAIMS, small_config

ROOT = Path(__file__).resolve().parents[2]
RECORD = json.loads((ROOT / "benchmarks/results/memory.json").read_text(encoding="utf-8"))
SMALL = small_config("deepnorm", "decoder")


@pytest.mark.parametrize(("residual", "architecture"), CLAIMS)
def test_parameters_are_counted_to_the_last(residual: str, architecture: Any) -> None:
    for layers in (1, 3, 6):
        config = small_config(residual, architecture, layers)
        model = build_model(config, device="meta")
        counted = count_parameters(config)
        for name, stack in model.stacks().items():
            assert counted[name] == sum(p.numel() for p in stack.parameters())
        assert counted["all"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "swiglu"},
        {"norm": "rms"},
        {"shared_embeddings": True},
        {"position": "rotary", "n_heads": 2},
        {"position": "sinusoidal"},
        {"residual": "none", "decoder_layers": 0},
        {"activation": "geglu", "bias": False, "n_kv_heads": 1},
        {"head": "norm"},
    ],
)
def test_parameters_of_other_parts(changes: dict[str, Any]) -> None:
    config = replace(SMALL, **changes)
    assert count_parameters(config)["all"] == sum(p.numel() for p in build_model(config, device="meta").parameters())


def test_the_papers_sizes() -> None:
    """3.8 and 3.2 billion, and 863 million (arXiv 2203.00555, Sections 5 and 6)."""
    sizes = {name: count_parameters(SHAPES[name])["all"] for name in SHAPES}
    assert sizes["deepnet_1000"] / 1e9 == pytest.approx(3.8, abs=0.05)
    assert sizes["deepnet_200"] / 1e9 == pytest.approx(3.2, abs=0.05)
    assert sizes["deepnet_200_opus"] / 1e6 == pytest.approx(863, abs=2)


def saved(model: Model, sequences: int, tokens: int) -> int:
    """Numbers that autograd keeps by the plain path, storage by storage, without parameters."""
    model.use_path("plain")
    model.train()
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}
    alive = []  # so that no two have the same address

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.numel():
            found[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.loss(random_batch(model.config, sequences, tokens))
    return sum(found.values())


def grows_by(config: ModelConfig, sequences: int = 2, tokens: int = 8) -> int:
    """What a fourth layer adds to each stack."""
    four = replace(config, **{name: 4 for name in ("encoder_layers", "decoder_layers") if getattr(config, name)})
    three = replace(config, **{name: 3 for name in ("encoder_layers", "decoder_layers") if getattr(config, name)})
    return saved(build_model(four), sequences, tokens) - saved(build_model(three), sequences, tokens)


def planned(config: ModelConfig, sequences: int = 2, tokens: int = 8) -> int:
    layers = SavedNumbers(Workload(config, sequences, tokens))
    stacks = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    return sum(layers.layer(stack, 3) for stack, depth in stacks.items() if depth)


@pytest.mark.parametrize(("residual", "architecture"), CLAIMS)
def test_what_a_layer_keeps_is_counted(residual: str, architecture: Any) -> None:
    """To 4% where a rule multiplies parameters with each other (hyper-connections, nGPT), exactly elsewhere."""
    config = small_config(residual, architecture, d_model=24, d_ff=80)
    odd = ("hyper_connections", "mhc", "ngpt", "stable", "parcae", "attention_residuals", "block_attention_residuals")
    tolerance = 0.04 if residual in odd else 0
    assert planned(config) == pytest.approx(grows_by(config), rel=tolerance, abs=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "relu"},
        {"activation": "swiglu"},
        {"norm": "rms"},
        {"position": "rotary", "n_heads": 2},
        {"dropout": 0.1},
        {"activation": "geglu", "bias": False},
        {"n_kv_heads": 2, "n_heads": 6},
        {"n_kv_heads": 1, "position": "rotary", "n_heads": 2},
        {"activation": "swiglu", "norm": "rms", "dropout": 0.2, "position": "rotary", "n_heads": 6},
    ],
)
@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_what_other_parts_keep(changes: dict[str, Any], architecture: Any) -> None:
    config = replace(small_config("deepnorm", architecture, d_model=24, d_ff=80), **changes)
    if architecture == "encoder_decoder" and "norm" in changes:
        pytest.skip("counted for one stack")
    assert planned(config) == grows_by(config)


@pytest.mark.fast
@pytest.mark.parametrize("every", [0, 1, 2])
@pytest.mark.parametrize("architecture", ["decoder", "encoder", "encoder_decoder"])
def test_what_the_fast_path_keeps(architecture: Any, every: int) -> None:
    """Exactly what is in its buffers after a step."""
    config = small_config("deepnorm", architecture, 6, d_model=24, d_ff=40)
    model = build_model(config)
    model.use_path("fast")
    model.checkpoint_every(every)
    with TrainStep(model, TrainConfig(steps=1)) as step:
        step(random_batch(config, 2, 8))
        all_buffers = step._step_buffers.values()
        kept = sum(tensor.numel() for buffers in all_buffers for one in buffers.saved for tensor in one)
        kept += sum(buffers.ends.numel() for buffers in all_buffers if buffers.ends is not None)
        compiled = all(stack.path_taken == "fast, compiled" for stack in step._step_buffers)
    layers = SavedNumbers(Workload(config, 2, 8), fast=True, compiled=compiled)
    stacks = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    assert kept == sum(layers.held(stack, n, every) + layers.again(stack, n, every) for stack, n in stacks.items() if n)


@pytest.mark.fast
def test_recorded_peaks() -> None:
    """The formula as it is now, within a tenth of the measured peaks of runs that no constant has seen."""
    off = {}
    for index, row in enumerate(RECORD["rows"]):
        plan = training_memory(ModelConfig(**without_former(row["config"], FORMER)), **row["how"])
        assert plan.to_dict() == {name: row[name] for name in plan.to_dict()}, "run python benchmarks/memory.py again"
        off[index] = abs(plan.total / row["measured"] - 1)
    assert max(off.values()) < 0.1
    judged = [row for row in RECORD["rows"] if row["used for"] == "judgement"]
    assert len(judged) == len(memory.RUNS) - memory.FITTED >= 12
    plain = [row["config"] for row in judged if row["path"] == "plain"]
    assert sum(one["position"] == "rotary" and one["dropout"] > 0 for one in plain) >= 4


@pytest.mark.fast
def test_a_peak_on_this_machine() -> None:
    """A fresh process, half a minute away from any record: within 15%, since another PyTorch may weigh more itself.

    By the plain path one run in six leaves a tenth to a third more in gaps, see docs/depth.md: the least of three.
    """
    row = RECORD["rows"][2]
    shape = ModelConfig(**without_former(row["config"], FORMER))
    expected = pytest.approx(training_memory(shape, **row["how"]).total, rel=0.15)
    measured: list[int] = []
    while expected not in measured and len(measured) < 3:
        measured.append(memory.measure(2)["peak"])
    assert expected in measured, measured


@pytest.mark.fast
def test_it_answers_at_once_and_knows_every_path() -> None:
    shape = SHAPES["small_1000"]
    fast, plain = (training_memory(shape, 4, 64, path=path) for path in ("fast", "plain"))
    assert fast.activations < plain.activations
    assert training_memory(shape, 4, 64, checkpoint_every=1).total < fast.total
    assert training_memory(shape, 4, 64, compiled=False).activations > fast.activations
    double = training_memory(shape, 4, 64, precision="float64")
    assert double.weights == 2 * fast.weights
    mixed = training_memory(shape, 4, 64, precision="mixed")
    assert (mixed.weights + mixed.gradients + mixed.optimizer) == 16 * mixed.parameters
    assert {training_memory(replace(shape, residual=rule), 4, 64).path for rule in ("rezero", "admin")} == {"plain"}
    known = [rule for rule, kind in RESIDUALS.items() if "decoder" in kind.architectures and knows(rule, 0, 1000)]
    assert {training_memory(replace(shape, residual=rule), 4, 64).path for rule in known} == {"fast"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "float16"}, "did you mean 'bfloat16'"),
        ({"path": "quick"}, "Unknown path 'quick'"),
        ({"sequences": 0}, "sequences=0: expected a whole number, 1 or more"),
        ({"checkpoint_every": -1}, "checkpoint_every=-1"),
        ({"tokens": 2000, "path": "fast"}, "use path='auto'"),
    ],
)
def test_bad_sizes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training_memory(SMALL, **{"sequences": 2, "tokens": 8, **settings})


def test_shapes_by_name_and_from_a_file(tmp_path: Path) -> None:
    assert find_shape("small_1000").decoder_layers == 1000
    with pytest.raises(UserError, match="did you mean 'small_1000'"):
        find_shape("small_100")
    file = tmp_path / "mine.json"
    with pytest.raises(UserError, match=r"holds no shape.*No such file"):
        find_shape(str(file))
    fields = {"architecture": "decoder", "task": "lm", "decoder_layers": 2, "d_model": 8, "n_heads": 2, "d_ff": 8}
    file.write_text(json.dumps({**fields, "vocab_size": 5}))
    assert find_shape(str(file)).vocab_size == 5
    for wrong, message in (
        ("[1, 2]", "expected an object"),
        ("{", "Expecting property name"),
        (json.dumps({**fields, "vocab": 5}), "did you mean 'vocab_size'"),
        (json.dumps({**fields, "vocab_size": 5, "n_heads": 3}), "n_heads=3"),
    ):
        file.write_text(wrong)
        with pytest.raises(UserError, match=message):
            find_shape(str(file))


@pytest.mark.parametrize("residual", ["deepnorm", "attention_residuals", "resi_dual"])
@pytest.mark.parametrize("every", [0, 1, 5, 6, 37, 40])
def test_layers_are_summed_in_closed_form(residual: str, every: int) -> None:
    """Attention residuals weigh two outputs more with each layer below, which are kept once for all groups."""
    layers = SavedNumbers(Workload(replace(SHAPES["small_1000"], residual=residual), 3, 64))
    each = [layers.layer("decoder", 4 + i) for i in range(37)]
    if not every or every >= 37:
        assert layers.held("decoder", 37, every, first=4) == sum(each)
        assert layers.again("decoder", 37, every, first=4) == 0
    else:
        states = 41 * 2 if residual == "attention_residuals" else 0
        states += -(-37 // every) * (2 if residual == "resi_dual" else 1)
        assert layers.held("decoder", 37, every, first=4) == states * 3 * 64 * 64
        assert layers.held("decoder", 37, every, True, first=4) < states * 3 * 64 * 64
        assert layers.again("decoder", 37, every, first=4) == sum(each[-every:])


def test_a_million_layers_are_planned_and_more_than_any_machine_holds_refused() -> None:
    deep = replace(SHAPES["small_1000"], decoder_layers=10**6)
    assert training_memory(deep, 4, 64).total == pytest.approx(
        1000 * training_memory(SHAPES["small_1000"], 4, 64).total, rel=0.3
    )
    assert training_memory(deep, 4, 64, checkpoint_every="auto").total < training_memory(deep, 4, 64).total
    with pytest.raises(ValueError, match="decoder_layers=1000000001: expected a whole number, 0 or more, at most 1,0"):
        replace(deep, decoder_layers=10**9 + 1)
    with pytest.raises(ValueError, match="vocab_size=a number of very many digits"):
        replace(deep, vocab_size=10**5000)
    image = {"n_classes": 10, "patch_size": 10**5, "channels": 10**9}
    large = ModelConfig("encoder", "classification", 0, 1, d_model=64, n_heads=4, d_ff=64, **image)
    with pytest.raises(ValueError, match="larger than any tensor can be"):
        count_parameters(large)


@pytest.mark.parametrize("residual", ["deepnorm", "pre_ln", "mhc"])
def test_a_probe_says_what_it_needs(residual: str) -> None:
    config = replace(SHAPES["small_1000"], residual=residual)
    memory, seconds = probe_needs(config, 4, 32)
    assert 0.5e9 < memory < 5e9
    assert 1 < seconds < 60
    more, longer = probe_needs(config, 4, 32, update=True)
    assert more > memory
    assert longer > seconds


def test_what_is_too_large_or_too_long_is_refused_with_its_numbers() -> None:
    refuse_beyond("It", 1e6, 60, "use less")
    with pytest.raises(
        UserError, match=r"It needs about 1,000,000.0 GB of memory, and this machine has [\d,.]+: use less\."
    ):
        refuse_beyond("It", 1e15, 1, "use less")
    with pytest.raises(UserError, match=r"It takes about 2\.0 hours or more on this machine: use less\."):
        refuse_beyond("It", 1e6, 7200, "use less")
