"""The fast path against the plain one: outputs and gradients of every rule it claims, and what it must refuse."""

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepnet_edu import TrainConfig, build_model, probe, train
from deepnet_edu.model import Batch, Model, ModelConfig, random_batch
from deepnet_edu.model.attention import Context
from deepnet_edu.model.fast import LONGEST, StepBuffers, knows, native
from deepnet_edu.model.mode import Mode
from deepnet_edu.model.shape import Shape
from deepnet_edu.model.stack import Stack
from deepnet_edu.training import TrainStep
from tests.rules import CLAIMS, depths, small_config

KNOWN = [(rule, architecture) for rule, architecture in CLAIMS if knows(rule, *depths(architecture, 5).values())]
SETTINGS = TrainConfig(steps=9, learning_rate=1e-2, warmup=0, clip=1.0, weight_decay=0.1, betas=(0.9, 0.99))


@pytest.fixture(params=["compiled", "PyTorch's operations"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """float32 with the compiled functions, where there is a compiler, and without them."""
    if request.param == "compiled":
        found, reason = native.load()
        if found is None:
            pytest.skip(reason)
    else:
        monkeypatch.setattr(native, "load", lambda: (None, "a test leaves it out"))
    return str(request.param)


def ragged(config: ModelConfig, seed: int = 0) -> Batch:
    """Sequences of 7 tokens; of a translation's target, 10."""
    batch = random_batch(config, 3, 7, seed)
    if batch.target_inputs is None:
        return batch
    longer = random_batch(config, 3, 10, seed + 1)
    return Batch(batch.inputs, longer.targets, target_inputs=longer.target_inputs)


def results(model: Model, batch: Batch, path: str, every: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    model.use_path(path)  # type: ignore[arg-type]
    model.checkpoint_every(every)
    model.zero_grad()
    logits = model.logits(batch)
    model.loss_of(logits, batch).backward()
    if path == "fast":
        assert all(stack.path_taken.startswith("fast") for stack in model.stacks().values())
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def apart(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item()


def shaken(config: ModelConfig) -> Model:
    """Biases and norms too: zeros and ones hide mistakes."""
    model = build_model(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("every", [0, 1, 2])
@pytest.mark.parametrize(("rule", "architecture"), KNOWN)
def test_equals_the_plain_path_in_float64(rule: str, architecture: Any, every: int, activation: str) -> None:
    config = small_config(rule, architecture, layers=5, activation=activation)  # type: ignore[arg-type]
    model, batch = shaken(config).double(), ragged(config)
    logits, gradients = results(model, batch, "fast", every)
    plain_logits, plain_gradients = results(model, batch, "plain")
    assert apart(logits, plain_logits) < 1e-12
    assert gradients.keys() == plain_gradients.keys()
    assert max(apart(gradients[name], plain) for name, plain in plain_gradients.items()) < 1e-11


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize(("rule", "architecture"), KNOWN)
def test_equals_the_plain_path_in_float32(rule: str, architecture: Any, activation: str, library: str) -> None:
    config = small_config(rule, architecture, 2, d_model=24, d_ff=40, activation=activation)  # type: ignore[arg-type]
    model, batch = shaken(config), ragged(config)
    logits, gradients = results(model, batch, "fast")
    assert library in next(iter(model.stacks().values())).taken
    plain_logits, plain_gradients = results(model, batch, "plain")
    assert apart(logits, plain_logits) < 1e-5
    assert max(apart(gradients[name], plain) for name, plain in plain_gradients.items()) < 1e-5


def test_a_hundred_deepnorm_layers_are_equal_too(library: str) -> None:
    config = ModelConfig("decoder", "lm", 100, d_model=32, n_heads=4, d_ff=64, vocab_size=16)
    model, batch = build_model(config), random_batch(config, 2, 64)
    logits, gradients = results(model, batch, "fast", every=10)
    plain_logits, plain_gradients = results(model, batch, "plain")
    assert apart(logits, plain_logits) < 1e-5
    worst = max(apart(gradients[name], plain) for name, plain in plain_gradients.items() if "qkv" not in name)
    assert worst < 1e-5
    # Of a packed gradient, query's and key's part is far smaller than value's, which sets the scale.
    assert max(apart(gradients[n], p) for n, p in plain_gradients.items() if "qkv" in n) < 1e-5


def tiny(rule: str, memory: bool) -> tuple[Stack, Tensor, Tensor | None]:
    torch.manual_seed(0)
    depths = {"encoder_layers": 1 if memory else 0, "decoder_layers": 1}
    stack = Stack("decoder", rule, shape=Shape(4, 2, 6), **depths).double()
    for parameter in stack.parameters():
        nn.init.normal_(parameter, mean=0.2, std=0.4)
    stack.mode = Mode(path="fast")
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    return stack, x, torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True) if memory else None


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("rule", ["deepnorm", "pre_ln"])
def test_gradcheck(rule: str, memory: bool) -> None:
    stack, x, encoded = tiny(rule, memory)
    parameters = list(stack.parameters())

    def run(*_: Tensor) -> Tensor:
        return stack(x, context=Context(memory=encoded))

    inputs = [t for t in (x, encoded, *parameters) if t is not None]
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, [t for t in (x, encoded) if t is not None])


def test_one_thread_repeats_itself_to_the_last_bit(library: str) -> None:
    config = small_config("deepnorm", "encoder_decoder", 4, d_model=24, d_ff=40)
    model, batch = shaken(config), ragged(config)
    first, again = results(model, batch, "fast"), results(model, batch, "fast")
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(gradient, again[1][name]) for name, gradient in first[1].items())


# --- training ---------------------------------------------------------------------------------------------------------


class Same:
    def __init__(self, config: ModelConfig) -> None:
        self.one = ragged(config)

    def batch(self, generator: torch.Generator) -> Batch:
        return self.one


@pytest.mark.parametrize("every", [0, 2, 9])  # 9: more than there are layers
@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_training_is_the_same(architecture: Any, every: int) -> None:
    """Gradients go to the optimizer's buffer at once, and the tensors of a step are used again at the next."""
    config = small_config("deepnorm", architecture, 5)
    losses = {}
    for path in ("plain", "fast"):
        model = shaken(config).double()
        model.use_path(path)  # type: ignore[arg-type]
        model.checkpoint_every(every)
        history = train(model, Same(config), TrainConfig(steps=6, learning_rate=1e-2, warmup=0), progress=False)
        losses[path] = history.loss, history.gradient_norm, model.head.weight.detach()
        assert all(stack.step_buffers is None for stack in model.stacks().values())
    torch.testing.assert_close(losses["fast"], losses["plain"], rtol=1e-9, atol=1e-9)


def test_batches_may_change_their_shape() -> None:
    config = small_config("deepnorm", "decoder", 3)
    models = [shaken(config).double() for _ in range(2)]
    models[1].use_path("plain")
    found = []
    for model in models:
        with TrainStep(model, SETTINGS) as step:
            batches = [random_batch(config, n, t, seed) for seed, (n, t) in enumerate([(2, 5), (3, 7), (2, 5), (1, 9)])]
            found.append([step(batch).loss for batch in batches])
    assert found[0] == pytest.approx(found[1], rel=1e-10)


def test_a_look_in_the_middle_of_training_does_not_disturb_it() -> None:
    config = small_config("deepnorm", "decoder", 3)
    batch, other = ragged(config), random_batch(config, 2, 4, seed=5)
    found = []
    for look in (False, True):
        model = shaken(config).double()
        with TrainStep(model, SETTINGS) as step:
            losses = []
            for _ in range(3):
                losses.append(step(batch).loss)
                if look:
                    probe(model, batch)
                    with torch.no_grad():
                        model.loss(other)
        found.append(losses)
    assert found[0] == found[1]


@pytest.mark.parametrize("late", [False, True])
def test_what_hangs_on_a_gradient_sees_it(late: bool) -> None:
    config = small_config("deepnorm", "decoder", 2)
    model = build_model(config)
    seen: list[Tensor] = []
    weight = model.sublayers()[1].matrices()[0]
    if late:
        handle = weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))  # type: ignore
    else:
        handle = weight.register_hook(seen.append)  # type: ignore[arg-type]
    with TrainStep(model, replace(SETTINGS, clip=0)) as step:
        step(ragged(config))
        assert len(seen) == 1
        torch.testing.assert_close(seen[0], weight.grad)
    handle.remove()


