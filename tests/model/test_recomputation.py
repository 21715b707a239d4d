"""Activation checkpoints by √n_layers, and what they keep in the CPU's memory."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from deepnet_edu import build_model
from deepnet_edu.model import Batch, Model, ModelConfig, random_batch
from deepnet_edu.model.mode import Mode
from deepnet_edu.model.recomputation import ATTENTION
from deepnet_edu.model.shape import layers_together
from tests.rules import depths, small_config


def gradients(model: Model, batch: Batch) -> list[Tensor]:
    model.zero_grad()
    model.loss(batch).backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def seen_outside(model: Model, batch: Batch) -> list[tuple[int, ...]]:
    """Shapes of what autograd keeps of the stack, as hooks around it see it."""
    shapes: list[tuple[int, ...]] = []

    def pack(tensor: Tensor) -> Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    stack, width = next(iter(model.stacks().values())), model.config.d_model
    x = torch.randn(*batch.inputs.shape, width, requires_grad=True)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        stack(x)
    return shapes


@pytest.mark.parametrize(("n_layers", "layers"), [(0, 0), (1, 1), (2, 1), (3, 2), (12, 3), (100, 10), (1000, 32)])
def test_auto_is_the_square_root(n_layers: int, layers: int) -> None:
    assert layers_together("auto", n_layers) == layers


def test_each_stack_has_its_own() -> None:
    config = ModelConfig("encoder_decoder", "translation", 9, 16, d_model=8, n_heads=2, d_ff=8, vocab_size=5)
    model = build_model(config)
    model.checkpoint_every("auto")
    assert {name: stack.checkpoint_every for name, stack in model.stacks().items()} == {"encoder": 4, "decoder": 3}
    model.checkpoint_every(0)
    assert {stack.checkpoint_every for stack in model.stacks().values()} == {0}


@pytest.mark.parametrize("layers", ["sqrt", -1, True, 2.0])
def test_other_numbers_of_layers_are_refused(layers: Any) -> None:
    model = build_model(small_config("deepnorm", "decoder"))
    with pytest.raises(ValueError, match=r"checkpoint_every=.*expected a whole number of layers, 0 or more, or 'auto'"):
        model.checkpoint_every(layers)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("rule", ["deepnorm", "resi_dual", "b2t"])
def test_what_is_offloaded_is_the_states_alone(rule: str) -> None:
    """Hooks around the stack, which is how PyTorch moves what is kept, see nothing from within a group of layers."""
    config = small_config(rule, "decoder", 9)
    model, batch = build_model(config), random_batch(config, 2, 7)
    model.use_path("plain")
    expected = gradients(model, batch)
    model.checkpoint_every("auto")
    shapes = seen_outside(model, batch)
    state = 1 if rule == "deepnorm" else 2
    assert [shape for shape in shapes if len(shape) == 3].count((2, 7, 12)) <= 3 * state + 2  # and the last norm's
    assert (2, 7, 36) not in shapes  # query, key and value of a layer
    # The same hooks at work: every state goes to another tensor and comes back.
    with torch.autograd.graph.save_on_cpu():
        torch.testing.assert_close(gradients(model, batch), expected, rtol=1e-12, atol=1e-12)
    model.offload(True)
    torch.testing.assert_close(gradients(model, batch), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.fast
def test_offload_needs_checkpoints_and_the_plain_path() -> None:
    config = small_config("deepnorm", "encoder_decoder", 4)
    model, batch = build_model(config), random_batch(config, 2, 7)
    with pytest.raises(ValueError, match=r"offload=True moves what checkpoints keep.*checkpoint_every='auto'"):
        model.offload(True)
    model.checkpoint_every("auto")
    model.use_path("auto")
    model.offload(True)
    model.loss(batch)
    assert all("the CPU's memory" in stack.path_taken for stack in model.stacks().values())
    model.offload(False)
    model.loss(batch)
    assert all(stack.path_taken.startswith("fast") for stack in model.stacks().values())


@pytest.mark.fast
@pytest.mark.parametrize("rule", ["deepnorm", "pre_ln"])
def test_autocast_goes_by_the_plain_path(rule: str) -> None:
    """The fast path would compute in float32, whatever was asked for."""
    config = small_config(rule, "decoder", 4)
    model, batch = build_model(config), random_batch(config, 2, 7)
    model.use_path("auto")
    found = []
    for every in (0, 2):
        model.checkpoint_every(every)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(batch)
        assert model.stacks()["decoder"].path_taken.startswith("plain, since autocast is on")
        model.zero_grad()
        loss.backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found[0], found[1])
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        model.loss(batch)
    assert model.stacks()["decoder"].path_taken.startswith("fast")
    model.use_path("fast")
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="autocast is on"):
        model.loss(batch)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_offload_takes_less_of_a_gpus_memory() -> None:
    """In a model whose states are many and whose weights and gradients are few: those come and go at other times."""
    config = ModelConfig(
        "decoder", "lm", **depths("decoder", 64), d_model=64, n_heads=4, d_ff=64, vocab_size=16, max_length=1024
    )
    model, batch = build_model(config, device="cuda"), random_batch(config, 16, 1024).to("cuda")
    model.checkpoint_every(1)
    found, peaks = [], []
    for on in (False, True):
        model.offload(on)
        gradients(model, batch)
        model.zero_grad()
        torch.cuda.reset_peak_memory_stats()
        model.loss(batch).backward()
        peaks.append(torch.cuda.max_memory_allocated())
        found.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found[0], found[1])
    states = 63 * 16 * 1024 * 64 * 4
    assert peaks[0] - peaks[1] > 0.8 * states


class _Calls(TorchDispatchMode):
    """How often attention's operation was called; a compiled layer stays compiled below it."""

    calls = 0

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += operation in ATTENTION
        return operation(*args, **(kwargs or {}))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("rule", ["deepnorm", "pre_ln", "resi_dual"])
