"""What a recipe says: precisions agree, accumulation is the large batch, contradictions are refused."""

import copy
import re
from dataclasses import replace
from functools import partialmethod

import pytest
import torch
import torch.nn.functional as F

from deepnet_edu import Batch, ModelConfig, TrainConfig, build_model, train
from deepnet_edu.data import PreviousToken, TokenMap
from deepnet_edu.messages import UserError
from deepnet_edu.model import Model, build_empty
from deepnet_edu.planning import Plan, training_memory
from deepnet_edu.training import OutOfMemory, TrainingDiverged, TrainStep, memory, preparation
from deepnet_edu.training.graph import GraphedStep
from deepnet_edu.training.step import FIRST_SCALE, LEAST_SCALE

TASK = PreviousToken(vocab_size=8, length=6, batch_size=4)


def small(layers: int = 2, **changes) -> Model:
    return build_model(
        ModelConfig("decoder", "lm", layers, d_model=16, n_heads=2, d_ff=32, vocab_size=8, **changes), seed=1
    )


def batch(seed: int = 0) -> Batch:
    return TASK.batch(torch.Generator().manual_seed(seed))


def part(whole: Batch, rows: slice) -> Batch:
    return Batch(whole.inputs[rows], whole.targets[rows])


@pytest.mark.parametrize("path", ["plain", pytest.param("fast", marks=pytest.mark.fast)])
def test_accumulation_is_the_large_batch_however_the_answers_are_spread(path) -> None:
    whole = batch()
    whole.targets[1:, 3:] = -100  # the first sequence has more answers than the others
    models = [small().double() for _ in range(2)]
    for model in models:
        model.use_path(path)
    # SGD at rate 1 moves weights by what gradients are. AdamW's first step divides each gradient by itself, and of one
    # that is nothing but rounding it would show that alone, 10⁸ times as large.
    recipe = TrainConfig(steps=1, learning_rate=1.0, warmup=0, optimizer="sgd")
    with TrainStep(models[0], recipe) as step:
        expected = step(whole)
    with TrainStep(models[1], replace(recipe, accumulate=3)) as step:
        found = step(*(part(whole, rows) for rows in (slice(0, 1), slice(1, 2), slice(2, 4))))
    # A sum over 24 tokens of sums over 32 features, all below 1: each addition rounds by ε, in whatever order.
    rounding = 24 * 32 * torch.finfo(torch.float64).eps
    assert (found.loss, found.gradient_norm) == pytest.approx((expected.loss, expected.gradient_norm), rel=rounding)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=rounding)


def test_as_many_batches_as_the_recipe_says() -> None:
    with (
        TrainStep(small(), TrainConfig(steps=1, accumulate=2)) as step,
        pytest.raises(ValueError, match="1 batches for accumulate=2"),
    ):
        step(batch())


@pytest.mark.usefixtures("both_paths")
def test_steps_equal_torchs_own_sgd() -> None:
    ours = small().double()
    theirs = copy.deepcopy(ours)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    recipe = TrainConfig(steps=4, learning_rate=0.1, warmup=0, clip=0, optimizer="sgd")
    with TrainStep(ours, recipe) as step:
        for i in range(4):
            optimizer.zero_grad()
            theirs.loss(batch(i)).backward()
            optimizer.step()
            step(batch(i))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("both_paths")
def test_label_smoothing_spreads_a_share_of_each_answer() -> None:
    model, given = small().double(), batch()
    logits = F.log_softmax(model.logits(given), -1)
    answered = given.targets != -100
    right = -logits.gather(-1, given.targets.clamp_min(0).unsqueeze(-1)).squeeze(-1)[answered]
    expected = 0.9 * right.mean() - 0.1 * logits.mean(-1)[answered].mean()
    with TrainStep(model, TrainConfig(steps=1, label_smoothing=0.1)) as step:
        assert step(given).loss == pytest.approx(expected.item(), rel=1e-12)


#: Nats by which the loss curves of a precision may depart from float32's over the steps below.
TOLERANCE = {"bf16": 5e-3, "fp16": 1e-3}