def test_parts_may_be_frozen() -> None:
    config = small_config("deepnorm", "decoder", 3)
    model, batch = shaken(config).double(), ragged(config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.1.ffn" in name)
    _, gradients = results(model, batch, "fast")
    _, plain = results(model, batch, "plain")
    assert gradients.keys() == plain.keys()
    assert len(gradients) == 6
    assert max(apart(gradients[name], value) for name, value in plain.items()) < 1e-11
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("embed" in name)
    _, gradients = results(model, batch, "fast")
    _, plain = results(model, batch, "plain")
    assert gradients.keys() == plain.keys()
    assert max(apart(gradients[name], value) for name, value in plain.items()) < 1e-11


def test_backward_a_second_time() -> None:
    stack, x, _ = tiny("deepnorm", False)
    y = stack(x).square().sum()
    y.backward(retain_graph=True)
    once = x.grad.clone()  # type: ignore[union-attr]
    y.backward()
    torch.testing.assert_close(x.grad, 2 * once)
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_weights_that_change_before_backward_are_noticed() -> None:
    stack, x, _ = tiny("deepnorm", False)
    y = stack(x).sum()
    with torch.no_grad():
        next(stack.parameters()).mul_(2)
    with pytest.raises(RuntimeError, match=r"call backward\(\) before"):
        y.backward()


def test_two_forward_passes_in_one_training_step_are_noticed() -> None:
    config = small_config("deepnorm", "decoder", 2)
    model, batch = build_model(config), ragged(config)
    with TrainStep(model, SETTINGS):
        model.stacks()["decoder"].step_buffers = StepBuffers()
        first, second = model.loss(batch), model.loss(batch)
        second.backward()
        with pytest.raises(RuntimeError, match=r"use_path\('plain'\)"):
            first.backward()


# --- copies and state -------------------------------------------------------------------------------------------------


def test_a_copy_made_in_the_middle_of_training_is_free() -> None:
    config = small_config("deepnorm", "decoder", 2)
    model, batch = build_model(config), ragged(config)
    with TrainStep(model, SETTINGS) as step:
        step(batch)
        copied = copy.deepcopy(model)
        before = [p.clone() for p in copied.parameters()]
        step(batch)
        assert all(stack.step_buffers is None for stack in copied.stacks().values())
        assert all(torch.equal(a, b) for a, b in zip(before, copied.parameters(), strict=True))
        storages = {p.untyped_storage().data_ptr() for p in model.parameters()}
        assert not storages & {p.untyped_storage().data_ptr() for p in copied.parameters()}
        copied.loss(batch).backward()
        assert all(p.grad is not None for p in copied.parameters())


def test_a_state_dict_knows_nothing_of_paths() -> None:
    config = small_config("deepnorm", "encoder_decoder", 2)
    model, batch = build_model(config), ragged(config)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    results(model, batch, "fast")
    with TrainStep(model, SETTINGS) as step:
        step(batch)
        inside = {name: value.shape for name, value in model.state_dict().items()}
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
    assert shapes == inside == {name: value.shape for name, value in model.state_dict().items()}
    buffer.seek(0)
    other = build_model(config, seed=1)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other.logits(batch), model.logits(batch))


