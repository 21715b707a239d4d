"""The checklist passes what is right, and finds each published mistake by name. The mistakes are rebuilt here in a few
lines of our own."""

import copy
from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from deepnet_edu import ModelConfig, build_model, deepnorm_constants
from deepnet_edu.model import random_batch
from deepnet_edu.review import SubLayerView, find_sublayers, review
from tests.review.reviewed import FF, HEADS, LAYERS, D, Recipe, X, run, stack

SIZES = {"d_model": D, "n_heads": HEADS, "d_ff": FF, "vocab_size": 32}
ROWS = [
    "α on the skip",
    "norm outside",
    "independent layers",
    "gain of value, output and FFN",
    "gain of query and key",
    "gain of the norms",
    "gradient through F",
    "signal at depth",
]


def failing(found) -> list[str]:
    return [row.name for row in found.rows if row.status != "PASS"]


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig("decoder", "lm", LAYERS, **SIZES),
        ModelConfig("encoder", "mlm", encoder_layers=LAYERS, **SIZES),
        ModelConfig("encoder_decoder", "translation", 8, 12, **SIZES),
        ModelConfig("encoder", "classification", encoder_layers=LAYERS, n_classes=5, d_model=D, n_heads=HEADS, d_ff=FF),
        ModelConfig("decoder", "lm", LAYERS, norm="rms", activation="swiglu", position="rotary", **SIZES),
    ],
    ids=["decoder", "encoder", "encoder_decoder", "images", "bonito's choices"],
)
def test_ours_passes(config: ModelConfig) -> None:
    found = review(build_model(config))
    assert failing(found) == []
    assert [row.name for row in found.rows] == ROWS
    assert found.passed
    assert str(found).count("PASS") == len(ROWS)


def test_other_rules_fail_where_they_differ() -> None:
    config = ModelConfig("decoder", "lm", LAYERS, **SIZES)
    post = review(build_model(replace(config, residual="post_ln")))
    assert "There is no α" in post[ROWS[0]].mend
    assert failing(post) == [ROWS[0], ROWS[3], ROWS[7]]
    pre = review(build_model(replace(config, residual="pre_ln")))
    assert "Pre-LN" in pre[ROWS[1]].found
    glm = review(build_model(replace(config, residual="deepnorm_glm")))
    assert failing(glm) == [ROWS[0], ROWS[3]]
    assert "another depth or exponent" in glm[ROWS[0]].mend
    assert review(build_model(replace(config, residual="rezero")))[ROWS[1]].status == "UNKNOWN"


# --- a model of another make: layers with fairseq's names, and everything that can be wrong about them


def judged(recipe: Recipe, layers: int = LAYERS, **settings: object):
    return review(stack(recipe, layers), run=run, depth=(0, layers), **settings)  # type: ignore[arg-type]


def test_the_papers_recipe_passes() -> None:
    assert failing(judged(Recipe())) == []


ALPHA, NORM, LAYER, GAIN, QK, GAMMA, THROUGH, SIGNAL = ROWS
#: Rows of published mistakes: what is done, the rows that must fail, what one of them must say.
WILD = {
    "1 labml: α on the branch": (Recipe(alpha_on_branch=True), {ALPHA}, "α multiplies the branch"),
    "2 labml: copies of one layer": (Recipe(clones=1), {LAYER}, "Layers are copies of one"),
    "3 torchscale HEAD: Pre-LN, scaled skip": (Recipe(pre_norm=True), {NORM, SIGNAL}, "norm after the sum"),
    "5 torchscale: default init times β": (Recipe(init="default"), {GAIN, QK}, "xavier_normal_"),
    "8 lczero: β scales the variance": (Recipe(beta=(8 * LAYERS) ** -0.125), {GAIN}, "times what it should be"),
    "9 omar-rq: (8·N)**-1/4": (Recipe(beta=(8 * LAYERS) ** -1 / 4), {GAIN}, "times what it should be"),
    "10 Mix-LN: exponent's sign and α of 32 layers": (
        Recipe(alpha=2.828, beta=(8 * LAYERS) ** 0.25), {ALPHA, GAIN, SIGNAL}, "another depth or exponent",
    ),
    "11 xformers: value not scaled": (Recipe(unscaled=("v_proj",)), {GAIN}, "value of the decoder is 3.7 times"),
    "12 QKV drawn as one matrix": (Recipe(init="packed"), {GAIN, QK}, "each third of a packed one"),
    "query and key scaled too": (Recipe(also_scaled=("q_proj", "k_proj")), {QK}, "0.27 times"),
    "unilm #663: α and β swapped": (
        Recipe(alpha=(8 * LAYERS) ** -0.25, beta=(2 * LAYERS) ** 0.25), {ALPHA, GAIN, SIGNAL}, "another depth",
    ),
    "GLM-130B's constants, another choice": (
        Recipe(alpha=sqrt(2 * LAYERS), beta=1 / sqrt(2 * LAYERS)), {ALPHA, GAIN}, "another depth or exponent",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WILD))
