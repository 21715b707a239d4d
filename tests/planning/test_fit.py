"""Memory on a GPU: what autocast keeps, counted; peaks of known devices; and what would fit."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from benchmarks.gpu_cases import CASES, formula_bytes
from deepnet_edu import build_model
from deepnet_edu.course.places import ROOT
from deepnet_edu.model import ModelConfig, random_batch
from deepnet_edu.planning import SHAPES, explain, fewest_recomputed, peak_of, settings_that_fit, training_memory
from deepnet_edu.planning.memory import _matrices
from deepnet_edu.planning.saved import SavedNumbers
from deepnet_edu.planning.workload import Workload
from deepnet_edu.training import TrainConfig, TrainStep
from tests.rules import CLAIMS, small_config

BIG = SHAPES["deepnet_200_opus"]
GPU: dict[str, Any] = {"device": "cuda", "precision": "autocast"}


def kept_bytes(config: ModelConfig, sequences: int, tokens: int, stream: Any = "float32") -> int:
    """What autograd keeps by the plain path under autocast, storage by storage, without parameters."""
    model = build_model(config)
    model.mode = type(model.mode)(path="plain", stream=stream)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}
    alive = []  # so that no two have the same address

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.numel():
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model.loss(random_batch(config, sequences, tokens))
    return sum(found.values())


def off(config: ModelConfig, sequences: int = 2, tokens: int = 8, stream: Any = "float32") -> float:
    """Planned over counted, of what a fourth layer adds to each stack: activations, and copies of its matrices."""
    depths = [name for name in ("encoder_layers", "decoder_layers") if getattr(config, name)]
    three, four = (replace(config, **dict.fromkeys(depths, n)) for n in (3, 4))
    counted = kept_bytes(four, sequences, tokens, stream) - kept_bytes(three, sequences, tokens, stream)
    precision = "autocast" if stream == "float32" else "autocast_half"
    layers = SavedNumbers(Workload(config, sequences, tokens, precision=precision))
    planned = 2 * sum(layers.layer(name.removesuffix("_layers"), 3) for name in depths)
    copies = 2 * (_matrices(four, 0) - _matrices(three, 0))
    return (planned + copies) / counted


@pytest.mark.parametrize("changes", [{}, {"activation": "relu"}, {"activation": "swiglu"}, {"dropout": 0.1}])
@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize("residual", ["deepnorm", "post_ln", "pre_ln"])
def test_what_a_layer_keeps_under_autocast(residual: str, architecture: Any, changes: dict[str, Any]) -> None:
    assert off(replace(small_config(residual, architecture, d_model=24, d_ff=80), **changes)) == 1


@pytest.mark.parametrize("residual", ["deepnorm", "post_ln", "pre_ln"])
def test_a_layer_keeps_as_much_with_a_narrow_stream(residual: str) -> None:
    """Its rule still computes in float32; what checkpoints keep between layers is half as large."""
    config = small_config(residual, "decoder", 8, d_model=24, d_ff=80)
    assert off(config, stream="half") == pytest.approx(1, abs=0.02)
    wide, narrow = (SavedNumbers(Workload(config, 2, 8, precision=f"autocast{one}")) for one in ("", "_half"))
    assert wide.held("decoder", 8, 2) == 2 * narrow.held("decoder", 8, 2)
    assert narrow.held("decoder", 8, 2) == 4 * 2 * 8 * config.d_model


def test_rotary_positions_are_copied_too_and_not_counted() -> None:
    """Cosine and sine, the same for all sequences of a batch."""
    config = replace(small_config("deepnorm", "decoder", d_model=24, d_ff=80), position="rotary", n_heads=2)
    assert 0.97 < off(config) < off(config, sequences=8) < 1


@pytest.mark.parametrize("residual", [rule for rule, architecture in CLAIMS if architecture == "decoder"])
def test_other_rules_are_estimated(residual: str) -> None:
    """Most at the percent; Admin's ω keeps a copy more, and so do NAG's products."""
    estimate = off(small_config(residual, "decoder", d_model=24, d_ff=80))
    assert 0.86 < estimate < 1.22
    assert estimate == 1 or residual not in ("keel", "b2t", "resi_dual", "mix_ln", "complete_p", "gpas")


def test_a_gpu_holds_tensors_alone() -> None:
    cpu, gpu = (training_memory(BIG, 8, 64, path="plain", device=device) for device in ("cpu", "cuda"))
    assert (gpu.process, gpu.objects) == (0, 0)
    assert gpu.weights + gpu.gradients + gpu.optimizer == 16 * gpu.parameters
    assert gpu.total == cpu.total - cpu.process - cpu.objects
    assert training_memory(SHAPES["small_1000"], 4, 64, device="cuda").path == "plain"  # the fast one is the CPU's
    narrow = training_memory(BIG, 8, 64, **GPU)
    assert 4.4 * narrow.parameters < narrow.weights < 6 * narrow.parameters  # and copies of all but the embeddings
    assert 0.5 * gpu.activations < narrow.activations < 0.8 * gpu.activations


def test_checkpoints_and_offload_in_the_formula() -> None:
    whole = training_memory(BIG, 8, 64, **GPU)
    auto = training_memory(BIG, 8, 64, checkpoint_every="auto", **GPU)
    assert auto == training_memory(BIG, 8, 64, checkpoint_every=10, **GPU)  # 100 layers in each stack
    away = training_memory(BIG, 8, 64, checkpoint_every="auto", offload=True, **GPU)
    # Nine of ten float32 states of each stack.
    assert auto.activations - away.activations == 2 * 9 * 8 * 64 * 512 * 4
    assert whole.activations > 2.5 * auto.activations  # most of what is left are logits
    on_cpu = (training_memory(BIG, 8, 64, checkpoint_every=10, offload=on, path="plain") for on in (False, True))
    assert len({plan.total for plan in on_cpu}) == 1


def test_recorded_peaks_of_a_gpu() -> None:
    """With checkpoints within a tenth; the narrow model's graphs take more than its tensors."""
    record = json.loads((ROOT / "benchmarks/results/gpu_depth.json").read_text(encoding="utf-8"))
    for name, case in record["cases"].items():
        formula = formula_bytes(CASES[name]) / 1e9
        peaks = {row["contender"]: row["peak, GB"] for row in case["rows"] if "peak, GB" in row}
        for contender, peak in peaks.items():
            if contender.startswith("ours") and (name != "c" or contender == "ours"):
                assert 0.9 < formula / peak < 1.1, (name, contender)


