"""``review`` sees into other people's models, randomly initialised: the form, the stacks and all matrices."""

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import peers
from deepnet_edu import deepnorm_constants
from deepnet_edu.review import SubLayerView, find_sublayers, review

IDS = torch.randint(3, 50, (3, 10), generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SIZES = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
GPT2 = {"vocab_size": 50, "n_embd": 32, "n_layer": 3, "n_head": 4, "bos_token_id": 1, "eos_token_id": 1}
OPT = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 64}
OPT |= {"word_embed_proj_dim": 32}
# Branches of this width are smaller than the ε of their norms, if they are drawn as small as those of the full width.
OLMO = SIZES | {"eos_token_id": 1, "pad_token_id": 0, "initializer_range": 0.2}
BART = {
    "vocab_size": 50, "d_model": 32, "encoder_layers": 2, "decoder_layers": 5, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 32,
}  # fmt: skip
T5 = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 5, "num_heads": 4}
VIT = {name: size for name, size in SIZES.items() if name != "vocab_size"} | {"image_size": 16, "patch_size": 4}
VISION = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 5}
BOTH = {"input_ids": IDS, "decoder_input_ids": IDS[:, :7]}


def _library(name: str) -> Any:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not here: pip install --no-deps -r tests/peers/reviewed.txt")
    return importlib.import_module(name)


def of_transformers(model: str, config: dict[str, Any], batch: Any = None) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        transformers = _library("transformers")
        name = model
        for ending in ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "Model"):
            name = name.removesuffix(ending)
        made = getattr(transformers, model)(getattr(transformers, name + "Config")(**config))
        return made, {"input_ids": IDS} if batch is None else batch

    return build


def of_x_transformers(kind: str, **settings: Any) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        library = _library("x_transformers")
        layers = getattr(library, kind)(dim=32, depth=3, heads=4, attn_dim_head=8, **settings)
        return library.TransformerWrapper(num_tokens=50, max_seq_len=32, attn_layers=layers), IDS

    return build


def x_transformer() -> tuple[nn.Module, Any]:
    library = _library("x_transformers")
    sizes = {"num_tokens": 50, "heads": 4, "max_seq_len": 32}
    both = {f"{stack}_{name}": value for stack in ("enc", "dec") for name, value in sizes.items()}
    return library.XTransformer(dim=32, enc_depth=2, dec_depth=5, **both), (IDS, IDS[:, :8])


def of_timm(block: str | None = None, **settings: Any) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        with torchvision():
            _library("timm")
            library = importlib.import_module("timm.models.vision_transformer")
        chosen = {} if block is None else {"block_fn": getattr(library, block)}
        return library.VisionTransformer(**VISION, **chosen, **settings), IMAGES

    return build