def test_precisions_agree_on_the_loss_curve_of_100_layers() -> None:
    config = ModelConfig("decoder", "lm", 100, d_model=32, n_heads=2, d_ff=64, vocab_size=16, max_length=16)
    task, curves = TokenMap(batch_size=4), {}
    for precision in ("fp32", *TOLERANCE):
        recipe = TrainConfig(steps=12, learning_rate=1e-3, warmup=4, precision=precision)  # type: ignore[arg-type]
        curves[precision] = torch.tensor(train(build_model(config), task, recipe, progress=False).loss)
    assert curves["fp32"][-1] < curves["fp32"][0] - 0.3
    for precision, tolerance in TOLERANCE.items():
        off = (curves[precision] - curves["fp32"]).abs().max()
        assert off < tolerance, (precision, off)
        assert not torch.equal(curves[precision], curves["fp32"])  # it is another precision


def test_a_gradient_that_overflows_in_fp16_is_skipped_and_the_scale_halved() -> None:
    model = small()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with TrainStep(model, TrainConfig(steps=3, precision="fp16")) as step:
        step.scaler._init_scale = 2.0**40
        first, second = step(batch()), step(batch())
        assert first.skipped
        assert (first.scale, second.scale) == (2.0**40, 2.0**39)
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert step.count == 2
        while step(batch()).skipped:
            pass
        assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert TrainConfig(steps=1).precision == "fp32"


def test_an_fp16_run_whose_gradient_is_lost_at_every_scale_ends_with_a_diagnosis() -> None:
    model = small()
    layer = model.sublayers()[2].branch
    layer.output.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingDiverged, match=r"gradient is not: .* 2 \(self_attention, output\).*'bf16'") as end:
        train(model, TASK, TrainConfig(steps=60, precision="fp16"), progress=False)
    assert end.value.step == torch.log2(torch.tensor(FIRST_SCALE / LEAST_SCALE)).item()


@pytest.mark.usefixtures("both_paths")
def test_the_last_update_in_the_diagnosis_is_that_of_the_weights() -> None:
    model = small()
    with TrainStep(model, TrainConfig(steps=5, learning_rate=1e-2, warmup=0)) as step:
        assert step.last_update() is None
        for i in range(3):
            before = torch.cat([p.detach().flatten() for p in model.parameters()])
            step(batch(i))
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        assert step.last_update() == pytest.approx(((after - before).norm() / after.norm()).item(), rel=1e-4)


