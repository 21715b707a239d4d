"""Numbers at the edges: half precision as default, other whole numbers, no answers, no gradients, other readers."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from deepnet_edu import Batch, ModelConfig, TrainConfig, build_model, probe, train
from deepnet_edu.data import PreviousToken, PythonDocs, TokenMap
from deepnet_edu.model import IGNORED, random_batch
from deepnet_edu.model.attention import rotary
from deepnet_edu.model.compiled import plain_name, unwrapped
from deepnet_edu.model.embedding import sinusoidal
from deepnet_edu.model.generation import beam_search, greedy, sample
from deepnet_edu.planning import flops_per_token
from deepnet_edu.probing.update import model_update

SIZES = {"d_model": 16, "n_heads": 2, "d_ff": 32, "vocab_size": 11, "max_length": 24}
LM = ModelConfig("decoder", "lm", 2, **SIZES)
MT = ModelConfig("encoder_decoder", "translation", 2, 2, **SIZES)
MLM = ModelConfig("encoder", "mlm", 0, 2, **SIZES)
X = torch.randint(11, (3, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def default() -> Iterator[None]:
    """PyTorch's global settings are afterwards what they were."""
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)


# --- half precision, and another device, as defaults


@pytest.mark.usefixtures("default")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_are_exact_whatever_the_default_precision(dtype: torch.dtype) -> None:
    places = torch.arange(2048)
    right = *rotary(places, 16), sinusoidal(places, 16)
    torch.set_default_dtype(dtype)
    for expected, found in zip(right, (*rotary(places, 16), sinusoidal(places, 16)), strict=True):
        assert torch.equal(expected, found)


@pytest.mark.fast
@pytest.mark.usefixtures("default")
def test_compiled_functions_are_checked_in_their_own_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepnet_edu.model.fast import native

    known = native.load()
    native.load.cache_clear()
    torch.set_default_dtype(torch.bfloat16)
    with torch.inference_mode():
        found = native.load()
    assert (found[0] is None) == (known[0] is None)


@pytest.mark.usefixtures("default")
def test_an_optimizer_counts_beyond_what_half_precision_can() -> None:
    from deepnet_edu.training.step import TrainStep

    torch.set_default_dtype(torch.bfloat16)
    with TrainStep(build_model(LM), TrainConfig(steps=1000)) as step:
        step.updates = 999
        assert step.updates == 999


@pytest.mark.usefixtures("both_paths", "default")
@pytest.mark.parametrize(
    "task", [TokenMap(11, 8, 2), PreviousToken(11, 8, 2), PythonDocs(8, 2)], ids=lambda t: type(t).__name__
)
def test_a_default_device_does_not_move_what_is_built_on_the_cpu(task: PythonDocs) -> None:
    torch.set_default_device("meta")
    model = build_model(replace(LM, vocab_size=task.vocab_size))
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert len(train(model, task, TrainConfig(steps=2), progress=False).loss) == 2
    assert probe(model, random_batch(model.config, 2, 8)).judge().passed


def test_a_model_on_meta_has_no_numbers_to_probe_or_write() -> None:
    model = build_model(LM, device="meta")
    assert model(X.to("meta")).shape == (3, 8, 11)
    for work in (lambda: probe(model, Batch(X, X)), lambda: greedy(model, X, 2)):
        with pytest.raises(ValueError, match="on the device meta"):
            work()


