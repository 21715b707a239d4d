"""Other libraries' DeepNorm beside ours: outputs, gradients and constants with weights copied; writes peers.json.

TorchScale 0.3.0 in all architectures; and decoders of TorchScale, labml-nn and x-transformers as they build and draw
them (peer_models.py), up to 1,000 layers.

Run with: python benchmarks/peers.py (a few minutes, after pip install --no-deps -r benchmarks/peers.txt -r
tests/peers/reviewed.txt)
"""

import json
import platform
import sys
import types
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu import deepnorm_constants
from deepnet_edu.files import write_atomic
from deepnet_edu.model.attention import Context
from deepnet_edu.model.shape import Shape
from deepnet_edu.model.stack import Stack

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

RESULTS = Path(__file__).parent / "results" / "peers.json"
MISSING = "TorchScale is not here: pip install --no-deps -r benchmarks/peers.txt"
SHAPE = Shape(d_model=32, n_heads=4, d_ff=64)
#: Of decoders as libraries draw them.
DRAWN = Shape(d_model=64, n_heads=4, d_ff=256)
DEPTHS = (2, 12)
CASES = ("encoder", "decoder", "encoder_decoder")


def import_torchscale() -> Any:
    """TorchScale's encoder and decoder classes and configurations.

    Raises:
        ImportError: it is not installed; the message says what to type.
    """
    try:
        version("torchscale")
    except PackageNotFoundError:
        raise ImportError(MISSING) from None
    missing = {} if "timm" in sys.modules else _stand_in()
    sys.modules |= missing
    try:
        from torchscale.architecture.config import DecoderConfig, EncoderConfig
        from torchscale.architecture.decoder import Decoder
        from torchscale.architecture.encoder import Encoder
    finally:
        for name in missing:  # the real one may be asked for later
            del sys.modules[name]

    return types.SimpleNamespace(
        Encoder=Encoder, Decoder=Decoder, EncoderConfig=EncoderConfig, DecoderConfig=DecoderConfig
    )


def _stand_in() -> dict[str, types.ModuleType]:
    """As much of timm as TorchScale imports: a part that is never on here, and no torchvision."""
    names = ("timm", "timm.models", "timm.models.layers")
    modules = {name: types.ModuleType(name) for name in names}
    modules["timm.models.layers"].drop_path = _drop_path  # type: ignore[attr-defined]
    return modules


def _drop_path(x: Tensor, drop_prob: float, training: bool) -> Tensor:
    """All that TorchScale takes from timm: leave out whole samples. It is never on here."""
    assert not (drop_prob and training)
    return x


def their_stacks(
    case: str, N: int, M: int, seed: int = 0, deepnorm: bool = True, shape: Shape = SHAPE
) -> dict[str, nn.Module]:
    """TorchScale's encoder, decoder or both, freshly initialised."""
    peer = import_torchscale()
    both = case == "encoder_decoder"

    def settings(stack: str) -> dict[str, Any]:
        return {
            f"{stack}_embed_dim": shape.d_model,
            f"{stack}_attention_heads": shape.n_heads,
            f"{stack}_ffn_embed_dim": shape.d_ff,
            "encoder_layers": N,
            "decoder_layers": M,
            "deepnorm": deepnorm,
            "subln": False,  # their default is True, and both at once is another model
            "dropout": 0.0,
            "no_scale_embedding": True,
            "vocab_size": 8,
        }

    torch.manual_seed(seed)
    stacks: dict[str, nn.Module] = {}
    if case != "decoder":
        config = peer.EncoderConfig(**settings("encoder"))
        config.decoder_layers = M
        stacks["encoder"] = peer.Encoder(config, is_encoder_decoder=both)
    if case != "encoder":
        config = peer.DecoderConfig(**settings("decoder"))
        config.encoder_layers = N
        stacks["decoder"] = peer.Decoder(config, is_encoder_decoder=both)
    return {name: stack.double() for name, stack in stacks.items()}