def test_a_published_mistake_is_found_by_name(name: str) -> None:
    recipe, rows, sentence = WILD[name]
    model = stack(recipe)
    if name.startswith("9"):  # its branches are 3e-7 of the stream: single precision hardly sees them
        single = review(model, X)
        assert single[GAIN].status == "FAIL"
        assert {single[row].status for row in (ALPHA, NORM)} == {"UNKNOWN"}
        assert "too faint beside their stream" in single[ALPHA].found
        model = model.double()
    found = review(model, X.to(next(model.parameters()).dtype), depth=(0, LAYERS))
    assert {row.name for row in found.rows if row.status == "FAIL"} >= rows
    # Where the mistake is one of constants, order or copies, the rest of the model is not blamed. Upper branches of a
    # stream that overflows are not even seen.
    assert set(failing(found)) <= rows | {SIGNAL} | ({ALPHA, THROUGH} if NORM in rows else set())
    assert any(sentence in row.mend for row in found.rows if row.name in rows)
    assert not found.passed


def test_copies_lose_the_gradient_only_at_depth() -> None:
    """At 50 layers copies have 0.56 of the gradient at the bottom; that they are copies shows at any depth."""
    layers = 50
    recipe = Recipe(alpha=(2 * layers) ** 0.25, beta=(8 * layers) ** -0.25, clones=1)
    assert judged(recipe, layers)[LAYER].status == "FAIL"
    assert judged(replace(recipe, clones=0), layers).passed


def test_an_encoders_beta_of_two_stacks() -> None:
    """Row 4, TorchScale: 1.15 for 0.87 in the encoder that a decoder looks at."""
    model = build_model(ModelConfig("encoder_decoder", "translation", 8, 8, **SIZES))
    encoder = deepnorm_constants(8, 8).encoder
    assert encoder is not None
    with torch.no_grad():
        for sublayer in model.encoder.sublayers():  # type: ignore[union-attr, operator]
            for role, weight in sublayer.branch.weights().items():
                if role not in ("query", "key"):
                    weight.mul_(1.15 / 0.87)
    found = review(model)
    assert failing(found) == [GAIN]
    assert "of the encoder is 1.3 times what it should be" in found[GAIN].mend


def test_sub_ln_and_deepnorm_at_once() -> None:
    """Row 6: a norm inside the branch undoes β: the fit stays right, the gains too, and only the signal tells."""
    found = judged(Recipe(inner_norm=True, gains={"fc1": 1.0, "fc2": 1.0, "v_proj": 1.0, "out_proj": 1.0}))
    assert found[GAIN].status == "FAIL"


# --- other makes


def test_torchs_own_layers_are_found() -> None:
    layer = nn.TransformerEncoderLayer(D, HEADS, FF, dropout=0.1, batch_first=True)
    model = nn.TransformerEncoder(layer, 6)
    found = review(model)
    assert "There is no α" in found[ALPHA].mend
    assert found[LAYER].status == "FAIL"  # it deep-copies the layer that it is given
    assert "query 0.7" in found[QK].found  # Xavier over all three at once
    before = nn.TransformerEncoder(nn.TransformerEncoderLayer(D, HEADS, FF, batch_first=True, norm_first=True), 6)
    assert review(before)[NORM].status == "FAIL"
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(D, HEADS, FF, batch_first=True), 3)
    assert len(find_sublayers(decoder, (X, X))) == 9
    assert review(decoder, run=lambda model: model(X, X), depth=(3, 3))[ALPHA].found == "the norm sees 1·x + 1·F(x)"


