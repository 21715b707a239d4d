"""Planning's time: operations against PyTorch's own counter, the formula against the record, and what it refuses."""

import json
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from deepnet_edu import build_model
from deepnet_edu.fields import without_former
from deepnet_edu.model import ModelConfig, random_batch
from deepnet_edu.model.config import FORMER
from deepnet_edu.planning import SHAPES, count_operations, flops_per_token, training_time
from deepnet_edu.planning.time import BANDWIDTH, FITTED, LAUNCH, RATE, Operations
from deepnet_edu.residual import RESIDUALS
from tests.rules import CLAIMS, small_config

ROOT = Path(__file__).resolve().parents[2]
RECORD = json.loads((ROOT / "benchmarks/results/step_time.json").read_text(encoding="utf-8"))
SHAPE = SHAPES["small_1000"]
UNMEASURED = [name for name, rule in RESIDUALS.items() if rule.own_products]
MEASURED = [claim for claim in CLAIMS if claim[0] not in UNMEASURED]


class Counter(TorchDispatchMode):
    """PyTorch's own formulas of operations. Its FlopCounterMode also says of which module, and is slow."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function._overloadpacket)
        if formula is not None:
            self.flops[function._overloadpacket.__name__] += formula(*args, **(kwargs or {}), out_val=out)
        return out


def counted(config: ModelConfig, every: int = 0, tokens: int = 8) -> dict[str, int]:
    """Of a step by the plain path, attention as products of batches ("bmm"), which PyTorch's formulas know."""
    model = build_model(config)
    model.use_path("plain")
    model.checkpoint_every(every)
    with sdpa_kernel(SDPBackend.MATH), Counter() as found:
        model.loss(random_batch(config, 2, tokens)).backward()
    return {"weights": found.flops["mm"] + found.flops["addmm"], "attention": found.flops["bmm"]}


def planned(config: ModelConfig, every: int = 0, tokens: int = 8) -> dict[str, int]:
    one = count_operations(config, 2, tokens, checkpoint_every=every, path="plain")
    return {"weights": one.products + one.again, "attention": one.attention + one.attention_again}


@pytest.mark.parametrize("every", [0, 2])
@pytest.mark.parametrize(("residual", "architecture"), MEASURED)
def test_operations_are_counted_to_the_last(residual: str, architecture: Any, every: int) -> None:
    """Of every rule, with what checkpoints compute again; embeddings and head included."""
    config = small_config(residual, architecture, 4)
    assert planned(config, every) == counted(config, every)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "swiglu"},
        {"norm": "rms", "activation": "relu"},
        {"shared_embeddings": True},
        {"position": "rotary", "n_heads": 2},
        {"dropout": 0.1},
        {"residual": "pre_ln", "dropout": 0.1},
        {"residual": "mix_ln", "decoder_layers": 9},
        {"residual": "none", "decoder_layers": 0},
    ],
)
@pytest.mark.parametrize("every", [0, 1, 4])
def test_operations_of_other_parts(changes: dict[str, Any], every: int) -> None:
    config = replace(small_config("deepnorm", "decoder", 4), **changes)
    assert planned(config, every) == counted(config, every)


def test_operations_of_images() -> None:
    config = ModelConfig(
        "encoder", "classification", 0, 3, d_model=12, n_heads=3, d_ff=20, n_classes=5, channels=3, position="learned"
    )
    assert planned(config, tokens=16) == counted(config, tokens=16)


