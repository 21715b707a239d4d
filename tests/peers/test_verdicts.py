"""What ``review`` says of DeepNorm and other designs as libraries build them: the verdict, and the museum's rooms."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import peers
from benchmarks.peer_models import PEERS
from deepnet_edu.model.shape import Shape
from deepnet_edu.review import Review, find_sublayers, review
from deepnet_edu.review.inputs import inputs_for
from tests.peers.test_review import MODELS

SHAPE = Shape(d_model=64, n_heads=4, d_ff=256)
LAYERS = 4
X = torch.randn(3, 10, SHAPE.d_model, generator=torch.Generator().manual_seed(0))
IDS = torch.randint(3, 50, (3, 10), generator=torch.Generator().manual_seed(0))
OLD = "1.20.0"
#: The last x-transformers that had DeepNorm is kept beside the newest.
FOLDER = Path(sys.prefix) / "peers" / f"x-transformers-{OLD}"

Built = tuple[nn.Module, Callable[[nn.Module], Any]]


@contextmanager
def old_x_transformers() -> Iterator[Any]:
    if not FOLDER.exists():
        pytest.skip(f"pip install --no-deps --target {FOLDER} x-transformers=={OLD}")
    pytest.importorskip("einops", reason="pip install --no-deps -r tests/peers/reviewed.txt")
    names = [name for name in sys.modules if name.split(".")[0] == "x_transformers"]
    newer = {name: sys.modules.pop(name) for name in names}
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("x_transformers")
    finally:
        sys.path.remove(str(FOLDER))
        for name in [name for name in sys.modules if name.split(".")[0] == "x_transformers"]:
            del sys.modules[name]
        sys.modules.update(newer)


def of_x_transformers_old(kind: str) -> Built:
    with old_x_transformers() as library:
        layers = getattr(library, kind)(dim=32, depth=LAYERS, heads=4, attn_dim_head=8, deepnorm=True)
        model = library.TransformerWrapper(num_tokens=50, max_seq_len=32, attn_layers=layers)
    return model, lambda model: model(IDS)


def old_x_transformer() -> Built:
    sizes = {"num_tokens": 50, "heads": 4, "max_seq_len": 32}
    both = {f"{stack}_{name}": value for stack in ("enc", "dec") for name, value in sizes.items()}
    with old_x_transformers() as library:
        model = library.XTransformer(dim=32, enc_depth=3, dec_depth=5, deepnorm=True, **both)
    return model, lambda model: model(IDS, IDS[:, :8])


def of_peer(name: str) -> Built:
    try:
        built = PEERS[name].build(LAYERS, SHAPE)
    except ImportError as error:
        pytest.skip(f"{error}: pip install --no-deps -r benchmarks/peers.txt -r tests/peers/reviewed.txt")
    return built.module, lambda _: built.run(X)


class Both(nn.Module):
    """TorchScale's encoder, and its decoder that looks at it."""

    def __init__(self) -> None:
        super().__init__()
        stacks = peers.their_stacks("encoder_decoder", 3, 5, shape=SHAPE)
        self.encoder, self.decoder = stacks["encoder"].float(), stacks["decoder"].float()

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        memory = self.encoder(None, token_embeddings=source, features_only=True)
        tokens = torch.ones(target.shape[:2], dtype=torch.long)
        output = self.decoder(tokens, encoder_out=memory, token_embeddings=target, features_only=True)
        return output[0]  # type: ignore[no-any-return]


def of_torchscale(kind: str) -> Built:
    try:
        peers.import_torchscale()
    except ImportError as error:
        pytest.skip(str(error))
    if kind == "both":
        return Both(), lambda model: model(X, X[:, :8])
    stack = peers.their_stacks("encoder", LAYERS, 0, deepnorm=kind == "DeepNorm", shape=SHAPE)["encoder"].float()
    return stack, lambda model: model(None, token_embeddings=X)["encoder_out"]


def of_torch(kind: str) -> Built:
    sizes = (SHAPE.d_model, SHAPE.n_heads, SHAPE.d_ff)
    if kind == "decoder":
        layer = nn.TransformerDecoderLayer(*sizes, batch_first=True)
        return nn.TransformerDecoder(layer, LAYERS), lambda model: model(X, X[:, :8])
    if kind == "both":
        model = nn.Transformer(SHAPE.d_model, SHAPE.n_heads, 3, 5, SHAPE.d_ff, batch_first=True)
        return model, lambda model: model(X, X[:, :8])
    encoder = nn.TransformerEncoderLayer(*sizes, batch_first=True, norm_first=kind == "norm_first")
    return nn.TransformerEncoder(encoder, LAYERS, enable_nested_tensor=False), lambda model: model(X)