def test_dropout_draws_from_the_seed_and_leaves_the_global_state_alone() -> None:
    state = torch.get_rng_state()
    losses = [train(small(dropout=0.3), TASK, TrainConfig(steps=3, seed=s), progress=False).loss for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"schedule": "invers_sqrt"}, "did you mean 'inverse_sqrt'"),
        ({"precision": "float16"}, "did you mean 'fp16'"),
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
        ({"compile": "layers"}, "did you mean 'layer'"),
        ({"accumulate": 0}, "accumulate=0: expected a whole number, 1 or more"),
        ({"checkpoint_every": "sqrt"}, "checkpoint_every='sqrt': expected a whole number, 0 or more or 'auto'"),
        ({"recompute": "some"}, "recompute='some': expected a whole number, 0 or more, 'all' or 'auto'"),
        ({"attention": "flashy"}, "did you mean 'flash'"),
        ({"autotune": True}, "say compile='layer' too"),
        ({"offload": 1}, "offload=1: expected True or False"),
        ({"final_learning_rate": 1e-5}, "only schedule='cosine' has an end"),
        ({"warmup_start": 1.0}, "learning_rate=0.0003 is the largest"),
        ({"schedule": "cosine", "warmup": 9}, "warmup=9 of steps=9"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: expected less than 1"),
        ({"epsilon": 0.0}, "epsilon=0.0: expected a positive number"),
        ({"cuda_graph": True, "precision": "fp16"}, "cannot record precision='fp16'"),
    ],
)
def test_contradictions_are_refused(settings, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TrainConfig(**{"steps": 9, **settings})


def test_what_needs_a_gpu_is_refused_on_a_cpu() -> None:
    with pytest.raises(UserError, match=r"cuda_graph=True.*the model is on cpu.*leave cuda_graph out"):
        train(small(), TASK, TrainConfig(steps=1, cuda_graph=True), progress=False)


@pytest.mark.usefixtures("both_paths")
def test_a_step_that_looks_at_no_number_is_the_same_step() -> None:
    """What a CUDA graph records, on the CPU."""
    recipe, models = TrainConfig(steps=4, learning_rate=1e-2, warmup=2, clip=0.5), [small() for _ in range(2)]
    with TrainStep(models[0], recipe) as first, TrainStep(models[1], recipe) as second:
        for i in range(4):
            expected = first(batch(i))
            second.set_rate(expected.learning_rate)
            loss, norm = second.on_device((batch(i),))
            assert (loss.item(), norm.item()) == pytest.approx((expected.loss, expected.gradient_norm), rel=1e-6)
        before = [p.detach().clone() for p in models[1].parameters()]
        handle = models[1].head.weight.register_hook(lambda gradient: gradient * float("nan"))
        second.on_device((batch(),))
        handle.remove()
        assert all(torch.equal(a, b) for a, b in zip(before, models[1].parameters(), strict=True))
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cuda_graph_is_the_same_run(precision) -> None:
    config = ModelConfig("decoder", "lm", 4, d_model=64, n_heads=4, d_ff=128, vocab_size=8)
    recipe = TrainConfig(steps=12, learning_rate=1e-3, precision=precision)
    losses = [
        train(build_model(config, device="cuda"), TASK, replace(recipe, cuda_graph=graph), progress=False).loss
        for graph in (False, True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_refuses_another_shape() -> None:
    class TwoShapes:
        calls = 0

        def batch(self, generator: torch.Generator) -> Batch:
            self.calls += 1
            return PreviousToken(vocab_size=8, length=6 + self.calls // 4).batch(generator)

    with pytest.raises(UserError, match="cuda_graph=True replays steps of one shape"):
        train(small().to("cuda"), TwoShapes(), TrainConfig(steps=9, cuda_graph=True), progress=False)


def test_a_graph_reads_batches_where_the_first_lay_and_refuses_others() -> None:
    step = GraphedStep(None)  # type: ignore[arg-type]
    step._fill((batch(0),))
    first = step.batches[0].inputs
    step._fill((batch(1),))
    assert step.batches[0].inputs is first
    assert torch.equal(first, batch(1).inputs)
    with pytest.raises(UserError, match=r"the first batch had .*\(4, 6\).*this one .*\(2, 6\)"):
        step._fill((part(batch(), slice(0, 2)),))


def test_a_rule_that_changes_from_step_to_step_is_not_recorded() -> None:
    with torch.device("meta"):
        model = build_empty(
            ModelConfig("decoder", "lm", 2, d_model=16, n_heads=2, d_ff=32, vocab_size=8, residual="branch_norm")
        )
    with pytest.raises(UserError, match="residual='branch_norm' changes from step to step"):
        TrainStep(model, TrainConfig(steps=1, cuda_graph=True))


def test_one_compiled_layer_trains_as_the_layers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "use_compiled", partialmethod(Model.use_compiled, backend="aot_eager"))
    runs = {}
    for how in ("no", "layer"):
        model = small(layers=4)
        model.use_path("plain" if how == "no" else "auto")
        recipe = TrainConfig(steps=3, learning_rate=1e-2, compile=how)  # type: ignore[arg-type]
        with TrainStep(model, recipe) as step:
            runs[how] = [step(batch(i)).loss for i in range(3)]
            assert [stack.graphs for stack in model.stacks().values()] == [int(how == "layer")]
        assert all(stack.compiled is None for stack in model.stacks().values())  # as it was before
    assert runs["layer"] == pytest.approx(runs["no"], rel=1e-6)


@pytest.mark.usefixtures("both_paths")
def test_recomputation_is_set_for_the_run_and_taken_back() -> None:
    model = small(layers=9).double()
    expected = train(copy.deepcopy(model), TASK, TrainConfig(steps=3), progress=False).loss
    recipe = TrainConfig(steps=3, checkpoint_every="auto", offload=True)
    seen = []

    def look(_history) -> None:
        seen.extend((stack.checkpoint_every, stack.mode.offload) for stack in model.stacks().values())

    assert train(model, TASK, recipe, on_step=look, progress=False).loss == pytest.approx(expected, rel=1e-12)
    assert set(seen) == {(3, True)}
    assert all((stack.checkpoint_every, stack.mode.offload) == (0, False) for stack in model.stacks().values())


def test_the_layers_computed_again_are_counted_at_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the memory that there is; the losses are the same."""
    model = small(layers=9)
    model.use_path("plain")
    expected = train(copy.deepcopy(model), TASK, TrainConfig(steps=3), progress=False).loss
    recipe = TrainConfig(steps=3, checkpoint_every=2, recompute="auto", keep_attention=True)
    length = TASK.batch(torch.Generator()).inputs.shape
    how = {"checkpoint_every": 2, "keep_attention": True, "path": "plain"}
    needs = {n: training_memory(model.config, *length, recompute=n, **how).total for n in (0, 4, 9)}
    seen = []

    def look(_history) -> None:
        seen.extend((stack.mode.recompute, stack.mode.keep_attention) for stack in model.stacks().values())

    start = copy.deepcopy(model.state_dict())
    for count, there in ((4, needs[4]), (0, needs[0]), (9, needs[9] // 2)):
        monkeypatch.setattr(preparation, "free", lambda _device, there=there: round(there / 0.9) + 1)
        model.load_state_dict(start)
        assert train(model, TASK, recipe, on_step=look, progress=False).loss == pytest.approx(expected, rel=1e-5)
        assert set(seen) == {(count, True)}
        seen.clear()
    assert model.mode.recompute == "all"


def test_offload_without_checkpoints_is_refused() -> None:
    model = small()
    with pytest.raises(ValueError, match=r"offload=True moves what checkpoints keep.*checkpoint_every='auto'"):
        train(model, TASK, TrainConfig(steps=1, offload=True), progress=False)
    storages = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    assert len(storages) == len(list(model.parameters()))  # nothing was laid into the optimizer's buffers


def test_layers_that_are_not_alike_are_refused_and_nothing_stays_set() -> None:
    model = build_model(replace(small().config, residual="dlcl"))
    with pytest.raises(ValueError, match="compile='layer' needs layers that are equal"):
        TrainStep(model, TrainConfig(steps=1, checkpoint_every=1, compile="layer"))
    assert all(stack.checkpoint_every == 0 for stack in model.stacks().values())


@pytest.fixture(scope="module")
def deep() -> Model:
    """400 layers, by the plain path."""
    model = small(layers=400)
    model.use_path("plain")
    return model


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),
        MemoryError(),
    ],
)
def test_out_of_memory_is_answered_with_the_setting_that_would_fit(
    error, deep: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TokenMap(vocab_size=8, length=64, batch_size=8)
    monkeypatch.setattr(memory, "limit", lambda _device: 450_000_000)
    monkeypatch.setattr(Model, "loss", lambda *_: (_ for _ in ()).throw(error))
    sentence = r"The formula says 0\.[56] GB, the device has 0\.\d GB\. .*checkpoint_every='auto' needs 0\.4 GB"
    with pytest.raises(OutOfMemory, match=sentence):
        train(deep, task, TrainConfig(steps=1), progress=False)
    assert all(parameter.grad is None for parameter in deep.parameters())  # the memory is given back


def test_a_rank_that_is_out_of_memory_hears_of_a_plan_that_would_do(
    deep: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TokenMap(vocab_size=8, length=64, batch_size=8)
    one, copies = task.batch(torch.Generator().manual_seed(0)), Plan(data=2)
    recipe = TrainConfig(steps=1)
    monkeypatch.setattr(memory, "limit", lambda _device: 2 * 450_000_000)
    with pytest.raises(OutOfMemory) as said, memory.answered(deep, recipe, one, copies):
        raise MemoryError
    assert "It was a rank of the plan data=2, which needs 0." in str(said.value)
    assert "GB by formula, of 0.45 GB." in str(said.value)
    assert re.search(r"--plan pipeline=2\S* would do: |What would do: checkpoint_every='auto'", str(said.value))
    monkeypatch.setattr(memory, "limit", lambda _device: 2 * 80_000_000_000)
    advice = r"of 80 GB\. Try more shards or stages, checkpoint_every='auto', or fewer"
    with pytest.raises(OutOfMemory, match=advice), memory.answered(deep, recipe, one, copies):
        raise MemoryError


def test_another_error_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "loss", lambda *_: (_ for _ in ()).throw(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        train(small(), TASK, TrainConfig(steps=1), progress=False)
