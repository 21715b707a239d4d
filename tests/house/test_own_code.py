"""The library beside code that shares nothing with it: the same weights give the same outputs and the same training."""

import pytest
import torch

from benchmarks.own_code import ARMS, HEADS, HIDDEN, POSITIONS, VOCABULARY, WIDTH, Decoder, learn
from deepnet_edu import ModelConfig, TrainConfig, build_model, train
from deepnet_edu.data import TokenMap
from deepnet_edu.model import Model

pytestmark = pytest.mark.usefixtures("both_paths")

SHAPE = {"d_model": WIDTH, "n_heads": HEADS, "d_ff": HIDDEN, "max_length": POSITIONS, "vocab_size": VOCABULARY}


def pair(arm: str, layers: int = 5) -> tuple[Decoder, Model]:
    """The own decoder with the weights of ours."""
    own, ours = Decoder(arm, layers, seed=1), build_model(ModelConfig("decoder", "lm", layers, residual=arm, **SHAPE))
    with torch.no_grad():
        own.token.weight.copy_(ours.embed.token.weight)
        own.position.weight.copy_(ours.embed.position.table.weight)
        own.head.weight.copy_(ours.head.weight)
        for there, here in zip(own.layers, ours.stack.layers, strict=True):
            attention, ffn = here.self_attention.branch, here.ffn.branch
            parts = attention.qkv.weight.chunk(3)
            for linear, weight in zip((there.q, there.k, there.v), parts, strict=True):
                linear.weight.copy_(weight)
            there.o.weight.copy_(attention.output.weight)
            there.up.weight.copy_(ffn.ffn_in.weight)
            there.down.weight.copy_(ffn.ffn_out.weight)
    return own, ours


@pytest.mark.parametrize("arm", ARMS)
def test_outputs_are_those_of_own_code(arm: str) -> None:
    own, ours = (model.double() for model in pair(arm))
    tokens = torch.randint(VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(ours(tokens), own(tokens), rtol=0, atol=1e-12)


@pytest.mark.parametrize("arm", ARMS)
def test_training_is_that_of_own_code(arm: str) -> None:
    """Eight steps in float32 from the same weights on the same batches: losses agree to their rounding."""
    own, ours = pair(arm)
    config = TrainConfig(steps=8, learning_rate=3e-4, warmup=20, parameters="stack", seed=4)
    found = train(ours, TokenMap(VOCABULARY, 16, 16), config, progress=False).loss
    assert found == pytest.approx(learn(own, torch.Generator().manual_seed(4), steps=8), rel=1e-4)