@pytest.mark.parametrize("what", ["zero_grad", "assign", "data"])
def test_what_leaves_the_buffers_is_taken_back(what: str) -> None:
    """Training continues as if the same had been done in place."""
    config = small_config("deepnorm", "decoder", 2)
    batch, found = ragged(config), []
    for aside in (False, True):
        model, other = build_model(config), build_model(config, seed=1)
        with TrainStep(model, SETTINGS) as step:
            step(batch)
            if what == "zero_grad":
                model.zero_grad(set_to_none=aside)
            elif what == "assign":
                model.load_state_dict(copy.deepcopy(other.state_dict()), assign=False)
                if aside:
                    for parameter in model.parameters():
                        parameter.data = parameter.data.clone()
            else:
                for parameter in model.parameters():
                    parameter.data = 2 * parameter.data if aside else parameter.data.mul_(2)
            found.append([step(batch).loss for _ in range(3)])
    assert found[0] == found[1]


def test_parameters_that_were_replaced_are_noticed() -> None:
    model, other = (build_model(small_config("deepnorm", "decoder", 2), seed=seed) for seed in (0, 1))
    with TrainStep(model, SETTINGS) as step:
        step(ragged(model.config))
        model.load_state_dict(other.state_dict(), assign=True)
        with pytest.raises(RuntimeError, match="load weights in place"):
            step(ragged(model.config))


def test_another_precision_in_the_middle_of_training_is_refused() -> None:
    model = build_model(small_config("deepnorm", "decoder", 2))
    with TrainStep(model, SETTINGS) as step:
        step(ragged(model.config))
        model.double()
        with pytest.raises(RuntimeError, match="came to torch.float64"):
            step(ragged(model.config))


# --- falling back, in the open ----------------------------------------------------------------------------------------


def with_module(model: Model) -> None:
    model.sublayers()[1].residual.norm = nn.Identity()