@torch.no_grad()
def our_stack(name: str, N: int, M: int, theirs: nn.Module) -> Stack:
    """Ours, with the weights of theirs."""
    stack = Stack(name, "deepnorm", encoder_layers=N, decoder_layers=M, shape=SHAPE).double()  # type: ignore[arg-type]
    for mine, peer in zip(stack.layers, theirs.layers, strict=True):  # type: ignore[arg-type]
        attention, branch = peer.self_attn, mine.self_attention.branch  # type: ignore[union-attr]
        _pack(branch.qkv, attention.q_proj, attention.k_proj, attention.v_proj)  # type: ignore[union-attr, arg-type]
        _pack(branch.output, attention.out_proj)  # type: ignore[union-attr, arg-type]
        _pack(mine.self_attention.residual.norm, peer.self_attn_layer_norm)  # type: ignore[union-attr, arg-type]
        if hasattr(mine, "cross_attention"):
            attention, branch = peer.encoder_attn, mine.cross_attention.branch  # type: ignore[union-attr]
            _pack(branch.query, attention.q_proj)  # type: ignore[union-attr, arg-type]
            _pack(branch.key_value, attention.k_proj, attention.v_proj)  # type: ignore[union-attr, arg-type]
            _pack(branch.output, attention.out_proj)  # type: ignore[union-attr, arg-type]
            _pack(mine.cross_attention.residual.norm, peer.encoder_attn_layer_norm)  # type: ignore[union-attr, arg-type]
        _pack(mine.ffn.branch.ffn_in, peer.ffn.fc1)  # type: ignore[union-attr, arg-type]
        _pack(mine.ffn.branch.ffn_out, peer.ffn.fc2)  # type: ignore[union-attr, arg-type]
        _pack(mine.ffn.residual.norm, peer.final_layer_norm)  # type: ignore[union-attr, arg-type]
    return stack


def _pack(target: nn.Module, *sources: nn.Module) -> None:
    """Copy weights and biases, one below the other."""
    for name in ("weight", "bias"):
        getattr(target, name).copy_(torch.cat([getattr(source, name) for source in sources]))


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest entry."""
    return ((a - b).abs().max() / b.abs().max()).item()


def compare(case: str, layers: int, seed: int = 0) -> dict[str, float]:
    """Largest relative differences of the output, the gradient of the input and that of the weights, in float64.

    TorchScale computes its activation in float32, so 1e-7 is the best that can be.
    """
    N, M = (0 if case == "decoder" else layers), (0 if case == "encoder" else layers)
    theirs = their_stacks(case, N, M, seed)
    with torch.no_grad():
        for parameter in (p for stack in theirs.values() for p in stack.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases and norms too: zeros and ones hide mistakes
    ours = {name: our_stack(name, N, M, stack) for name, stack in theirs.items()}
    tokens = torch.ones(2, 7, dtype=torch.long)
    x = torch.randn(2, 7, SHAPE.d_model, dtype=torch.float64, requires_grad=True)
    source = torch.randn(2, 5, SHAPE.d_model, dtype=torch.float64, requires_grad=True)
    inputs = [tensor for tensor, used in ((x, case != "encoder"), (source, case != "decoder")) if used]
    weights = torch.randn(2, 7 if M else 5, SHAPE.d_model, dtype=torch.float64)
    results = []
    for mine in (True, False):
        memory, context, encoded = None, Context(), None
        if "encoder" in theirs:
            if mine:
                memory = ours["encoder"](source)
            else:
                encoded = theirs["encoder"](None, token_embeddings=source, features_only=True)
                memory = encoded["encoder_out"]
        y = memory
        if "decoder" in theirs:
            if mine:
                context = Context(memory=memory)
                y = ours["decoder"](x, context=context)
            else:
                y = theirs["decoder"](tokens, encoder_out=encoded, token_embeddings=x, features_only=True)[0]
        assert y is not None
        stacks = ours if mine else theirs
        last = list(stacks.values())[-1]
        first = last.layers[0]  # type: ignore[index, union-attr]
        chosen = (
            [first.self_attention.branch.output.weight, first.ffn.branch.ffn_in.weight]  # type: ignore[union-attr]
            if mine
            else [first.self_attn.out_proj.weight, first.ffn.fc1.weight]  # type: ignore[union-attr]
        )
        gradients = torch.autograd.grad((y * weights).sum(), [*inputs, *chosen])
        results.append((y.detach(), gradients[: len(inputs)], gradients[len(inputs) :]))
    (y, inner, outer), (y_, inner_, outer_) = results
    return {
        "output": relative(y, y_),
        "input gradient": max(relative(a, b) for a, b in zip(inner, inner_, strict=True)),
        "weight gradient": max(relative(a, b) for a, b in zip(outer, outer_, strict=True)),
    }


def constants(case: str, layers: int) -> dict[str, dict[str, float]]:
    """α of each stack as TorchScale has it, and β, the ratio of DeepNorm's fc1 to that of the same seed without."""
    N, M = (0 if case == "decoder" else layers), (0 if case == "encoder" else layers)
    theirs, plain = their_stacks(case, N, M), their_stacks(case, N, M, deepnorm=False)
    found = {}
    for name, stack in theirs.items():
        ours = getattr(deepnorm_constants(N, M), name)
        scaled, unscaled = (s.layers[-1].ffn.fc1.weight for s in (stack, plain[name]))  # type: ignore[index, union-attr]
        found[name] = {
            "alpha": float(stack.layers[0].alpha),  # type: ignore[index, union-attr, arg-type]
            "our alpha": ours.alpha,
            "beta": (scaled.sum() / unscaled.sum()).item(),  # type: ignore[operator, union-attr]
            "our beta": ours.beta,
        }
    return found


