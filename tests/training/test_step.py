"""The step against PyTorch's own pieces; the loop's history, refusals and diagnosis."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from deepnet_edu import ModelConfig, TrainConfig, build_model, probe, train
from deepnet_edu.data import TokenMap
from deepnet_edu.model import Batch, LanguageModel
from deepnet_edu.profiles import History
from deepnet_edu.training import TrainingDiverged, learning_rate
from deepnet_edu.training.optimizer import FlatParameters

TASK = TokenMap(vocab_size=8, length=6, batch_size=4)


def small(residual: str = "deepnorm", layers: int = 2, seed: int = 0) -> LanguageModel:
    config = ModelConfig("decoder", "lm", layers, d_model=16, n_heads=2, d_ff=32, vocab_size=8, residual=residual)
    return build_model(config, seed=seed)


def quiet(model: LanguageModel, **settings):
    return train(model, TASK, TrainConfig(**{"steps": 3, **settings}), progress=False)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("group", ["all", "stack"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_equal_torchs_own_adamw(weight_decay: float, group: str) -> None:
    ours = small().double()
    theirs = copy.deepcopy(ours)
    chosen = theirs.group(group)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in chosen if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in chosen if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(0.8, 0.95),
    )
    generator = torch.Generator().manual_seed(9)
    expected = []
    for i in range(6):
        batch = TASK.batch(generator)
        loss = theirs.loss(batch)
        theirs.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(chosen, 0.5)
        for parameter_group in optimizer.param_groups:
            parameter_group["lr"] = 0.01 * min(1, (i + 1) / 4)
        optimizer.step()
        expected.append(loss.item())
    history = train(
        ours,
        TASK,
        TrainConfig(
            steps=6, learning_rate=0.01, warmup=4, clip=0.5, weight_decay=weight_decay, betas=(0.8, 0.95),
            parameters=group, seed=9,  # type: ignore[arg-type]
        ),
        progress=False,
    )  # fmt: skip
    assert history.loss == pytest.approx(expected, rel=1e-9)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(("group", "frozen"), [("stack", "ends"), ("ends", "stack")])
def test_only_the_chosen_group_moves(group: str, frozen: str) -> None:
    model = small()
    before = {p: p.detach().clone() for p in model.parameters()}
    quiet(model, parameters=group)
    assert all(torch.equal(before[p], p) for p in model.group(frozen))  # type: ignore[arg-type]
    assert not any(torch.equal(before[p], p) for p in model.group(group) if p.ndim > 1)  # type: ignore[arg-type]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.usefixtures("both_paths")
def test_the_same_seed_gives_the_same_run_and_another_does_not() -> None:
    first, again, other = (quiet(small(), seed=seed).loss for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.usefixtures("both_paths")
def test_after_training_the_parameters_own_their_memory() -> None:
    model = small()
    quiet(model)
    storages = {p.untyped_storage().data_ptr() for p in model.parameters()}
    assert len(storages) == len(list(model.parameters()))


@pytest.mark.usefixtures("both_paths")
def test_a_run_can_go_on_after_another() -> None:
    model = small()
    assert quiet(model, steps=30, learning_rate=3e-3).loss[0] > quiet(model, steps=30, learning_rate=3e-3).loss[-1]


def test_flat_views_are_the_parameters() -> None:
    layer = nn.Linear(3, 2)
    before = copy.deepcopy(layer)
    flat = FlatParameters(layer.parameters())
    with torch.no_grad():
        flat.flat.add_(1)
    torch.testing.assert_close(layer.weight, before.weight + 1)
    layer(torch.ones(1, 3)).sum().backward()
    assert flat.flat.grad is not None
    torch.testing.assert_close(flat.flat.grad, torch.ones(8))


def test_learning_rate() -> None:
    constant = TrainConfig(steps=200, learning_rate=0.3, warmup=3)
    assert [learning_rate(i, constant) for i in (0, 1, 2, 3, 100)] == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.3])
    assert learning_rate(0, TrainConfig(steps=1, learning_rate=0.3, warmup=0)) == 0.3
    # The paper's, as fairseq has it: from 1e-7 to the peak in a straight line, then with 1/√t.
    paper = TrainConfig(steps=100_000, learning_rate=1.5e-3, schedule="inverse_sqrt", warmup=4000, warmup_start=1e-7)
    rates = [learning_rate(t - 1, paper) for t in (2000, 4000, 16_000, 100_000)]
    assert rates == pytest.approx([(1.5e-3 + 1e-7) / 2, 1.5e-3, 1.5e-3 / 2, 1.5e-3 / 5])
    cosine = TrainConfig(
        steps=30, learning_rate=0.3, schedule="cosine", warmup=10, final_learning_rate=0.1, warmup_start=0.2
    )
    assert [learning_rate(t - 1, cosine) for t in (5, 10, 15, 20, 30)] == pytest.approx(
        [0.25, 0.3, 0.2 + 0.1 * 2**-0.5, 0.2, 0.1]
    )


@pytest.mark.usefixtures("both_paths")
def test_the_history() -> None:
    seen = []
    history = train(
        small(), TASK, TrainConfig(steps=5, profile_every=2), on_step=lambda h: seen.append(len(h.loss)), progress=False
    )
    assert seen == [1, 2, 3, 4, 5]
    assert sorted(history.profiles) == [0, 2, 4]
    assert history.tokens == [24, 48, 72, 96, 120]
    assert len(history.seconds) == len(history.gradient_norm) == len(history.learning_rate) == 5
    assert history.final_loss(last=2) == pytest.approx(sum(history.loss[-2:]) / 2)
    profile = history.profiles[4]
    assert profile.gradient_norm is not None
    assert (profile.gradient_norm > 0).all()
    assert history.label == "DeepNorm"


@pytest.mark.usefixtures("both_paths")
def test_profiles_do_not_change_the_run() -> None:
    assert quiet(small(), profile_every=1).loss == quiet(small()).loss


@pytest.mark.usefixtures("both_paths")
def test_a_frozen_stack_has_no_gradient_to_show() -> None:
    assert quiet(small(), parameters="ends", profile_every=1).profiles[0].gradient_norm is None


@pytest.mark.usefixtures("both_paths")
def test_a_nan_weight_stops_the_run_with_a_diagnosis() -> None:
    model = small()
    with torch.no_grad():
        model.stack.layers[1].ffn.branch.ffn_in.weight[0, 0] = torch.nan
    with pytest.raises(
        TrainingDiverged, match=r"step 0: loss nan.*layers\.1\.ffn\.branch\.ffn_in\.weight.*Try.*learning_rate"
    ):
        quiet(model)


@pytest.mark.usefixtures("both_paths")
def test_the_first_bad_layer_is_named_and_the_history_kept() -> None:
    model = small("pre_ln", layers=3)
    with torch.no_grad():
        model.stack.layers[1].ffn.branch.ffn_out.weight.fill_(3e38)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingDiverged, match=r"leaves layer 2 \(ffn, \w+\).*residual='deepnorm'") as caught:
        quiet(model)
    assert caught.value.step == 0
    assert not math.isfinite(caught.value.history.loss[0])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.usefixtures("both_paths")
def test_a_gradient_that_is_not_finite_stops_too() -> None:
    model = small()
    handle = model.stack.layers[0].ffn.branch.ffn_in.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingDiverged, match="the forward pass is finite, the gradient is not"):
        quiet(model)
    handle.remove()


class TwoShapes:
    """Batches whose length changes, as text packs them."""

    def batch(self, generator: torch.Generator) -> Batch:
        T = int(torch.randint(2, 6, (), generator=generator))
        x = torch.randint(8, (3, T), generator=generator)
        return Batch(x, x)


@pytest.mark.usefixtures("both_paths")
def test_any_object_with_batch_is_a_task() -> None:
    assert len(train(small(), TwoShapes(), TrainConfig(steps=4), progress=False).loss) == 4


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "steps=0: expected a whole number, 1 or more"),
        ({"warmup": -1}, "warmup=-1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: expected a positive number"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"clip": -1.0}, "clip=-1.0: expected 0 or more"),
        ({"learning_rate": "3e-4"}, "learning_rate='3e-4': expected a positive number"),
        ({"betas": (1.0, 0.999)}, "betas=.* expected two numbers from 0 to below 1"),
        ({"parameters": "body"}, "Unknown group of parameters 'body'"),
    ],
)
def test_bad_settings_are_refused(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        quiet(small(), **settings)


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        quiet(small("none", layers=0), parameters="stack")


@pytest.mark.usefixtures("both_paths")
def test_the_bar_shows_loss_and_speed(capsys: pytest.CaptureFixture) -> None:
    train(small(), TASK, TrainConfig(steps=2))
    shown = capsys.readouterr().err
    assert "loss" in shown
    assert "tokens/s" in shown


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_follows_the_cpu() -> None:
    on_cpu, on_gpu = quiet(small(), steps=5).loss, quiet(small().to("cuda"), steps=5).loss
    assert on_gpu == pytest.approx(on_cpu, rel=1e-3)


@pytest.mark.usefixtures("both_paths")
def test_profiles_hold_the_gradient_before_clipping() -> None:
    model = small()
    measured = probe(model, TASK.batch(torch.Generator().manual_seed(0))).gradient_norm
    history = quiet(model, clip=1e-3, profile_every=1)
    np.testing.assert_allclose(history.profiles[0].gradient_norm, measured, rtol=1e-4)


def test_a_diagnosis_comes_back_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(TrainingDiverged("because", 3, History("x", loss=[1.0]))))
    assert (str(error), error.step, error.history.loss) == ("because", 3, [1.0])
