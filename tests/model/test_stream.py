"""The stream in half precision: every rule runs so, what is kept is half as large, and what that costs in exactness."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from deepnet_edu import Batch, TrainConfig, build_model, train
from deepnet_edu.model import Model, random_batch
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.training.distributed.stages import cut, tensors_of
from tests.rules import CLAIMS, small_config


def seen(model: Model, batch: Batch, stream: Any) -> tuple[set[torch.dtype], Tensor, Tensor]:
    """Precisions of what layers hand on, logits and gradients, under autocast."""
    dtypes: set[torch.dtype] = set()
    layers = [layer for stack in model.stacks().values() for layer in stack.layers]
    handles = [layer.register_forward_hook(lambda *one: dtypes.update(x.dtype for x in one[2])) for layer in layers]
    model.zero_grad()
    with model.running(path="plain", stream=stream), torch.autocast("cpu", torch.bfloat16):
        logits = model.logits(batch)
        loss = model.loss_of(logits, batch)
    loss.backward()
    for handle in handles:
        handle.remove()
    return dtypes, logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(("residual", "architecture"), CLAIMS)
def test_every_rule_runs_and_weights_stay_as_they_are(residual: str, architecture: Any) -> None:
    config = small_config(residual, architecture, 3)
    model, batch = build_model(config), random_batch(config, 2, 7)
    wide, narrow = seen(model, batch, "float32"), seen(model, batch, "half")
    assert torch.float32 in wide[0]
    if not RESIDUALS[residual].growing:
        assert narrow[0] == {torch.bfloat16}
    assert torch.isfinite(narrow[2]).all()
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters() if p.grad is not None}
    assert ((narrow[1] - wide[1]).norm() / wide[1].norm()).item() < 0.1


def errors(residual: str, layers: int) -> list[float]:
    """Of the gradients beside float64, with the stream in float32 and in half precision."""
    config = small_config(residual, "decoder", layers)
    model, batch = build_model(config), random_batch(config, 2, 7)
    exact = copy.deepcopy(model).double()
    exact.loss(batch).backward()
    right = torch.cat([p.grad.flatten() for p in exact.parameters() if p.grad is not None])
    return [((seen(model, batch, s)[2] - right).norm() / right.norm()).item() for s in ("float32", "half")]


@pytest.mark.parametrize("residual", ["post_ln", "pre_ln"])
def test_gradients_are_as_close_to_float64_as_autocasts(residual: str) -> None:
    wide, narrow = errors(residual, 12)
    assert narrow < 2.5 * wide


def test_where_branches_are_small_they_are_not() -> None:
    """DeepNorm's are: what bfloat16 rounds away is about as large as they are. So float32 is the default."""
    wide, narrow = errors("deepnorm", 50)
    assert narrow > 3 * wide
    assert TrainConfig(steps=1).stream == "float32"


def test_without_autocast_nothing_is_rounded() -> None:
    config = small_config("deepnorm", "decoder", 3)
    model, batch = build_model(config), random_batch(config, 2, 7)
    plain = model.logits(batch)
    with model.running(stream="half"):
        torch.testing.assert_close(model.logits(batch), plain, rtol=0, atol=0)


def test_what_checkpoints_keep_is_half_as_large() -> None:
    config = small_config("deepnorm", "decoder", 8)
    model, kept = build_model(config), {}
    for stream in ("float32", "half"):
        sizes: list[int] = []

        def pack(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.numel() * x.element_size() if x.shape == (2, 7, config.d_model) else 0)
            return x

        x = torch.randn(2, 7, config.d_model, requires_grad=True)
        how: Any = {"path": "plain", "stream": stream, "checkpoint_every": 2}
        with model.running(**how), torch.autocast("cpu", torch.bfloat16):
            stack = model.own_stacks()["decoder"]
            state = stack.start(x)
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
                stack.between(state, model.context(None, None, 7, x.device), 0, 8)
        kept[stream] = sum(sizes)
    assert kept["half"] == kept["float32"] / 2


def test_what_goes_from_rank_to_rank_is_half_as_large() -> None:
    config = small_config("deepnorm", "decoder", 4)
    model, batch = build_model(config), random_batch(config, 2, 7)
    model.mode = type(model.mode)(path="plain", stream="half")
    (stage,) = cut(model, 2, [0], torch.bfloat16)
    assert [x.dtype for x in stage(**tensors_of(batch))] == [torch.bfloat16]


def test_a_training_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config("deepnorm", "decoder", 2)
    batch = random_batch(config, 2, 7)

    class Same:
        def batch(self, generator: torch.Generator) -> Batch:
            return batch

    losses = {}
    for stream in ("float32", "half"):
        settings = TrainConfig(steps=10, learning_rate=2e-3, warmup=2, precision="bf16", stream=stream)  # type: ignore[arg-type]
        losses[stream] = train(build_model(config), Same(), settings, progress=False).loss
    assert losses["half"][-1] < losses["half"][0] - 0.02
    assert losses["half"] != losses["float32"]
    assert losses["half"][-1] == pytest.approx(losses["float32"][-1], abs=0.02)
    with pytest.raises(ValueError, match="stream"):
        TrainConfig(steps=1, stream="double")  # type: ignore[arg-type]