@pytest.mark.parametrize("recompute", [0, 1, 4, 5, 9, 12])
def test_only_the_lowest_layers_are_computed_again(rule: str, recompute: int) -> None:
    """Outputs and gradients are those without checkpoints; attention tells how many layers ran twice."""
    config = small_config(rule, "decoder", 9)
    model, batch = build_model(config), random_batch(config, 2, 7)
    model.use_path("plain")
    expected = gradients(model, batch)
    with model.running(checkpoint_every=2, recompute=recompute), _Calls() as seen:
        torch.testing.assert_close(gradients(model, batch), expected, rtol=1e-12, atol=1e-12)
    assert seen.calls == 9 + min(recompute, 9)


@pytest.mark.parametrize("compiled", ["no", "layer"])
@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_attention_that_is_kept_is_not_computed_again(architecture: Any, compiled: Any) -> None:
    config = small_config("deepnorm", architecture, 4)
    model, batch = build_model(config), random_batch(config, 2, 7)
    model.use_path("plain")
    expected = gradients(model, batch)
    model.mode = replace(model.mode, checkpoint_every=2, compile=compiled, backend="aot_eager")
    branches = 4 if architecture == "decoder" else 4 + 2 * 4
    for keep, calls in ((False, 2 * branches), (True, branches)):
        with model.running(keep_attention=keep):
            gradients(model, batch)  # what compiles, calls too
            with _Calls() as seen:
                torch.testing.assert_close(gradients(model, batch), expected)
        assert seen.calls == calls


@pytest.mark.parametrize("every", [0, 2])
def test_who_computes_attention_can_be_chosen_and_stays_so_when_it_is_computed_again(every: int) -> None:
    config = small_config("deepnorm", "decoder", 4)
    model, batch = build_model(config), random_batch(config, 2, 7)
    model.use_path("plain")
    expected = gradients(model, batch)
    for backend, calls in (("math", 0), ("flash", 4), ("cudnn", 4)):  # no CPU has the last, so another one does it
        with model.running(attention=backend, checkpoint_every=every), _Calls() as seen:
            torch.testing.assert_close(gradients(model, batch), expected)
        assert seen.calls == calls * (2 if every else 1)


@pytest.mark.fast
def test_what_checkpoints_keep_is_chosen_by_the_plain_path() -> None:
    config = small_config("deepnorm", "decoder", 4)
    model, batch = build_model(config), random_batch(config, 2, 7)
    for changes, why in (
        ({"checkpoint_every": 2, "recompute": 2}, "what checkpoints keep was chosen"),
        ({"checkpoint_every": 2, "keep_attention": True}, "what checkpoints keep was chosen"),
        ({"attention": "math"}, "PyTorch's attention was chosen"),
    ):
        with model.running(path="auto", **changes):
            model.loss(batch)
        assert why in model.stacks()["decoder"].path_taken


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recompute": 3}, "recompute=3 says how many layers have checkpoints, and there are none: checkpoint_every="),
        ({"keep_attention": True}, "keep_attention=True keeps more at checkpoints, and there are none"),
        (
            {"checkpoint_every": 2, "recompute": "al"},
            "recompute='al': expected a whole number of layers, 0 or more, or",
        ),
        ({"checkpoint_every": 2, "recompute": -1}, "recompute=-1: expected a whole number"),
        ({"attention": "flsh"}, "Unknown attention 'flsh': did you mean 'flash'"),
        ({"autotune": True, "compile": "layer", "backend": "aot_eager"}, "kernels that inductor makes, and backend="),
    ],
)
def test_what_a_mode_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mode(**settings)
