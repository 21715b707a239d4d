"""Encoder, decoder and both: against PyTorch's own layers and against formulas written here."""

from dataclasses import replace
from math import log, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu import Batch, ModelConfig, build_model
from deepnet_edu.model import Classifier, LanguageModel, Translator, random_batch
from deepnet_edu.model.attention import Cache, Context, MultiHeadAttention, rotary, rotate
from deepnet_edu.model.embedding import sinusoidal
from deepnet_edu.model.layer import FeedForward
from deepnet_edu.model.shape import POSITIONS, Shape
from deepnet_edu.model.stack import Stack

SIZES = {"d_model": 16, "n_heads": 4, "d_ff": 32}
TEXT = {**SIZES, "vocab_size": 11}
DECODER = ModelConfig("decoder", "lm", 2, **TEXT)
ENCODER = ModelConfig("encoder", "mlm", encoder_layers=2, **TEXT)
BOTH = ModelConfig("encoder_decoder", "translation", 2, 3, **TEXT)
IMAGES = ModelConfig("encoder", "classification", encoder_layers=2, n_classes=7, patch_size=2, channels=3, **SIZES)
ALL = {"lm": DECODER, "mlm": ENCODER, "translation": BOTH, "classification": IMAGES}


@pytest.mark.usefixtures("both_paths")
def test_shapes() -> None:
    tokens = torch.randint(11, (3, 6))
    assert build_model(DECODER)(tokens).shape == (3, 6, 11)
    assert build_model(ENCODER)(tokens).shape == (3, 6, 11)
    assert build_model(BOTH)(tokens, tokens[:, :4]).shape == (3, 4, 11)
    assert build_model(IMAGES)(torch.randn(3, 3, 8, 6)).shape == (3, 7)
    kinds = {LanguageModel: ("lm", "mlm"), Translator: ("translation",), Classifier: ("classification",)}
    for kind, tasks in kinds.items():
        assert all(type(build_model(ALL[task])) is kind for task in tasks)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("task", list(ALL))
def test_a_random_batch_fits_its_model(task: str) -> None:
    model, batch = build_model(ALL[task]), random_batch(ALL[task], 2, 9)
    chance = log(7 if task == "classification" else 11)
    assert abs(model.loss(batch).item() - chance) < 1.5
    assert set(model.stacks()) == {"encoder", "decoder"} & set(ALL[task].architecture.split("_"))