# --- tokens, targets and masks


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32])
def test_tokens_may_be_any_whole_numbers(dtype: torch.dtype) -> None:
    model = build_model(LM)
    expected = model.loss(Batch(X, X))
    assert torch.equal(model.loss(Batch(X.to(dtype), X.to(dtype))), expected)
    assert torch.equal(greedy(model, X.to(dtype), 3), greedy(model, X, 3))
    translator = build_model(MT)
    assert torch.equal(greedy(translator, X.to(dtype), 3, start=10), greedy(translator, X, 3, start=10))


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("config", [LM, MLM, MT], ids=["lm", "mlm", "translation"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_what_is_not_a_whole_number_is_no_token(config: ModelConfig, dtype: torch.dtype) -> None:
    model = build_model(config)
    for batch in (Batch(X.to(dtype), X, target_inputs=X), Batch(X, X.to(dtype), target_inputs=X)):
        with pytest.raises(ValueError, match=rf"of {dtype}: expected whole numbers"):
            model.loss(batch)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("target", [11, -1, 10**12])
def test_a_target_outside_the_vocabulary(target: int) -> None:
    targets = X.clone()
    targets[1, 2] = target
    with pytest.raises(ValueError, match=rf"Target {target} is outside the model's outputs: .* 0 to 10, or -100"):
        build_model(LM).loss(Batch(X, targets))


@pytest.mark.usefixtures("both_paths")
def test_targets_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"Targets of shape \(3, 7\): expected \(3, 8\)"):
        build_model(LM).loss(Batch(X, X[:, 1:]))


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
@pytest.mark.parametrize("which", ["padding", "target_padding"])
def test_a_mask_is_bool(dtype: torch.dtype, which: str) -> None:
    batch = Batch(X, X, target_inputs=X, **{which: torch.zeros(3, 8, dtype=dtype)})
    with pytest.raises(ValueError, match=rf"padding of {dtype}: expected bool.*attention_mask == 0"):
        build_model(MT).loss(batch)


def test_a_mask_has_an_entry_for_each_token() -> None:
    with pytest.raises(ValueError, match=r"padding of shape \(3, 7\): expected \(3, 8\)"):
        build_model(LM).loss(Batch(X, X, padding=torch.zeros(3, 7, dtype=torch.bool)))


def padded() -> tuple[Tensor, Tensor]:
    """Texts of 2, 5 and 8 tokens, padded on the right by token 0, and where they are."""
    padding = torch.arange(8) >= torch.tensor([[2], [5], [8]])
    return X.clamp_min(1).masked_fill(padding, 0), padding


@pytest.mark.parametrize("config", [LM, MLM], ids=["lm", "mlm"])
def test_a_mask_the_other_way_round_is_refused(config: ModelConfig) -> None:
    x, padding = padded()
    model, targets = build_model(config), x.masked_fill(padding, IGNORED)
    with pytest.raises(ValueError, match="Every target that counts is where the batch has padding"):
        model.loss(Batch(x, targets, padding=~padding))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.loss(Batch(x, targets, padding=padding)).isfinite()


@pytest.mark.usefixtures("both_paths")
def test_a_source_mask_the_other_way_round_is_said() -> None:
    x, padding = padded()
    model = build_model(MT)
    with pytest.warns(UserWarning, match="padding hides every token but 0"):
        model.loss(Batch(x, X, padding=~padding, target_inputs=X))
    with pytest.warns(UserWarning, match="padding hides every token:"):
        model.loss(Batch(x, X, padding=torch.ones_like(padding), target_inputs=X))
    with pytest.raises(ValueError, match="Every target that counts"):
        model.loss(Batch(X, x.masked_fill(padding, IGNORED), target_inputs=x, target_padding=~padding))


def test_a_row_of_padding_alone_is_no_mistake() -> None:
    padding = torch.zeros(3, 8, dtype=torch.bool)
    padding[1] = True
    model = build_model(replace(LM, position="rotary"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.loss(Batch(X, X.masked_fill(padding, IGNORED), padding=padding)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# --- no answers


class Given:
    """A task of these batches, in turn."""

    def __init__(self, *batches: Batch) -> None:
        self.batches, self.i = batches, -1

    def batch(self, generator: torch.Generator) -> Batch:
        self.i += 1
        return self.batches[self.i % len(self.batches)]


SILENT = Batch(X, torch.full_like(X, IGNORED))


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_loss_without_answers_is_zero(smoothing: float) -> None:
    model = build_model(LM)
    loss = model.loss(SILENT, smoothing)
    loss.backward()
    assert loss.item() == 0.0
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.usefixtures("both_paths", "double")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_micro_batch_without_answers_changes_nothing(smoothing: float) -> None:
    how = {"steps": 3, "optimizer": "sgd", "label_smoothing": smoothing}
    a, b = build_model(LM), build_model(LM)
    with_it = train(a, Given(Batch(X, X), SILENT), TrainConfig(**how, accumulate=2), progress=False)
    without = train(b, Given(Batch(X, X)), TrainConfig(**how), progress=False)
    torch.testing.assert_close(with_it.loss, without.loss)
    for one, other in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_without_answers_is_refused(accumulate: int) -> None:
    model = build_model(LM)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="None of the step's targets counts"):
        train(model, Given(SILENT), TrainConfig(steps=2, accumulate=accumulate, weight_decay=0.1), progress=False)
    assert all(map(torch.equal, before, model.parameters()))
    with pytest.raises(ValueError, match="No target of the batch counts"):
        probe(model, SILENT)


# --- gradients switched off


@pytest.mark.usefixtures("both_paths", "default")
@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_training_and_probing_need_no_gradients_around(off: Callable[[], torch.no_grad]) -> None:
    expected = train(build_model(LM), TokenMap(11, 8, 2), TrainConfig(steps=2), progress=False).loss
    with off():
        model = build_model(LM).requires_grad_(False)
        batch = random_batch(LM, 2, 8)
        assert train(model, TokenMap(11, 8, 2), TrainConfig(steps=2), progress=False).loss == expected
        assert train(build_model(LM), Given(batch), TrainConfig(steps=1), progress=False).loss
        profile, update = probe(model, batch), model_update(model, batch)
    assert profile.gradient_norm is not None
    assert update > 0
    assert probe(model, batch).gradient_norm is not None
    greedy(build_model(LM), X, 2)


def test_weights_made_in_inference_mode_are_named() -> None:
    model = build_model(LM)
    with torch.inference_mode():
        model.double()
    for work in (
        lambda: train(model, TokenMap(11, 8, 2), TrainConfig(steps=1), progress=False),
        lambda: probe(model, Batch(X, X)),
    ):
        with pytest.raises(ValueError, match=r"made under torch.inference_mode\(\)"):
            work()


# --- generation


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_model_that_answers_no_numbers_does_not_write(value: float) -> None:
    generator = torch.Generator()
    for config, how in ((LM, {}), (MT, {"start": 0})):
        model = build_model(config)
        nn.init.constant_(model.head.weight, value)
        for write in (greedy, beam_search, lambda *a, **k: sample(*a, generator=generator, **k)):
            with pytest.raises(ValueError, match="weights of head.weight are not"):
                write(model, X, 4, **how)


def test_a_token_that_is_forbidden_is_no_broken_model() -> None:
    model = build_model(LM)
    model.head.register_forward_hook(lambda *given: given[2].index_fill(-1, torch.tensor([3]), -torch.inf))
    assert 3 not in greedy(model, X, 6)
    assert 3 not in sample(model, X, 6, generator=torch.Generator())
    assert 3 not in beam_search(model, X, 6)[0]


@pytest.mark.parametrize("temperature", [1e-40, 1e-300, 1e-6])
def test_cold_samples_are_greedy(temperature: float) -> None:
    model = build_model(LM)
    torch.set_flush_denormal(True)
    found = sample(model, X, 5, generator=torch.Generator(), temperature=temperature)
    assert torch.equal(found, greedy(model, X, 5))


def test_hot_samples_are_uniform() -> None:
    drawn = sample(build_model(LM), X.repeat(200, 1), 4, generator=torch.Generator(), temperature=1e300)
    share = drawn.flatten().bincount(minlength=11) / drawn.numel()
    assert (share - 1 / 11).abs().max() < 0.03


@pytest.mark.parametrize(
    "given",
    [{"temperature": t} for t in (0, -1.0, torch.inf, torch.nan, "1", None, True)]
    + [{"top_p": p} for p in (0, 1.5, torch.nan, "x")]
    + [{"top_k": k} for k in (0, -3, 1.5, "x")],
)
def test_settings_of_sampling_out_of_range(given: dict) -> None:
    (name,) = given
    with pytest.raises(ValueError, match=f"{name}=.*expected"):
        sample(build_model(LM), X, 2, generator=torch.Generator(), **given)


# --- wrappers


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
    ],
    ids=["compile", "DataParallel", "AveragedModel", "both"],
)
def test_wrappers_are_taken_off(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = build_model(LM)
    wrapped = wrap(model)
    assert type(unwrapped(wrapped)) is type(model)
    assert torch.equal(greedy(wrapped, X, 3), greedy(model, X, 3))
    assert torch.equal(beam_search(wrapped, X, 3)[0], beam_search(model, X, 3)[0])
    assert probe(wrapped, Batch(X, X)).to_dict() == probe(model, Batch(X, X)).to_dict()
    assert model_update(wrapped, Batch(X, X)) == model_update(model, Batch(X, X))
    assert train(wrapped, TokenMap(11, 8, 2), TrainConfig(steps=1), progress=False).loss


def test_what_shares_a_training_among_ranks_is_not_taken_off_in_silence() -> None:
    class DistributedDataParallel(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    wrapped = DistributedDataParallel(build_model(LM))
    with pytest.raises(ValueError, match=r"DistributedDataParallel, and train\(…, plan=Plan\(data=2\)\)"):
        train(wrapped, TokenMap(11, 8, 2), TrainConfig(steps=1), progress=False)
    assert torch.equal(greedy(wrapped, X, 2), greedy(wrapped.module, X, 2))


def test_only_wrappers_are_taken_off() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module, self.more = nn.Linear(2, 2), nn.Linear(2, 2)

    own = Own()
    assert unwrapped(own) is own
    assert unwrapped(None) is None
    assert plain_name("stack.layers.0._orig_mod.ffn.weight") == "stack.layers.0.ffn.weight"


def test_a_compiled_layer_is_a_layer() -> None:
    model = build_model(LM)
    expected, count = model(X), len(model.sublayers())
    model.stack.layers[1] = torch.compile(model.stack.layers[1], backend="eager")
    torch.testing.assert_close(model(X), expected)
    assert len(model.sublayers()) == count
    assert train(model, TokenMap(11, 8, 2), TrainConfig(steps=1), progress=False).loss


@pytest.mark.fast
def test_a_layer_of_ones_own_is_run_as_it_is() -> None:
    class Nothing(nn.Module):
        def forward(self, state: tuple[Tensor, ...], context: object) -> tuple[Tensor, ...]:
            return state

    model = build_model(replace(LM, decoder_layers=3))
    model.stack.layers[1] = Nothing()
    model.use_path("auto")
    assert model(X).isfinite().all()
    assert "does not know Nothing" in model.stack.path_taken


# --- others who read the operations


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize("residual", ["deepnorm", "pre_ln"])
def test_gradients_of_each_sample(position: str, residual: str) -> None:
    model = build_model(replace(LM, position=position, residual=residual)).eval()
    weights = dict(model.named_parameters())

    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, p, (x[None],)).flatten(0, 1), x)

    def loss_of_ours(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return model.loss_to(functional_call(model, p, (x[None],)), x[None])

    for one in (loss, loss_of_ours):
        found = vmap(grad(one), (None, 0))(weights, X)
        for row, x in enumerate(X):
            expected = grad(one)(weights, x)
            for name, value in expected.items():
                torch.testing.assert_close(found[name][row], value, atol=1e-5, rtol=1e-4)


@pytest.fixture
def nothing_compiled() -> None:
    """PyTorch counts the graphs of a function over all tests of a process, and refuses more than a few."""
    torch._dynamo.reset()


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("config", [LM, MLM, replace(LM, position="rotary")], ids=["lm", "mlm", "rotary"])
def test_a_model_can_be_exported_and_compiled_whole(config: ModelConfig) -> None:
    model = build_model(config).eval()
    expected = model(X)
    torch.testing.assert_close(torch.export.export(model, (X,)).module()(X), expected)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(X), expected)
    padding = padded()[1]
    whole = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(X, padding), model(X, padding))


@pytest.mark.usefixtures("nothing_compiled")
def test_a_loss_can_be_compiled_whole() -> None:
    model = build_model(LM)
    found = torch.compile(lambda x: model.loss(Batch(x, x)), backend="eager", fullgraph=True)(X)
    torch.testing.assert_close(found, model.loss(Batch(X, X)))


@pytest.mark.parametrize("path", ["plain", "auto"])
@pytest.mark.parametrize("config", [LM, MT, replace(LM, position="rotary")], ids=["lm", "translation", "rotary"])
def test_operations_are_counted_completely(config: ModelConfig, path: str) -> None:
    model = build_model(config)
    model.use_path(path)
    with FlopCounterMode(display=False) as counter:
        model.loss(random_batch(config, 2, 16)).backward()
    each = flops_per_token(config, 16)
    assert each is not None
    tokens = 2 * 16 * (2 if config is MT else 1)
    # Masked pairs count to PyTorch, and its attention computes scores again on the way back.
    assert 1 <= counter.get_total_flops() / (each * tokens) < 1.35