def test_a_gpus_peak_is_the_larger_of_two_moments() -> None:
    """One stack's group of layers is computed again, or logits and their log-softmax are there, never both."""
    few, many = (
        training_memory(replace(BIG, vocab_size=n), 8, 64, checkpoint_every=10, device="cuda") for n in (50, 9_000_000)
    )
    layers = SavedNumbers(Workload(BIG, 8, 64))
    states = sum(layers.held(stack, 100, 10) for stack in ("encoder", "decoder"))
    entered = 2 * 8 * (64 + 64) * BIG.d_model
    assert few.activations == 4 * (
        states + entered + max(layers.again(stack, 100, 10) for stack in ("encoder", "decoder"))
    )
    assert many.activations == 4 * (states + entered + 8 * 64 * 9_000_000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checkpoint_every": "sqrt"}, "checkpoint_every='sqrt': expected a whole number of layers"),
        ({"offload": True}, "there are none: checkpoint_every='auto' makes them"),
        ({"device": "gpu"}, "Unknown device 'gpu'"),
        ({"device": "cuda", "path": "fast"}, "use path='auto'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training_memory(BIG, 2, 8, **settings)


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("Tesla V100-SXM2-32GB", "fp16", 125.3e12),
        ("Tesla V100-SXM2-32GB", "bf16", None),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", None),
        ("NVIDIA H200", "fp16", 989e12),
        ("NVIDIA H200 NVL", "bf16", None),
        ("NVIDIA B200", "bf16", 2250e12),
        ("NVIDIA GB200", "bf16", None),
        ("AMD Instinct MI300X", "bf16", 1307e12),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("NVIDIA H200", "fp32", None),
        ("cpu", "bf16", None),
    ],
)
def test_peaks_by_name(name: str, precision: str, peak: float | None) -> None:
    assert peak_of(name, precision) == peak


def test_what_fits_comes_in_order_and_does() -> None:
    how = {"source_tokens": 64, **GPU}
    needed = training_memory(BIG, 64, 64, **how).total
    limit = round(0.9 * needed)
    fits = settings_that_fit(BIG, 64, 64, limit, **how)
    assert [change for change, _ in fits] == [
        {"checkpoint_every": "auto"},
        {"checkpoint_every": "auto", "offload": True},
        {"sequences": 32, "accumulate": 2},
    ]
    for change, total in fits:
        settings = {name: value for name, value in change.items() if name not in ("sequences", "accumulate")}
        assert total == training_memory(BIG, change.get("sequences", 64), 64, **{**how, **settings}).total <= limit