@pytest.mark.usefixtures("both_paths", "double")
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("residual", ["post_ln", "pre_ln"])
def test_a_decoder_layer_with_memory_equals_torchs(residual: str, padded: bool) -> None:
    torch.manual_seed(0)
    D, HEADS, FF, B, T, S = 12, 3, 20, 2, 5, 4
    ours = Stack("decoder", residual, encoder_layers=1, decoder_layers=1, shape=Shape(D, HEADS, FF))
    theirs = nn.TransformerDecoderLayer(
        D, HEADS, FF, dropout=0.0, activation="gelu", batch_first=True, norm_first=residual == "pre_ln"
    )
    for parameter in ours.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.3)
    own, cross, ffn = ours.sublayers()
    copies = [
        (theirs.self_attn.in_proj_weight, own.branch.qkv.weight),
        (theirs.self_attn.in_proj_bias, own.branch.qkv.bias),
        (theirs.self_attn.out_proj.weight, own.branch.output.weight),
        (theirs.self_attn.out_proj.bias, own.branch.output.bias),
        (theirs.multihead_attn.in_proj_weight, torch.cat([cross.branch.query.weight, cross.branch.key_value.weight])),
        (theirs.multihead_attn.in_proj_bias, torch.cat([cross.branch.query.bias, cross.branch.key_value.bias])),
        (theirs.multihead_attn.out_proj.weight, cross.branch.output.weight),
        (theirs.multihead_attn.out_proj.bias, cross.branch.output.bias),
        (theirs.linear1.weight, ffn.branch.ffn_in.weight),
        (theirs.linear1.bias, ffn.branch.ffn_in.bias),
        (theirs.linear2.weight, ffn.branch.ffn_out.weight),
        (theirs.linear2.bias, ffn.branch.ffn_out.bias),
    ]
    for norm, sublayer in zip((theirs.norm1, theirs.norm2, theirs.norm3), (own, cross, ffn), strict=True):
        copies += [(norm.weight, sublayer.residual.norm.weight), (norm.bias, sublayer.residual.norm.bias)]
    with torch.no_grad():
        for target, source in copies:
            target.copy_(source)
    x, memory = torch.randn(B, T, D, requires_grad=True), torch.randn(B, S, D, requires_grad=True)
    mask = None
    if padded:
        mask = torch.zeros(B, S, dtype=torch.bool)
        mask[0, -2:] = True
    expected = theirs(
        x, memory, tgt_mask=nn.Transformer.generate_square_subsequent_mask(T), memory_key_padding_mask=mask
    )
    if residual == "pre_ln":
        final = ffn.residual.final_norm
        expected = F.layer_norm(expected, (D,), final.weight, final.bias)
    actual = ours(x, context=Context(memory=memory, memory_padding=mask))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(actual)
    for a, b in zip(
        torch.autograd.grad((actual * weights).sum(), (x, memory)),
        torch.autograd.grad((expected * weights).sum(), (x, memory)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("both_paths")
def test_an_encoder_sees_both_ways_and_a_decoder_only_back() -> None:
    tokens = torch.randint(11, (1, 6))
    other = tokens.clone()
    other[0, -1] = (other[0, -1] + 1) % 11
    for config, sees in ((DECODER, False), (ENCODER, True)):
        model = build_model(config)
        assert torch.equal(model(tokens)[:, 0], model(other)[:, 0]) != sees
    translator = build_model(BOTH)
    changed = translator(tokens, tokens) - translator(other, tokens)
    assert changed.abs().min() > 0  # every target position looks at the whole source
    torch.testing.assert_close(translator(tokens, tokens)[:, :5], translator(tokens, other)[:, :5])


def test_cross_attention_without_memory_says_so() -> None:
    with pytest.raises(ValueError, match="no memory to look at"):
        MultiHeadAttention(8, 2, causal=False, cross=True)(torch.randn(1, 2, 8))


@pytest.mark.usefixtures("double")
def test_feed_forward_formulas() -> None:
    x = torch.randn(2, 3, 8)
    for activation in ("gelu", "relu", "swiglu", "geglu"):
        ffn = FeedForward(8, 12, activation)  # type: ignore[arg-type]
        w = {role: weight.detach() for role, weight in ffn.weights().items()}
        assert w["ffn_in"].shape == (12, 8)
        h, gate = x @ w["ffn_in"].T + ffn.ffn_in.bias[:12], None
        if activation in ("swiglu", "geglu"):
            gate = x @ w["ffn_gate"].T + ffn.ffn_in.bias[12:]
            share = 1 / (1 + (-gate).exp()) if activation == "swiglu" else 0.5 * (1 + torch.erf(gate / sqrt(2)))
            h = gate * share * h
        else:
            h = h.clamp_min(0) if activation == "relu" else h * 0.5 * (1 + torch.erf(h / sqrt(2)))
        torch.testing.assert_close(ffn(x), h @ w["ffn_out"].T + ffn.ffn_out.bias)
        bare = FeedForward(8, 12, activation, bias=False)  # type: ignore[arg-type]
        bare.load_state_dict({"ffn_in.weight": ffn.ffn_in.weight, "ffn_out.weight": ffn.ffn_out.weight})
        for bias in (ffn.ffn_in.bias, ffn.ffn_out.bias):
            torch.nn.init.zeros_(bias)
        torch.testing.assert_close(bare(x), ffn(x))
    with pytest.raises(ValueError, match="Unknown activation 'glu'"):
        FeedForward(8, 12, "glu")  # type: ignore[arg-type]


@pytest.mark.usefixtures("double")
def test_rms_norm_takes_the_place_of_every_layer_norm() -> None:
    model = build_model(replace(DECODER, norm="rms", residual="normformer"))
    assert not any(isinstance(module, nn.LayerNorm) for module in model.modules())
    rule = model.sublayers()[0].residual
    x = torch.randn(1, 2, 16) + 3
    torch.testing.assert_close(rule.read((x,)), x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt())


@pytest.mark.usefixtures("double")
def test_rotary_is_a_rotation_by_the_position() -> None:
    """As complex numbers: (x₀ + ix₁)·exp(ip·base^(-2k/d)); scores depend on the distance alone."""
    q, k = torch.randn(1, 9, 2, 6), torch.randn(1, 9, 2, 6)
    turned = rotate(q, rotary(torch.arange(9), 6))
    as_complex = torch.view_as_complex(q.unflatten(-1, (3, 2)).contiguous())
    angle = torch.arange(9)[:, None] * 10_000.0 ** (-torch.arange(3) / 3)
    expected = torch.view_as_real(as_complex * torch.polar(torch.ones(9, 3), angle)[:, None]).flatten(-2)
    torch.testing.assert_close(turned, expected, rtol=1e-6, atol=1e-6)
    later = [rotate(x, rotary(torch.arange(9) + 40, 6)) for x in (q, k)]
    first = [rotate(x, rotary(torch.arange(9), 6)) for x in (q, k)]
    scores = [torch.einsum("bthd,bshd->bhts", *pair) for pair in (first, later)]
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)


def test_sinusoids() -> None:
    table = sinusoidal(torch.arange(50), 8)
    expected = [
        [(np.sin if j % 2 == 0 else np.cos)(p / 10_000 ** (2 * (j // 2) / 8)) for j in range(8)] for p in range(50)
    ]
    torch.testing.assert_close(table, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-4)
    assert table.square().mean().item() == pytest.approx(0.5)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("position", POSITIONS)
def test_embeddings_have_variance_one_and_logits_too(position: str, shared: bool) -> None:
    wide = {"d_model": 256, "n_heads": 4, "d_ff": 64, "vocab_size": 400, "max_length": 100}
    config = ModelConfig("decoder", "lm", 1, position=position, shared_embeddings=shared, **wide)
    model, batch = build_model(config), random_batch(config, 4, 100)
    assert model.embed(batch.inputs).square().mean().item() == pytest.approx(1, rel=0.06)
    assert model.head(torch.randn(500, 256)).var().item() == pytest.approx(1, rel=0.06)
    assert (model.head.weight is model.embed.token.weight) == shared


def test_two_languages_may_share_all_embeddings_or_none() -> None:
    separate = build_model(replace(BOTH, source_vocab_size=5))
    assert separate.embed_source.token.weight.shape == (5, 16)
    shared = build_model(replace(BOTH, shared_embeddings=True))
    assert shared.embed_source.token.weight is shared.embed_target.token.weight is shared.head.weight
    # Three matrices of (11, 16) are one.
    count = {m: sum(p.numel() for p in m.parameters()) for m in (build_model(BOTH), shared)}
    assert next(iter(count.values())) - count[shared] == 2 * 11 * 16


@pytest.mark.usefixtures("double")
def test_image_patches_are_read_row_by_row() -> None:
    model = build_model(replace(IMAGES, position="rotary"))
    image = torch.randn(1, 3, 4, 6)
    embedded = model.embed(image)
    assert embedded.shape == (1, 6, 16)
    patch = image[:, :, 2:4, 2:4].reshape(1, -1)  # second row, second column
    torch.testing.assert_close(embedded[:, 4], model.embed.patch(patch))
    with pytest.raises(ValueError, match=r"Images of shape \(1, 3, 5, 6\): expected \(B, 3, height, width\)"):
        model(torch.randn(1, 3, 5, 6))
    with pytest.raises(ValueError, match="6 patches, the model has 4 positions.*max_length=6"):
        build_model(replace(IMAGES, max_length=4))(image)


@pytest.mark.usefixtures("both_paths", "double")
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("config", [DECODER, ENCODER], ids=["decoder", "encoder"])
def test_padding_on_either_side_changes_nothing(config: ModelConfig, position: str) -> None:
    model = build_model(replace(config, position=position))
    tokens, fill = torch.randint(11, (2, 4)), torch.randint(11, (2, 3))
    alone = model(tokens)
    for padded, kept in ((torch.cat([fill, tokens], 1), slice(3, 7)), (torch.cat([tokens, fill], 1), slice(0, 4))):
        padding = torch.ones(2, 7, dtype=torch.bool)
        padding[:, kept] = False
        torch.testing.assert_close(model(padded, padding)[:, kept], alone)


@pytest.mark.usefixtures("double")
def test_a_cache_with_padding_and_rows_in_another_order() -> None:
    model = build_model(replace(DECODER, position="rotary"))
    tokens = torch.randint(11, (2, 6))
    padding = torch.tensor([[True, True, False, False, False, False], [False] * 6])
    expected = model(tokens, padding)
    cache = Cache()
    first = model(tokens[:, :4], padding[:, :4], cache)
    cache.select(torch.tensor([1, 0]))
    second = model(tokens[[1, 0], 4:], padding[[1, 0]], cache)
    torch.testing.assert_close(first[:, 2:], expected[:, 2:4])
    torch.testing.assert_close(second[[1, 0]], expected[:, 4:])


@pytest.mark.usefixtures("both_paths")
def test_dropout_acts_in_training_only() -> None:
    model = build_model(replace(BOTH, dropout=0.5))
    batch = random_batch(BOTH, 2, 5)
    assert not torch.equal(model.logits(batch), model.logits(batch))
    model.eval()
    torch.testing.assert_close(model.logits(batch), build_model(BOTH).logits(batch))


@pytest.mark.parametrize(
    ("config", "change", "sentence"),
    [
        (DECODER, {"task": "mlm"}, "task='mlm' needs architecture='encoder', not 'decoder'"),
        (DECODER, {"decoder_layers": 0}, "decoder_layers=0: a stack needs at least one layer.*residual='none'"),
        (DECODER, {"residual": "none"}, "decoder_layers=2 with residual='none': name a residual"),
        (DECODER, {"encoder_layers": 2}, "encoder_layers=2: architecture='decoder' has no encoder; leave"),
        (BOTH, {"encoder_layers": 0}, "encoder_layers=0: a stack needs at least one layer"),
        (DECODER, {"residual": "t_fixup"}, "T-Fixup is not defined for architecture 'decoder'"),
        (DECODER, {"alpha": 3.0}, "alpha=3.0: 'deepnorm' takes its constants from its paper.*not_the_paper=True"),
        (DECODER, {"not_the_paper": True}, "neither alpha nor beta is given"),
        (DECODER, {"alpha": -1.0, "not_the_paper": True}, "alpha=-1.0: expected a positive number"),
        (DECODER, {"beta": 1.0, "residual": "keel", "not_the_paper": True}, "'keel' has no beta; it has alpha"),
        (DECODER, {"position": "rotary", "d_model": 12}, "d_model/n_heads=3 is odd"),
        (DECODER, {"position": "rope"}, "Unknown position 'rope'"),
        (DECODER, {"norm": "rmsnorm"}, "Unknown norm 'rmsnorm': did you mean 'rms'"),
        (DECODER, {"dropout": 1.0}, "dropout=1.0: expected a share"),
        (DECODER, {"vocab_size": 0}, "vocab_size=0: expected a whole number, 1 or more"),
        (DECODER, {"source_vocab_size": 5}, "only task='translation' has a source"),
        (BOTH, {"source_vocab_size": 5, "shared_embeddings": True}, "needs one vocabulary"),
        (IMAGES, {"n_classes": 0}, "n_classes=0: expected a whole number, 1 or more"),
        (IMAGES, {"shared_embeddings": True}, "no embedding of tokens to share"),
    ],
)
def test_contradictions_are_refused(config: ModelConfig, change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(config, **change)


def test_constants_by_hand_say_that_they_are_not_the_papers() -> None:
    config = replace(DECODER, alpha=3.0, beta=0.5, not_the_paper=True)
    rule = build_model(config).sublayers()[0].residual
    assert rule.alpha.item() == 3
    assert rule.gain("value") == 0.5
    assert config.title == "DeepNorm with α = 3, β = 0.5, not the paper's"
    assert replace(DECODER, alpha=None).title == "DeepNorm"


def test_a_translation_needs_what_the_decoder_reads() -> None:
    tokens = torch.randint(11, (1, 4))
    with pytest.raises(ValueError, match="needs target_inputs"):
        build_model(BOTH).loss(Batch(tokens, tokens))


def test_each_source_has_a_target() -> None:
    """Two sources for one target would be read as one long source."""
    tokens = torch.randint(11, (2, 4))
    with pytest.raises(ValueError, match="2 sources and 1 targets: expected a target for each source"):
        build_model(BOTH)(tokens, tokens[:1])


def _group(model: Translator) -> list[Tensor]:
    return [*model.encoder.parameters(), *model.decoder.parameters()]


def test_the_stack_group_holds_both_stacks() -> None:
    model = build_model(BOTH)
    assert isinstance(model, Translator)
    assert {id(p) for p in model.group("stack")} == {id(p) for p in _group(model)}