def decoders() -> dict[str, dict[str, Any]]:
    """DeepNorm decoders as each library builds and draws them, by library."""
    from benchmarks.peer_models import OURS, PEERS, at_initialisation, gains, of_a_misspelt_option, off_by

    found: dict[str, dict[str, Any]] = {}
    for name, peer in {"deepnet_edu": OURS, **PEERS}.items():
        torch.manual_seed(0)
        found[name] = {
            "version": version(peer.distribution),
            "how": peer.how,
            "off by, 12 layers": _rounded(off_by(peer, 12, SHAPE)),
            "gains, 100 layers": _rounded(gains(peer.build(100, DRAWN))),
            "at initialisation": {str(n): _rounded(at_initialisation(peer, n, DRAWN)) for n in (100, 1000)},
            "deep_norm=True": of_a_misspelt_option(peer),
        }
        print(name, found[name], flush=True)
    return found


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for name, value in values.items()}


def main() -> None:
    """Compare all cases, print and keep them."""
    torch.set_num_threads(1)
    rows = [
        {"case": case, "layers": n, **{key: float(f"{value:.2e}") for key, value in compare(case, n).items()}}
        for case in CASES
        for n in DEPTHS
    ]
    record = {
        "what": "Other libraries' DeepNorm: largest relative differences to ours with copied weights, float64 "
        "(TorchScale's activation and x-transformers' softmax are float32); decoders as each draws them, float32",
        "command": "python benchmarks/peers.py",
        "date": datetime.now(UTC).date().isoformat(),
        "seed": 0,
        "threads": 1,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchscale": version("torchscale"),
            "fairscale": version("fairscale"),
            "labml": version("labml"),
            "deepnet-edu": version("deepnet-edu"),
        },
        "differences": rows,
        "decoders": decoders(),
        "constants": {f"{case}, {n} layers": constants(case, n) for case in CASES for n in DEPTHS},
    }
    write_atomic(RESULTS, json.dumps(record, indent=1) + "\n")
    for row in rows:
        print(row)
    for case, found in record["constants"].items():  # type: ignore[union-attr, attr-defined]
        print(case, found)


if __name__ == "__main__":
    main()
