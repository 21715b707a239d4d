"""One compiled layer for all: as many graphs at 12 layers as at 4, and the numbers of the plain path."""

import copy
import importlib
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from deepnet_edu import build_model
from deepnet_edu.messages import UserError
from deepnet_edu.model import Batch, Model, random_batch
from deepnet_edu.model.attention import Cache
from deepnet_edu.probing import probe
from deepnet_edu.residual import RESIDUALS
from tests.rules import small_config

#: Where the first layer is of another kind than those above: its state is another view, or its rule is.
TWO_KINDS = {
    "mix_ln", "keel", "resi_dual", "span_norm", "siamese_norm", "x0_skips", "parcae", "hyper_connections", "mhc",
}  # fmt: skip
RULES = [
    (name, "decoder" if "decoder" in rule.architectures else rule.architectures[0])
    for name, rule in RESIDUALS.items()
    if not rule.growing
] + [("deepnorm", "encoder_decoder")]


def found(model: Model, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    logits = model.logits(batch)
    model.loss_of(logits, batch).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def graphs(model: Model) -> list[int]:
    return [stack.graphs for stack in model.stacks().values()]


def equal(model: Model, batch: Batch, tolerance: float = 1e-12) -> None:
    """Outputs and gradients with the compiled layers that ``model`` has, and without."""
    compiled = found(model, batch)
    stacks = model.stacks().values()
    assert all(stack.path_taken == "plain, since a compiled layer was asked for" for stack in stacks)
    with model.running(path="plain", compile="no"):
        torch.testing.assert_close(compiled, found(model, batch), rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("rule", "architecture"), RULES)
def test_the_graphs_of_four_layers_serve_twelve(rule: str, architecture: Any) -> None:
    """Finding the graphs is enough here: kernels are made one for each."""
    counts = []
    compiled: list[Any] = []
    for layers in (4, 12):
        config = small_config(rule, architecture, layers)
        model, batch = build_model(config), random_batch(config, 2, 7)
        model.use_compiled("layer", "eager")
        for stack, one in zip(model.stacks().values(), compiled, strict=False):
            stack._compiled = one
        equal(model, batch)
        compiled = [stack.compiled for stack in model.stacks().values()]
        counts.append(graphs(model))
    assert counts == [[1 + (rule in TWO_KINDS)] * len(compiled)] * 2


@pytest.mark.usefixtures("double")
def test_an_encoder_and_a_decoder_have_one_graph_each() -> None:
    config = small_config("deepnorm", "encoder_decoder", 4)
    model = build_model(config)
    model.use_compiled("layer", "aot_eager")
    equal(model, random_batch(config, 2, 7))
    assert graphs(model) == [1, 1]


@pytest.mark.parametrize("every", [0, 2])
def test_kernels_equal_the_plain_path(every: int) -> None:
    config = small_config("deepnorm", "decoder", 5)
    model, batch = build_model(config), random_batch(config, 2, 7)
    model.checkpoint_every(every)
    model.use_compiled("layer")
    equal(model, batch, 1e-5)
    assert graphs(model) == [1]


def test_another_choice_of_attention_makes_graphs_of_its_own() -> None:
    """PyTorch chooses when it makes a graph, and its guards do not see the choice."""
    config = small_config("deepnorm", "decoder", 3)
    model, batch = build_model(config), random_batch(config, 2, 7)
    model.use_compiled("layer", "aot_eager")
    found(model, batch)
    (before,) = (stack.compiled for stack in model.stacks().values())
    model.mode = replace(model.mode, attention="math")
    equal(model, batch, 1e-5)
    (after,) = (stack.compiled for stack in model.stacks().values())
    assert after is not before
    assert after.how == ("aot_eager", False, "math")


def test_kernels_that_were_chosen_by_time_equal_the_plain_path() -> None:
    config = small_config("deepnorm", "decoder", 2)
    model, batch = build_model(config), random_batch(config, 2, 7)
    model.mode = replace(model.mode, compile="layer", autotune=True)
    equal(model, batch, 1e-5)
    assert graphs(model) == [1]


def test_kernels_of_another_instruction_set_are_not_taken_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's cache has no instruction set in its key, and with kernels of another one nothing compiles."""
    tags = []

    def compile_graph(graph: Any, _inputs: Any) -> Any:
        tags.append(torch.compiler.config.cache_key_tag)
        return graph.forward

    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda _name: compile_graph)
    config = small_config("deepnorm", "decoder", 2)
    with torch.compiler.config.patch(cache_key_tag="a user's"):
        for capability in ("AVX2", "DEFAULT"):
            monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
            model = build_model(config)
            model.use_compiled("layer")
            model.loss(random_batch(config, 2, 7))
    assert tags == ["a user'sAVX2", "a user'sAVX2DEFAULT"]


@pytest.mark.usefixtures("double")
def test_checkpoints_compute_again_by_the_same_graph() -> None:
    config = small_config("pre_ln", "decoder", 5)
    model = build_model(config)
    model.checkpoint_every(2)
    model.use_compiled("layer", "aot_eager")
    equal(model, random_batch(config, 2, 7))
    assert graphs(model) == [1]