CHANGES: list[tuple[dict[str, Any], Callable[[Model], Any] | None, str]] = [
    ({"residual": "rezero"}, None, "does not know the rule ReZero"),
    ({"position": "rotary"}, None, "rotary"),
    ({"activation": "swiglu"}, None, "SwiGLU"),
    ({"activation": "geglu"}, None, "GEGLU"),
    ({"n_kv_heads": 1}, None, "grouped queries"),
    ({"bias": False}, None, "no biases"),
    ({"norm": "rms"}, None, "RMSNorm"),
    ({"dropout": 0.1}, None, "dropout is on"),
    ({}, with_module, "does not know Identity"),
    ({}, lambda model: model.to(torch.bfloat16), "x is torch.bfloat16"),
]


@pytest.mark.parametrize(("changes", "do", "reason"), CHANGES)
def test_it_falls_back_and_says_why(changes: dict[str, Any], do: Any, reason: str) -> None:
    settings = {"d_model": 12, "n_heads": 3, "d_ff": 20, "vocab_size": 11, **changes}
    if changes.get("position") == "rotary":
        settings["n_heads"] = 2
    config = ModelConfig("decoder", "lm", 2, **settings)
    model, batch = build_model(config), ragged(config)
    if do is not None:
        do(model)
    model.loss(batch).backward()
    taken = model.stacks()["decoder"].path_taken
    assert taken.startswith("plain, since ")
    assert reason in taken
    model.use_path("fast")
    with pytest.raises(ValueError, match=r"The fast path cannot run this.*Use path 'auto'"):
        model.loss(batch)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_inputs_that_it_does_not_know() -> None:
    stack = Stack("decoder", "deepnorm", encoder_layers=0, decoder_layers=2, shape=Shape(8, 2, 12))
    x = torch.randn(2, 5, 8)
    for call, reason in (
        (lambda: stack(x, padding=torch.zeros(2, 5, dtype=torch.bool)), "padding"),
        (lambda: stack(torch.randn(1, LONGEST + 1, 8)), f"{LONGEST + 1} tokens"),
        (lambda: torch.func.vmap(stack)(x[None]), "transformed"),
        (lambda: stack.double()(x.double()), ""),
    ):
        call()
        assert reason in stack.path_taken
        assert stack.path_taken.startswith("plain, since" if reason else "fast")
    with pytest.raises(ValueError, match="did you mean 'fast'"):
        build_model(small_config("deepnorm", "decoder")).use_path("fst")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"d_model": 12, "n_heads": 3, "d_ff": 24}, "a head has 4 features, not 8, 16, 32, 64"),
        ({"d_model": 16, "n_heads": 2, "d_ff": 20}, "d_ff is not a multiple of 8"),
    ],
)
def test_sizes_that_the_compiled_functions_do_not_know(sizes: dict[str, int], reason: str) -> None:
    config = ModelConfig("decoder", "lm", 2, vocab_size=11, **sizes)
    model, batch = build_model(config), ragged(config)
    logits, gradients = results(model, batch, "fast")
    assert model.stacks()["decoder"].path_taken == f"fast, by PyTorch's operations since {reason}"
    plain_logits, plain_gradients = results(model, batch, "plain")
    assert apart(logits, plain_logits) < 1e-5
    assert max(apart(gradients[name], plain) for name, plain in plain_gradients.items()) < 1e-5


@pytest.mark.parametrize(("rule", "architecture"), CLAIMS)
def test_it_takes_what_it_claims(rule: str, architecture: Any) -> None:
    config = small_config(rule, architecture, layers=5)
    model = build_model(config)
    model.logits(ragged(config))
    taken = [stack.path_taken for stack in model.stacks().values()]
    if (rule, architecture) in KNOWN:
        assert all(how.startswith("fast") for how in taken)
    else:
        assert all(how.startswith("plain, since it does not know the rule") for how in taken)
    simple = {"post_ln", "ds_init", "deepnorm", "deepnorm_glm", "pre_ln", "complete_p", "depth_mup", "deepscale_lm"}
    assert rule not in simple or (rule, architecture) in KNOWN


@pytest.mark.parametrize(
    "setting", [{"position": "rotary"}, {"activation": "swiglu"}, {"activation": "geglu"}, {"norm": "rms"}], ids=str
)
def test_what_both_paths_leaves_out_goes_by_the_plain_one(setting: dict[str, Any]) -> None:
    """tests/conftest.py does not run a test twice with these."""
    config = replace(small_config("deepnorm", "decoder", layers=3), **setting)
    model = build_model(config)
    model.logits(ragged(config))
    assert model.stack.path_taken.startswith("plain, since")