@contextmanager
def torchvision() -> Iterator[None]:
    """What timm imports from torchvision, by name alone: it has no build for a torch without CUDA."""

    class Named(type):
        def __getattr__(cls, name: str) -> str:
            return name

    class Empty(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return Named(name, (nn.Module,), {})

    names = ("", ".ops", ".ops.misc", ".transforms", ".transforms.functional", ".datasets", ".models")
    before = dict(sys.modules)
    for name in [f"torchvision{name}" for name in (*names, ".models.feature_extraction")]:
        module = Empty(name)
        module.__spec__, module.__path__ = ModuleSpec(name, None), []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision" and name not in before]:
            del sys.modules[name]


PRE, POST, AROUND, PARALLEL = "Pre-LN", "There is no α", "no norm sees the sum", "Branches share one sum"
#: How it is built, what must be said, and layers of encoder and decoder.
MODELS: dict[str, tuple[Callable[[], tuple[nn.Module, Any]], str, tuple[int, int]]] = {
    "BERT": (of_transformers("BertModel", SIZES), POST, (3, 0)),
    "GPT-2": (of_transformers("GPT2LMHeadModel", GPT2), PRE, (0, 3)),
    "Llama": (of_transformers("LlamaForCausalLM", SIZES | {"num_key_value_heads": 2}), PRE, (0, 3)),
    "T5": (of_transformers("T5ForConditionalGeneration", T5, BOTH), PRE, (2, 5)),
    "ViT": (of_transformers("ViTModel", VIT, {"pixel_values": IMAGES}), PRE, (3, 0)),
    "OPT": (of_transformers("OPTForCausalLM", OPT), PRE, (0, 3)),
    "OPT, Post-LN": (
        of_transformers("OPTForCausalLM", OPT | {"do_layer_norm_before": False}), POST, (0, 3),
    ),
    "BART": (of_transformers("BartModel", BART, BOTH), POST, (2, 5)),
    "mBART": (of_transformers("MBartModel", BART, BOTH), PRE, (2, 5)),
    "GPT-NeoX": (of_transformers("GPTNeoXForCausalLM", SIZES), PARALLEL, (0, 3)),
    "OLMo-2": (of_transformers("Olmo2ForCausalLM", OLMO), AROUND, (0, 3)),
    "x-transformers, encoder": (of_x_transformers("Encoder"), PRE, (3, 0)),
    "x-transformers, Post-LN": (of_x_transformers("Decoder", pre_norm=False), POST, (0, 3)),
    "x-transformers, gate": (of_x_transformers("Decoder", ff_glu=True, use_rmsnorm=True), PRE, (0, 3)),
    "x-transformers, both": (x_transformer, PRE, (2, 5)),
    "timm's ViT": (of_timm(), PRE, (3, 0)),
    "timm's ViT, norm of the branch": (of_timm("ResPostBlock"), AROUND, (3, 0)),
    "timm's ViT, parallel": (of_timm("ParallelThingsBlock"), PARALLEL, (6, 0)),
}  # fmt: skip


@pytest.mark.peers
@pytest.mark.parametrize("name", list(MODELS))
def test_other_peoples_models_are_seen(name: str) -> None:
    build, sentence, (N, M) = MODELS[name]
    torch.manual_seed(0)
    model, batch = build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = review(model, batch)
    assert not found.passed
    assert sentence in str(found)
    constants = deepnorm_constants(N, M)
    for stack, layers in (("encoder", N), ("decoder", M)):
        if layers:
            alpha = getattr(constants, stack).alpha
            assert f"α = {alpha:.4g} ({stack})" in found["α on the skip"].expected
    assert "UNKNOWN" not in {row.status for row in found.rows}
    assert "time" not in found["signal at depth"].found
    views = find_sublayers(model, batch)
    assert sum("ffn_out" in view.weights for view in views) == N + M
    assert all(set(view.weights) >= {"query", "key", "value", "output"} or "ffn_in" in view.weights for view in views)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.peers
def test_a_view_of_conv1d_by_hand() -> None:
    """As the refusal tells one to write: GPT-2's matrices are (fan_in, fan_out), three of them in one."""
    _library("transformers")
    torch.manual_seed(0)
    model, batch = MODELS["GPT-2"][0]()
    views = []
    for block in model.transformer.h:  # type: ignore[union-attr]
        query, key, value = block.attn.c_attn.weight.split(32, dim=1)
        weights = {"query": query, "key": key, "value": value, "output": block.attn.c_proj.weight}
        views.append(SubLayerView(block.attn, block.ln_1, weights))
        weights = {"ffn_in": block.mlp.c_fc.weight, "ffn_out": block.mlp.c_proj.weight}
        views.append(SubLayerView(block.mlp, block.ln_2, weights))
    assert str(review(model, batch, sublayers=views)) == str(review(model, batch))


@pytest.mark.peers
@pytest.mark.parametrize("deepnorm", [True, False])
def test_torchscale_whose_feed_forward_part_is_one_row_of_tokens(deepnorm: bool) -> None:
    try:
        peers.import_torchscale()
    except ImportError as error:
        pytest.skip(str(error))
    model = peers.their_stacks("encoder", 6, 0, deepnorm=deepnorm)["encoder"]
    x = torch.randn(2, 9, peers.SHAPE.d_model, dtype=torch.float64)
    found = review(model, run=lambda model: model(None, token_embeddings=x)["encoder_out"])
    assert "UNKNOWN" not in {row.status for row in found.rows}
    assert found["gain of query and key"].status == "FAIL"  # nn.Linear's own init, times β
    assert found["α on the skip"].status == ("PASS" if deepnorm else "FAIL")
    assert found["norm outside"].status == ("PASS" if deepnorm else "FAIL")
    assert deepnorm or "in 12 of 12 sub-layers" in found["norm outside"].found
