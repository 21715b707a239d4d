import copy
from dataclasses import replace
from math import log

import pytest
import torch

from deepnet_edu import Batch, ModelConfig, build_model
from tests.rules import small_config

SMALL = ModelConfig(
    architecture="decoder", task="lm", decoder_layers=2, d_model=16, n_heads=4, d_ff=32, vocab_size=11, max_length=6
)


@pytest.mark.usefixtures("both_paths")
def test_the_contract() -> None:
    model = build_model(SMALL)
    tokens = torch.randint(11, (3, 6))
    assert model(tokens).shape == (3, 6, 11)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"residual": "deep_norm"}, "Unknown residual 'deep_norm': did you mean 'deepnorm'"),
        ({"residual": "zzz"}, "expected one of .*'deepnorm'"),
        ({"architecture": "decoders"}, "Unknown architecture 'decoders': did you mean 'decoder'"),
        ({"task": "mt"}, "Unknown task 'mt'"),
        ({"n_heads": 5}, "d_model=16 cannot be split into n_heads=5 equal heads: try n_heads=4"),
        ({"decoder_layers": -1}, "decoder_layers=-1: expected a whole number, 0 or more"),
        ({"d_ff": 0}, "d_ff=0: expected a whole number, 1 or more"),
        ({"vocab_size": 3.5}, "vocab_size=3.5: expected a whole number"),
    ],
)
def test_bad_shapes_are_refused_at_once(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(SMALL, **change)


@pytest.mark.parametrize("token", [11, -1])
def test_a_token_outside_the_vocabulary(token: int) -> None:
    with pytest.raises(ValueError, match=rf"Token {token} is outside the vocabulary: tokens must be from 0 to 10"):
        build_model(SMALL)(torch.tensor([[1, token]]))


def test_a_sequence_longer_than_the_positions() -> None:
    with pytest.raises(ValueError, match="7 tokens, the model has 6 positions.*max_length=7"):
        build_model(SMALL)(torch.zeros(1, 7, dtype=torch.long))


def test_tokens_without_a_batch() -> None:
    expected = r"expected \(B, T\) with at least one token; for one sequence, tokens\[None\]"
    for shape in ((5,), (2, 0)):
        with pytest.raises(ValueError, match=expected):
            build_model(SMALL)(torch.zeros(shape, dtype=torch.long))


@pytest.mark.usefixtures("both_paths")
def test_the_loss_leaves_out_ignored_targets() -> None:
    model = build_model(SMALL)
    inputs, targets = torch.randint(11, (2, 5)), torch.randint(11, (2, 5))
    targets[0, :3] = -100
    logits = model(inputs)
    terms = [-logits[b, t].log_softmax(-1)[targets[b, t]] for b in range(2) for t in range(5) if targets[b, t] != -100]
    torch.testing.assert_close(model.loss(Batch(inputs, targets)), torch.stack(terms).mean())


def test_the_embedding_has_variance_one_and_the_loss_starts_near_ln_v() -> None:
    config = replace(SMALL, d_model=256, vocab_size=500, max_length=200, decoder_layers=1)
    model = build_model(config)
    tokens = torch.randint(500, (4, 200))
    assert model.embed(tokens).var().item() == pytest.approx(1, rel=0.05)
    # Logits of variance 1 cost half a nat over ln V: ln E[exp(z)] = 1/2.
    assert model.loss(Batch(tokens, tokens.roll(1))).item() == pytest.approx(log(500) + 0.5, abs=0.15)


def test_groups_split_the_parameters() -> None:
    model = build_model(SMALL)
    stack, ends = model.group("stack"), model.group("ends")
    assert {id(p) for p in stack} | {id(p) for p in ends} == {id(p) for p in model.parameters()}
    assert not {id(p) for p in stack} & {id(p) for p in ends}
    assert len(model.group("all")) == len(stack) + len(ends)
    with pytest.raises(ValueError, match="did you mean 'stack'"):
        model.group("stak")  # type: ignore[arg-type]


def test_padding_reaches_the_attention() -> None:
    model = build_model(SMALL)
    tokens = torch.randint(11, (1, 5))
    padding = torch.tensor([[False, False, True, False, False]])
    other = tokens.clone()
    other[0, 2] = (other[0, 2] + 1) % 11
    kept = [0, 1, 3, 4]
    torch.testing.assert_close(model(tokens, padding)[:, kept], model(other, padding)[:, kept])


def test_a_batch_moves_whole() -> None:
    batch = Batch(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool)).to("meta")
    assert batch.inputs.device.type == batch.targets.device.type == batch.padding.device.type == "meta"  # type: ignore[union-attr]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_seed_gives_the_same_model_on_a_gpu() -> None:
    tokens = torch.randint(11, (3, 6))
    expected, actual = build_model(SMALL, seed=1)(tokens), build_model(SMALL, seed=1, device="cuda")(tokens.cuda())
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_weights_of_another_rule_are_not_loaded_without_a_word() -> None:
    """Names and shapes are those of Post-LN as well."""
    post_ln, deepnorm = (build_model(small_config(rule, "decoder", 2)) for rule in ("post_ln", "deepnorm"))
    with pytest.raises(RuntimeError, match=r"weights are of .*post_ln.* this model is of .*deepnorm"):
        deepnorm.load_state_dict(post_ln.state_dict())
    deepnorm.load_state_dict(dict(post_ln.state_dict()))  # who wants it has it
    copy.deepcopy(post_ln).load_state_dict(post_ln.state_dict())