def test_batches_are_cut_as_often_as_needed() -> None:
    states = training_memory(BIG, 1, 64, checkpoint_every="auto", **GPU).total
    fits = settings_that_fit(BIG, 256, 64, round(1.01 * states), accumulate=3, **GPU)
    ((change, total),) = fits
    assert change["sequences"] * change["accumulate"] == 256 * 3
    assert (
        total <= 1.01 * states < training_memory(BIG, 2 * change["sequences"], 64, checkpoint_every="auto", **GPU).total
    )
    assert settings_that_fit(BIG, 256, 64, states // 2, **GPU) == []
    # What is set already is not offered again.
    again = settings_that_fit(BIG, 256, 64, 10**12, checkpoint_every=5, offload=True, **GPU)
    assert [change for change, _ in again] == [{"sequences": 128, "accumulate": 2}]


@pytest.mark.fast
def test_on_a_cpu_the_fast_path_is_offered_first() -> None:
    shape = SHAPES["small_1000"]
    limit = round(0.95 * training_memory(shape, 8, 64, path="plain").total)
    assert settings_that_fit(shape, 8, 64, limit, path="plain")[0][0] == {"path": "auto"}


def test_an_explanation() -> None:
    needed = training_memory(BIG, 64, 64, **GPU).total
    words = explain(BIG, 64, 64, round(0.9 * needed), **GPU)
    assert words.startswith(f"The formula says {needed / 1e9:.1f} GB, the device has {0.9 * needed / 1e9:.1f} GB. ")
    assert "checkpoint_every='auto' needs " in words
    assert "; sequences=32, accumulate=2 needs " in words
    assert explain(BIG, 64, 64, 10**9, **GPU).endswith(
        "No setting brings it there: take fewer layers, a smaller d_model or less text."
    )
    with pytest.raises(ValueError, match="limit_bytes=0: expected a whole number, 1 or more"):
        explain(BIG, 64, 64, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"recompute": 12},
        {"recompute": 6},
        {"recompute": 0},
        {"keep_attention": True},
        {"checkpoint_every": 2, "recompute": 6, "keep_attention": True},
    ],
)
@pytest.mark.parametrize("depths", [{"decoder_layers": 16}, {"encoder_layers": 8, "decoder_layers": 8}])
def test_the_peak_of_a_step_as_pytorch_tracks_it(depths: dict[str, int], settings: dict[str, Any]) -> None:
    """Tensors of a step under autocast, by PyTorch's MemTracker, which does not see what comes and goes inside of an
    operation: at least the formula without temporaries, and at most with them."""
    both = "encoder_layers" in depths
    kind: Any = ("encoder_decoder", "translation") if both else ("decoder", "lm")
    config = ModelConfig(*kind, **depths, d_model=64, n_heads=4, d_ff=256, vocab_size=50, max_length=64)
    settings = {"checkpoint_every": 4, **settings}
    model, batch = build_model(config), random_batch(config, 16, 64)
    model.use_path("plain")
    recipe = TrainConfig(steps=2, learning_rate=1e-5, warmup=0, clip=0.0, precision="bf16", **settings)
    with TrainStep(model, recipe) as step:
        step(batch)  # makes the moments
        tracker = MemTracker()
        tracker.track_external(model, step.optimizer, *(flat.flat for flat in step.flats))
        with tracker:
            step(batch)
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    plan = training_memory(config, 16, 64, path="plain", **settings, **GPU)
    assert 0.98 * (plan.total - plan.temporaries) < peak < plan.total


def test_as_few_layers_are_computed_again_as_the_memory_allows() -> None:
    how: dict[str, Any] = {"checkpoint_every": "auto", **GPU}
    least, most = (training_memory(BIG, 64, 64, **how, recompute=n).total for n in ("all", 0))
    assert fewest_recomputed(BIG, 64, 64, most * 2, **how) == 0
    assert fewest_recomputed(BIG, 64, 64, least // 2, **how) == 100  # of each stack: it will not fit, and says so
    limit = (least + most) // 2
    count = fewest_recomputed(BIG, 64, 64, limit, **how)
    assert 0 < count < 100
    enough, too_few = (training_memory(BIG, 64, 64, **how, recompute=count - less).total for less in (0, 1))
    assert enough <= 0.9 * limit < too_few
    with pytest.raises(ValueError, match="there are none: checkpoint_every='auto' makes them"):
        fewest_recomputed(BIG, 64, 64, limit, **GPU)


def test_what_attention_gave_is_a_narrow_state_for_each_look() -> None:
    """Of two bytes, and a float32 for each head; a decoder that looks at a memory keeps two."""
    how: dict[str, Any] = {"checkpoint_every": 10, **GPU}
    found = [training_memory(BIG, 8, 64, **how, keep_attention=keep).activations for keep in (False, True)]
    looks = BIG.encoder_layers + 2 * BIG.decoder_layers
    assert found[1] - found[0] == looks * 8 * 64 * (2 * BIG.d_model + 4 * BIG.n_heads)