def test_autocast_has_a_graph_of_its_own() -> None:
    config = small_config("deepnorm", "decoder", 3)
    model, batch = build_model(config), random_batch(config, 2, 7)
    model.use_compiled("layer", "aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        compiled = found(model, batch)
        model.use_compiled("no")
        torch.testing.assert_close(compiled, found(model, batch), rtol=1e-6, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        model.use_compiled("layer", "eager")
        found(model, batch)
    found(model, batch)
    assert graphs(model) == [2]


def test_one_more_graph_serves_all_other_lengths() -> None:
    config = small_config("deepnorm", "decoder", 3)
    model = build_model(config)
    model.use_compiled("layer", "aot_eager")
    for sequences, tokens in ((2, 7), (3, 7), (2, 9), (4, 12), (5, 6), (2, 7)):
        equal(model, random_batch(config, sequences, tokens), 1e-5)
    assert graphs(model)[0] <= 3


def test_dropout_is_drawn_alike() -> None:
    config = replace(small_config("deepnorm", "decoder", 6), dropout=0.1)
    model, batch = build_model(config), random_batch(config, 2, 7)
    model.use_compiled("layer", "eager")
    torch.manual_seed(3)
    compiled = found(model, batch)
    assert graphs(model) == [1]
    model.use_compiled("no")
    torch.manual_seed(3)
    torch.testing.assert_close(compiled, found(model, batch))


def test_other_sizes_do_not_share_a_graph_or_make_it_slower() -> None:
    """What varies between models is not what varies within one."""
    for width in (12, 24):
        config = small_config("deepnorm", "decoder", 2, d_model=width)
        model = build_model(config)
        model.use_compiled("layer", "eager")
        found(model, random_batch(config, 2, 7))
        assert graphs(model) == [1]


def test_probes_and_decoding_go_uncompiled() -> None:
    config = small_config("deepnorm", "decoder", 3)
    model, batch = build_model(config), random_batch(config, 2, 7)
    expected = probe(model, batch).gradient_norm
    model.use_compiled("layer", "eager")
    assert probe(model, batch).gradient_norm == pytest.approx(expected, rel=1e-5)
    model(batch.inputs, cache=Cache())
    assert graphs(model) == [0]


def test_a_copy_compiles_for_itself() -> None:
    config = small_config("deepnorm", "decoder", 2)
    model, batch = build_model(config), random_batch(config, 2, 7)
    model.use_compiled("layer", "eager")
    found(model, batch)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert graphs(other) == [0]
        torch.testing.assert_close(found(other, batch), found(model, batch))
        assert graphs(other) == graphs(model) == [1]


def test_what_cannot_be_compiled_is_refused() -> None:
    model = build_model(small_config("dlcl", "decoder"))
    with pytest.raises(ValueError, match=r"each layer of DLCL has one more tensor.*use compile='no'"):
        model.use_compiled("layer")
    model = build_model(small_config("deepnorm", "decoder"))
    with pytest.raises(ValueError, match="Unknown compile 'layers': did you mean 'layer'"):
        model.use_compiled("layers")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Unknown backend 'inductr': did you mean 'inductor'"):
        model.use_compiled("layer", "inductr")


@pytest.mark.fast
def test_the_fast_path_is_another() -> None:
    model = build_model(small_config("deepnorm", "decoder"))
    model.use_compiled("layer", "eager")
    model.use_path("fast")
    with pytest.raises(ValueError, match="The fast path cannot run this: a compiled layer was asked for"):
        model.loss(random_batch(model.config, 2, 7))


def test_no_compiler_is_one_sentence() -> None:
    config = small_config("deepnorm", "decoder", 2, d_model=18)
    model = build_model(config)
    model.use_compiled("layer")
    # Not monkeypatch: what it undoes, PyTorch's settings take for deleted.
    inductor = importlib.import_module("torch._inductor.config")
    with (
        inductor.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}),
        pytest.raises(UserError, match=r"compile='layer' failed .*needs a C\+\+ compiler.*use compile='no'\.$"),
    ):
        model.loss(random_batch(config, 2, 7))


def test_layers_of_many_kinds_are_noticed() -> None:
    config = small_config("deepnorm", "decoder", 12)
    model = build_model(config)
    for i, sublayer in enumerate(model.sublayers()):
        sublayer.dropout = 0.01 * (i + 1)
    model.use_compiled("layer", "eager")
    with pytest.raises(UserError, match=r"made 8 graphs for one stack.*use compile='no'\.$"):
        model.loss(random_batch(config, 2, 7))


def parity(device: str, precision: str, recompute: Any) -> float:
    """How far gradients of compiled layers are off the plain ones, over the largest of each: norms in a chain, with
    scales and shifts that are not 1 and 0, and shared in the loop of clones."""
    worst = 0.0
    for clones in (False, True):
        config = replace(small_config("deepnorm", "decoder", 3, d_model=48), clones=clones)
        model, batch = build_model(config).to(device), random_batch(config, 4, 16).to(device)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).to(device))
        seen = []
        for how in ("no", "layer"):
            mode = {"compile": how, "checkpoint_every": 2, "recompute": recompute, "keep_attention": recompute != 0}
            with (
                model.running(path="plain", **mode),
                torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"),
            ):
                seen.append(found(model, batch)[1])
        plain, compiled = seen
        off = ((compiled[name] - g).abs().max() / g.abs().max().clamp(min=1e-6) for name, g in plain.items())
        worst = max(worst, *(share.item() for share in off))
    return worst


#: Of the largest entry of each gradient: in bfloat16 a fused kernel rounds at other places.
OFF = {"fp32": 1e-4, "bf16": 0.05}


@pytest.mark.parametrize("precision", OFF)
@pytest.mark.parametrize("recompute", [0, "all"])
def test_gradients_of_compiled_layers_are_the_plain_ones(precision: str, recompute: Any) -> None:
    assert parity("cpu", precision, recompute) < OFF[precision]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", OFF)
@pytest.mark.parametrize("recompute", [0, 2, "all"])
def test_gradients_of_compiled_layers_are_the_plain_ones_on_a_gpu(precision: str, recompute: Any) -> None:
    """Each version of PyTorch has kernels of its own: 2.10 had wrong ones (pytorch #193061)."""
    torch.backends.cuda.matmul.allow_tf32 = False
    assert parity("cuda", precision, recompute) < OFF[precision]