class Own(nn.Module):
    """Names that are unknown."""

    def __init__(self) -> None:
        super().__init__()
        layers, constants = 4, deepnorm_constants(decoder_layers=4).decoder
        assert constants is not None
        self.alpha = constants.alpha
        self.mixers = nn.ModuleList(nn.Sequential(nn.Linear(D, FF), nn.ReLU(), nn.Linear(FF, D)) for _ in range(layers))
        self.scalers = nn.ModuleList(nn.LayerNorm(D) for _ in range(layers))
        for mixer in self.mixers:
            for linear in (mixer[0], mixer[2]):  # type: ignore[index]
                nn.init.xavier_normal_(linear.weight, gain=constants.beta)

    def forward(self, x: Tensor) -> Tensor:
        for mixer, scaler in zip(self.mixers, self.scalers, strict=True):
            x = scaler(self.alpha * x + mixer(x))
        return x


def test_hints_for_a_model_of_any_make() -> None:
    model = Own()
    hints = [
        SubLayerView(branch=mixer, norm=scaler, weights={"ffn_in": mixer[0].weight, "ffn_out": mixer[2].weight})  # type: ignore[index]
        for mixer, scaler in zip(model.mixers, model.scalers, strict=True)
    ]
    found = review(model, sublayers=hints, run=run)
    assert failing(found) == [QK]
    assert found[QK].status == "UNKNOWN"
    assert review(model, X) == found  # and without hints
    for settings in ({}, {"sublayers": hints}):
        with pytest.raises(ValueError, match=r"How is this model run\? review\(model, x\)"):
            review(model, **settings)
    with pytest.raises(ValueError, match="I cannot see where the residual is: .* Name the sub-layers"):
        review(nn.Sequential(nn.Linear(D, FF), nn.ReLU(), nn.Linear(FF, D)), X)


def test_a_batch_is_what_the_model_is_run_on() -> None:
    """By position, as the README calls it: a Batch for ours, what the model is called with for others."""
    config = ModelConfig("decoder", "lm", 4, **SIZES)
    model, batch = build_model(config), random_batch(config, 2, 8, seed=1)
    seen: list[torch.Size] = []
    model.embeddings()[0].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    assert review(model, batch).passed
    assert seen == [(2, 8, D)] * 2  # in evaluation and in training mode
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(D, HEADS, FF, batch_first=True), 2, enable_nested_tensor=False
    )
    assert "There is no α" in review(encoder, X)[ALPHA].mend
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(D, HEADS, FF, batch_first=True), 3)
    assert review(decoder, (X, X), depth=(3, 3))[ALPHA].found == "the norm sees 1·x + 1·F(x)"


def test_a_compiled_model_is_unwrapped() -> None:
    model = build_model(ModelConfig("decoder", "lm", 4, **SIZES))
    assert review(torch.compile(model)).passed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"batch": X, "run": run}, ValueError, "either batch or run"),
        ({"batch": X}, TypeError, "reads a Batch, and got a Tensor"),
        ({"batch": "text"}, TypeError, "reads a Batch, and got a str"),
        ({"batch": {}}, TypeError, "reads a Batch, and got a dict"),
        ({"model": None}, TypeError, "got NoneType"),
        (
            {"model": Own(), "sublayers": [1], "batch": "x"},
            TypeError,
            "called with a tensor, .* or a dict of them by keyword, not a str",
        ),
    ],
)
def test_what_cannot_be_reviewed_is_refused(settings, error, sentence) -> None:
    model = build_model(ModelConfig("decoder", "lm", 1, **SIZES))
    with pytest.raises(error, match=sentence):
        review(**{"model": model, **settings})


def test_a_review_leaves_the_model_alone() -> None:
    model = stack(Recipe(), 3).train().requires_grad_(False)
    model[1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    review(model, run=run)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all((p.grad == 1).all() and not p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_review_is_plain_json_and_reads_as_a_table() -> None:
    found = judged(Recipe(alpha_on_branch=True))
    assert found.to_dict()["rows"][0]["status"] == "FAIL"
    assert "FAIL     α on the skip" in str(found)
    assert str(found).count("\n") >= 6