ALPHA, NORM, LAYER = "α on the skip", "norm outside", "independent layers"
GAIN, QK, SIGNAL = "gain of value, output and FFN", "gain of query and key", "signal at depth"
DRAWN = {GAIN: "default-weights", QK: "default-weights"}
#: How it is built; its design, if it is none that claims DeepNorm; and the room of each row that must fail.
VERDICTS: dict[str, tuple[Callable[[], Built], str, dict[str, str]]] = {
    "x-transformers 1.20.0, Decoder(deepnorm=True)": (lambda: of_x_transformers_old("Decoder"), "", {}),
    "x-transformers 1.20.0, Encoder(deepnorm=True)": (lambda: of_x_transformers_old("Encoder"), "", {}),
    "x-transformers 1.20.0, XTransformer(deepnorm=True)": (
        old_x_transformer, "", {NORM: "scaled-skip-without-norm", SIGNAL: "signal-at-depth"},
    ),
    "x-transformers, scale_residual_constant=α": (lambda: of_peer("x-transformers"), "", DRAWN),
    "labml-nn, DeepNormTransformerLayer": (
        lambda: of_peer("labml-nn"), "", {ALPHA: "alpha-on-the-branch", LAYER: "copies", **DRAWN},
    ),
    "TorchScale 0.3.0, DecoderConfig(deepnorm=True)": (lambda: of_peer("TorchScale"), "", DRAWN),
    "TorchScale 0.3.0, EncoderConfig(deepnorm=True)": (lambda: of_torchscale("DeepNorm"), "", DRAWN),
    "TorchScale 0.3.0, encoder and decoder": (lambda: of_torchscale("both"), "", DRAWN),
    "TorchScale 0.3.0, Pre-LN": (
        lambda: of_torchscale("Pre-LN"), "Pre-LN", {ALPHA: "another-design", NORM: "another-design"},
    ),
    "torch.nn.TransformerEncoder": (
        lambda: of_torch("encoder"), "Post-LN",
        {ALPHA: "another-design", LAYER: "copies", GAIN: "default-weights", QK: "packed-as-one"},
    ),
    "torch.nn.TransformerEncoder, norm_first": (
        lambda: of_torch("norm_first"), "Pre-LN", {ALPHA: "another-design", LAYER: "copies", QK: "packed-as-one"},
    ),
    "torch.nn.TransformerDecoder": (lambda: of_torch("decoder"), "Post-LN", {ALPHA: "another-design"}),
    "torch.nn.Transformer": (lambda: of_torch("both"), "Post-LN", {ALPHA: "another-design"}),
}  # fmt: skip


def reviewed(name: str) -> Review:
    torch.manual_seed(0)
    model, run = VERDICTS[name][0]()
    depth = (LAYERS, LAYERS) if name == "torch.nn.TransformerDecoder" else None
    return review(model, run=run, depth=depth)


@pytest.mark.peers
@pytest.mark.parametrize("name", list(VERDICTS))
def test_the_verdict_names_the_bug(name: str) -> None:
    _, design, rooms = VERDICTS[name]
    found = reviewed(name)
    assert found.verdict == ("FAIL" if rooms else "PASS")
    assert (found.design.name if found.design else "") == design
    failed = {row.name: row.room for row in found.rows if row.status == "FAIL"}
    assert failed.items() >= rooms.items()
    if not design:  # a model that claims DeepNorm is blamed for nothing else
        assert failed.keys() <= rooms.keys() | {SIGNAL}
        assert "Not DeepNorm" not in found.headline


@pytest.mark.peers
@pytest.mark.parametrize("name", list(MODELS))
def test_inputs_are_found_for_other_peoples_models(name: str) -> None:
    """Without the batch that the tests of review give: the same sub-layers, the same design."""
    build = MODELS[name][0]
    torch.manual_seed(0)
    model, batch = build()
    found = inputs_for(model)
    assert len(find_sublayers(model, found)) == len(find_sublayers(model, batch))
    said = review(model, found)
    assert said.design is not None
    assert said.headline.startswith(f"Not DeepNorm: this is {said.design.name}")