@pytest.mark.fast
def test_operations_by_hand() -> None:
    """6 for each weight and token (facts of Kaplan et al., arXiv 2001.08361), 12·T·d_model a layer in attention."""
    d, layers, B, T = SHAPE.d_model, SHAPE.decoder_layers, 4, 64
    weights = layers * 12 * d * d + d * SHAPE.vocab_size
    one = count_operations(SHAPE, B, T, path="plain")
    assert one.products == 6 * weights * B * T
    assert one.attention == 12 * layers * B * T * T * d
    assert count_operations(SHAPE, B, T, path="fast").attention == 12 * layers * B * (T * (T + 1) // 2) * d
    assert count_operations(SHAPE, B, T, path="fast").products == one.products


@pytest.mark.parametrize("name", SHAPES)
def test_operations_per_token_are_the_counted_ones(name: str) -> None:
    config, B, T = SHAPES[name], 3, 64
    one = count_operations(config, B, T, source_tokens=32, path="plain", checkpoint_every=8)
    masked = 12 * config.decoder_layers * B * config.d_model * (T * (T - 1) // 2)
    read = B * (T + 32 * bool(config.encoder_layers))
    found = flops_per_token(config, T, source_tokens=32)
    assert found == pytest.approx((one.products + one.attention - masked) / read, rel=1e-12)


def test_operations_per_token_by_hand() -> None:
    """6 for each weight, 12·T·d_model for each layer of an encoder (arXiv 2204.02311, Appendix B), a decoder's half."""
    d, layers, T = 64, 1000, 64
    weights = layers * 12 * d * d + d * 128
    assert flops_per_token(SHAPE, T) == 6 * weights + 6 * layers * d * (T + 1)
    images = ModelConfig("encoder", "classification", 0, 3, d_model=12, n_heads=3, d_ff=20, n_classes=5, channels=3)
    ends = 6 * 12 * 5 / 16 + 4 * 3 * images.patch_size**2 * 12
    assert flops_per_token(images, 16) == 6 * 3 * (4 * 12 * 12 + 2 * 12 * 20) + 12 * 3 * 16 * 12 + ends


def test_operations_that_are_not_counted() -> None:
    for residual in UNMEASURED:
        assert flops_per_token(replace(SHAPE, residual=residual), 8) is None
    for wrong in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=f"^tokens={wrong!r}: expected a whole number"):
            flops_per_token(SHAPE, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^source_tokens=-1: expected a whole number, 0 or more.$"):
        flops_per_token(SHAPES["deepnet_1000"], 8, source_tokens=-1)


@pytest.mark.fast
@pytest.mark.parametrize("path", ["fast", "plain"])
def test_checkpoints_add_one_forward_pass_of_products(path: str) -> None:
    """Of the stack; by the fast path without the last product of each group."""
    forward = replace(SHAPE, vocab_size=1)
    once = count_operations(forward, 4, 64, path=path)
    for every in (1, 8):
        more = count_operations(forward, 4, 64, path=path, checkpoint_every=every)
        assert (more.products, more.attention) == (once.products, once.attention)
        head, last = 2 * 4 * 64 * 64, 2 * 4 * 64 * 64 * 256
        assert more.again == once.forward - head - (1000 // every * last if path == "fast" else 0)
        assert more.attention_again * 3 == once.attention
        plain, with_checkpoints = (
            training_time(forward, 4, 64, path=path, checkpoint_every=n, rate=1e10) for n in (0, every)
        )
        assert plain.recomputation == 0
        assert with_checkpoints.recomputation > more.again / 1e10
        assert replace(with_checkpoints, recomputation=0) == plain
    whole = count_operations(forward, 4, 64, path=path, checkpoint_every=1000)
    assert whole.again == (0 if path == "fast" else once.forward - 2 * 4 * 64 * 64)


def test_constants_are_the_records() -> None:
    assert asdict(FITTED) == RECORD["fit"]
    assert RECORD["machine"] == {"rate": RATE, "launch": LAUNCH, "bandwidth": BANDWIDTH}


@pytest.mark.fast
@pytest.mark.parametrize("row", RECORD["rows"], ids=lambda row: f"{row['used for']}-{row['path']}")
def test_recorded_steps(row: dict[str, Any]) -> None:
    """The formula as it is now against the step over its floor, of runs half of which no constant has seen."""
    plan = training_time(ModelConfig(**without_former(row["config"], FORMER)), **row["how"])
    assert plan.path == row["path"]
    found = plan.total / plan.floor / row["step over floor"]["median"] - 1
    assert found == pytest.approx(row["off by"], abs=0.002), "run python benchmarks/step_time.py again"
    assert abs(found) < 0.25
    floor = plan.floor / row["floor, CPU seconds"] - 1
    assert floor == pytest.approx(row["floor off by"], abs=0.002)
    assert abs(floor) < 0.25


@pytest.mark.fast
def test_time_grows_linearly_with_depth() -> None:
    for path in ("fast", "plain"):
        for every in (0, 10):
            hundred, two, three = (
                training_time(replace(SHAPE, decoder_layers=n), 4, 64, path=path, checkpoint_every=every).to_dict()
                for n in (100, 200, 300)
            )
            for name, value in two.items():
                if name not in ("path", "share"):
                    assert value - hundred[name] == pytest.approx(three[name] - value, rel=1e-9), name
                    assert value >= hundred[name]


def test_parts_and_their_sum() -> None:
    plan = training_time(SHAPE, 4, 64, rate=50e9, bandwidth=10e9)
    parts = ("products", "recomputation", "attention", "between", "optimizer", "overhead")
    assert plan.total == pytest.approx(sum(getattr(plan, name) for name in parts))
    launched = LAUNCH * 3 * (4 * SHAPE.decoder_layers + 1)
    assert plan.floor == plan.products == pytest.approx(plan.operations / 50e9 + launched)
    assert plan.to_dict()["share"] == plan.share == plan.floor / plan.total
    double = training_time(SHAPE, 4, 64, rate=100e9, bandwidth=20e9)
    assert plan.products - launched == pytest.approx(2 * (double.products - launched))
    for name in ("attention", "between", "optimizer"):
        assert getattr(plan, name) == pytest.approx(2 * getattr(double, name))
    assert plan.overhead == double.overhead
    json.dumps(plan.to_dict())


def test_two_languages_and_every_rule() -> None:
    small = small_config("deepnorm", "encoder_decoder", 2, d_model=16, n_heads=2, d_ff=32)
    longer = training_time(small, 2, 8, source_tokens=16)
    assert longer.products > training_time(small, 2, 8).products
    for residual, architecture in MEASURED:
        config = small_config(residual, architecture, 2, d_model=16, n_heads=2, d_ff=32)
        assert 0 < training_time(config, 2, 8).share < 1
    assert isinstance(count_operations(SHAPE, 4, 64), Operations)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "bfloat16"}, "precision='bfloat16': time was measured in float32 only"),
        ({"precision": "mixed"}, "use precision='float32'"),
        ({"precision": "float64"}, "measured in float32 only"),
        ({"precision": "float16"}, "did you mean 'bfloat16'"),
        ({"path": "quick"}, "Unknown path 'quick'"),
        ({"sequences": 0}, "sequences=0: expected a whole number, 1 or more"),
        ({"tokens": 2.5}, "tokens=2.5: expected a whole number"),
        ({"checkpoint_every": -1}, "checkpoint_every=-1"),
        ({"tokens": 200, "path": "fast"}, "use path='auto'"),
        ({"rate": 0}, "rate=0: expected a positive number"),
        ({"bandwidth": -1.0}, "bandwidth=-1.0: expected a positive number"),
        ({"bandwidth": float("nan")}, "bandwidth=nan"),
    ],
)
def test_bad_input(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training_time(SHAPE, **{"sequences": 4, "tokens": 64, **settings})


@pytest.mark.parametrize("residual", UNMEASURED)
def test_rules_that_nobody_measured(residual: str) -> None:
    with pytest.raises(ValueError, match=f"residual='{residual}' was not measured"):
        training_time(replace(SHAPE, residual=residual), 4, 64)


@pytest.mark.fast
def test_sizes_that_are_not_compiled() -> None:
    odd = replace(SHAPE, d_model=60, n_heads=5)
    with pytest.raises(ValueError, match="heads of 8, 16, 32, 64 features"):
        training_time(odd, 4, 64)
    assert training_time(odd, 4, 64, path="plain").path == "plain"
    with pytest.raises(ValueError, match="d_ff=100"):
        training_time(replace(SHAPE, d_ff=100), 4, 64)
