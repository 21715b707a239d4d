"""Embeddings and heads of published models, against modules of PyTorch and formulas that are written out."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deepnet_edu import ModelConfig, build_model
from deepnet_edu.model import LanguageModel

BERT = ModelConfig(
    "encoder", "mlm", 0, 2, d_model=8, n_heads=2, d_ff=12, vocab_size=11, max_length=6, residual="post_ln",
    shared_embeddings=True, embedding="bert", head="bert",
)  # fmt: skip
LLAMA = ModelConfig(
    "decoder", "lm", 2, d_model=16, n_heads=4, n_kv_heads=2, d_ff=24, vocab_size=11, residual="pre_ln", norm="rms",
    activation="swiglu", position="rotary", rotary_base=500.0, bias=False,
)  # fmt: skip
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def disturbed(config: ModelConfig) -> Any:
    """A model whose gains and biases are not 1 and 0, which would hide mistakes."""
    model = build_model(config)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.4)
    return model


@pytest.mark.usefixtures("double")
def test_berts_ends() -> None:
    """LN(token + position + first segment) below, LN(GELU(Wx + b)) and the embedding's matrix with a bias above."""
    model: LanguageModel = disturbed(BERT)
    embed, norm = model.embed, model.embed.norm
    assert embed.segment.weight.shape == (2, 8)  # type: ignore[union-attr]
    below = embed.scale * F.embedding(TOKENS, embed.token.weight) + embed.position.table.weight[:5]
    below = F.layer_norm(below + embed.segment.weight[0], (8,), norm.weight, norm.bias)  # type: ignore[union-attr]
    torch.testing.assert_close(embed(TOKENS), below)
    matrix, _, top = model.before_head  # type: ignore[misc]
    x = F.layer_norm(F.gelu(F.linear(model.stack(below), matrix.weight, matrix.bias)), (8,), top.weight, top.bias)
    torch.testing.assert_close(model(TOKENS), F.linear(x, embed.token.weight, model.head.bias))
    assert model.head.weight is embed.token.weight


@pytest.mark.usefixtures("double")
def test_a_norm_before_the_head() -> None:
    model: LanguageModel = disturbed(replace(LLAMA, residual="post_ln", norm="layer", head="norm"))
    norm = model.before_head
    x = F.layer_norm(model.stack(model.embed(TOKENS), context=context(model)), (16,), norm.weight, norm.bias)  # type: ignore[union-attr, arg-type]
    torch.testing.assert_close(model(TOKENS), x @ model.head.weight.T)


def context(model: LanguageModel) -> Any:
    return model.context(None, None, TOKENS.shape[1], TOKENS.device)


@pytest.mark.usefixtures("double")
def test_a_llama_written_out() -> None:
    """Embedding, then x + A(RMS(x)) and x + F(RMS(x)), RMS and a head of its own: 30 lines that use weights alone."""
    model = disturbed(LLAMA)
    w = {name: p.detach() for name, p in model.named_parameters()}
    assert not any(name.endswith("bias") for name in w)

    def rms(x: Tensor, gain: Tensor) -> Tensor:
        return gain * x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    def turned(x: Tensor) -> Tensor:  # (B, heads, T, 4)
        pairs = torch.view_as_complex(x.unflatten(-1, (2, 2)).contiguous())
        angle = torch.arange(5.0)[:, None] * 500.0 ** (-torch.arange(0, 4, 2) / 4)
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)

    x = w["embed.token.weight"][TOKENS]
    for i in range(2):
        attention, ffn = f"stack.layers.{i}.self_attention", f"stack.layers.{i}.ffn"
        q, k, v = (rms(x, w[f"{attention}.residual.norm.weight"]) @ w[f"{attention}.branch.qkv.weight"].T).split(
            (16, 8, 8), -1
        )
        q, k, v = (one.unflatten(-1, (-1, 4)).transpose(1, 2) for one in (q, k, v))
        k, v = (one.repeat_interleave(2, 1) for one in (k, v))
        scores = turned(q) @ turned(k).transpose(2, 3) / 2
        scores = scores.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -torch.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + mixed @ w[f"{attention}.branch.output.weight"].T
        up, gate = (rms(x, w[f"{ffn}.residual.norm.weight"]) @ w[f"{ffn}.branch.ffn_in.weight"].T).chunk(2, -1)
        x = x + (F.silu(gate) * up) @ w[f"{ffn}.branch.ffn_out.weight"].T
    x = rms(x, w["stack.layers.1.ffn.residual.final_norm.weight"])
    torch.testing.assert_close(model(TOKENS), x @ w["head.weight"].T, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("config", [BERT, LLAMA, replace(LLAMA, head="norm")])
def test_they_start_near_chance_and_train(config: ModelConfig) -> None:
    model = build_model(config)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        logits = model(TOKENS)
        loss = F.cross_entropy(logits.flatten(0, 1), TOKENS.roll(-1, 1).flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(losses[0] - torch.tensor(11.0).log().item()) < 1.5
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding": "bart"}, "did you mean 'bert'"),
        ({"head": "norms"}, "did you mean 'norm'"),
        ({"rotary_base": 0.5}, "rotary_base=0.5: expected a number greater than 1"),
        ({"activation": "geglus"}, "did you mean 'geglu'"),
        ({"bias": 1}, "bias=1: expected True or False"),
    ],
)
def test_unknown_ends_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(LLAMA, **changes)


@pytest.mark.parametrize("name", ["embedding", "head"])
def test_images_have_no_ends_of_bert(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}='bert' is made for tokens"):
        ModelConfig(
            "encoder", "classification", 0, 1, d_model=8, n_heads=2, d_ff=8, n_classes=3,
            **{name: "bert"},  # type: ignore[arg-type]
        )  # fmt: skip
