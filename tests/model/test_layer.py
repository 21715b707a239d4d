"""Our layers against PyTorch's own, with copied weights, in float64: outputs and gradients."""

import pytest
import torch
from torch import nn

from deepnet_edu.model.attention import Context, MultiHeadAttention
from deepnet_edu.model.shape import Shape
from deepnet_edu.model.stack import Stack

D, HEADS, FF, B, T = 12, 3, 20, 2, 5


def pair(residual: str, stack_name: str) -> tuple[Stack, nn.TransformerEncoderLayer]:
    torch.manual_seed(0)
    depths = (
        {"encoder_layers": 1, "decoder_layers": 0}
        if stack_name == "encoder"
        else {"encoder_layers": 0, "decoder_layers": 1}
    )
    ours = Stack(stack_name, residual, shape=Shape(D, HEADS, FF), **depths)  # type: ignore[arg-type]
    theirs = nn.TransformerEncoderLayer(
        D, HEADS, FF, dropout=0.0, activation="gelu", batch_first=True, norm_first=residual == "pre_ln"
    )
    for parameter in ours.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.3)
    layer = ours.layers[0]
    copies = [
        (theirs.self_attn.in_proj_weight, layer.self_attention.branch.qkv.weight),
        (theirs.self_attn.in_proj_bias, layer.self_attention.branch.qkv.bias),
        (theirs.self_attn.out_proj.weight, layer.self_attention.branch.output.weight),
        (theirs.self_attn.out_proj.bias, layer.self_attention.branch.output.bias),
        (theirs.linear1.weight, layer.ffn.branch.ffn_in.weight),
        (theirs.linear1.bias, layer.ffn.branch.ffn_in.bias),
        (theirs.linear2.weight, layer.ffn.branch.ffn_out.weight),
        (theirs.linear2.bias, layer.ffn.branch.ffn_out.bias),
        (theirs.norm1.weight, layer.self_attention.residual.norm.weight),
        (theirs.norm1.bias, layer.self_attention.residual.norm.bias),
        (theirs.norm2.weight, layer.ffn.residual.norm.weight),
        (theirs.norm2.bias, layer.ffn.residual.norm.bias),
    ]
    with torch.no_grad():
        for target, source in copies:
            target.copy_(source)
    return ours, theirs


def padding_of(kind: str) -> torch.Tensor | None:
    if kind == "none":
        return None
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[0, -2:] = True
    return padding


@pytest.mark.usefixtures("both_paths", "double")
@pytest.mark.parametrize("padding", ["none", "some"])
@pytest.mark.parametrize("stack_name", ["encoder", "decoder"])
@pytest.mark.parametrize("residual", ["post_ln", "pre_ln"])
def test_equals_torch(residual: str, stack_name: str, padding: str) -> None:
    ours, theirs = pair(residual, stack_name)
    x = (0.5 * torch.randn(B, T, D) + 0.7).requires_grad_()
    y = x.detach().clone().requires_grad_()
    mask = padding_of(padding)
    causal = nn.Transformer.generate_square_subsequent_mask(T) if stack_name == "decoder" else None
    additive = None if mask is None else torch.zeros(B, T).masked_fill(mask, -torch.inf)
    expected = theirs(y, src_mask=causal, src_key_padding_mask=additive)
    if residual == "pre_ln":
        final = ours.layers[0].ffn.residual.final_norm
        expected = nn.functional.layer_norm(expected, (D,), final.weight, final.bias)
    actual = ours(x, mask)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(actual)
    (actual * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        ours.layers[0].self_attention.branch.qkv.weight.grad,
        theirs.self_attn.in_proj_weight.grad,
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.usefixtures("both_paths", "double")
def test_a_decoder_does_not_see_the_future() -> None:
    stack = Stack("decoder", "deepnorm", encoder_layers=0, decoder_layers=2, shape=Shape(D, HEADS, FF))
    x = torch.randn(B, T, D)
    changed = x.clone()
    changed[:, 3:] += 1
    torch.testing.assert_close(stack(x)[:, :3], stack(changed)[:, :3], rtol=0, atol=1e-14)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("causal", [False, True])
def test_padding_is_not_seen(causal: bool) -> None:
    attention = MultiHeadAttention(D, HEADS, causal)
    x = torch.randn(B, T, D)
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[:, 1] = True
    changed = x.clone()
    changed[:, 1] += 1
    kept = [0, 2, 3, 4]
    torch.testing.assert_close(
        attention(x, Context(padding))[:, kept], attention(changed, Context(padding))[:, kept], rtol=0, atol=1e-14
    )


@pytest.mark.usefixtures("double")
def test_a_token_that_sees_nothing_gets_the_bias() -> None:
    attention = MultiHeadAttention(D, HEADS, causal=True)
    padding = torch.zeros(1, T, dtype=torch.bool)
    padding[:, 0] = True
    torch.testing.assert_close(attention(torch.randn(1, T, D), Context(padding))[0, 0], attention.output.bias)


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="d_model=10 cannot be split into n_heads=4"):
        MultiHeadAttention(10, 4, causal=True)


def test_no_layers_is_the_identity() -> None:
    stack = Stack("decoder", "pre_ln", encoder_layers=0, decoder_layers=0, shape=Shape(D, HEADS, FF))
    x = torch.randn(B, T, D)
    assert stack(x) is x
