"""What once passed, and must not: copies in any pattern, an α of one mode, detached branches, alternating gains, dead
norms. And what cannot be seen is UNKNOWN, never PASS."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu import ModelConfig, build_model, deepnorm_constants
from deepnet_edu.review import Review, SubLayerView, find_sublayers, review
from tests.review.reviewed import HEADS, D, Recipe, X, stack

LAYERS = 8
RIGHT = Recipe(alpha=(2 * LAYERS) ** 0.25, beta=(8 * LAYERS) ** -0.25)
GAIN, QK = "gain of value, output and FFN", "gain of query and key"


def statuses(found: Review) -> dict[str, str]:
    """All rows that do not pass."""
    return {row.name: row.status for row in found.rows if row.status != "PASS"}


def judged(recipe: Recipe) -> Review:
    return review(stack(recipe, LAYERS), X)


def test_the_right_one_passes_with_dropout_too() -> None:
    assert statuses(judged(replace(RIGHT, dropout=0.3))) == {}


@pytest.mark.parametrize("period", [1, 2, 3])
def test_copies_in_turn_are_found(period: int) -> None:
    found = judged(replace(RIGHT, clones=period))
    assert found["independent layers"].status == "FAIL"
    assert "correlate by 1.00" in found["independent layers"].found


def test_a_copy_of_one_matrix_with_another_sign_and_size_is_found() -> None:
    model = stack(RIGHT, LAYERS)
    with torch.no_grad():
        model[6].fc1.weight.copy_(-model[1].fc1.weight)  # type: ignore[union-attr, operator]
    assert statuses(review(model, X)) == {"independent layers": "FAIL"}


def test_alpha_of_one_mode_is_found() -> None:
    found = judged(replace(RIGHT, alpha_in_training=1.0))
    assert statuses(found) == {"α on the skip": "FAIL"}
    assert found["α on the skip"].found == "in training mode the norm sees 1·x + 1·F(x)"
    assert "The other mode is right" in found["α on the skip"].mend
    other = judged(replace(RIGHT, alpha=1.0, alpha_in_training=RIGHT.alpha, dropout=0.1))
    assert other["α on the skip"].found == "in evaluation mode the norm sees 1·x + 1·F(x)"


def test_detached_branches_are_found() -> None:
    found = judged(replace(RIGHT, detached=True))
    assert found["gradient through F"].status == "FAIL"
    assert (
        found["gradient through F"].found
        == f"in {2 * LAYERS} of {2 * LAYERS} sub-layers no gradient gets from F(x) to x"
    )
    assert found["α on the skip"].status == "PASS"


@pytest.mark.parametrize("factors", [(0.1, 1.9), (0.5, 1.5)], ids=["in turn", "rising"])
def test_gains_that_are_right_on_average_only(factors: tuple[float, float]) -> None:
    model = stack(RIGHT, LAYERS)
    low, high = factors
    with torch.no_grad():
        for i, layer in enumerate(model):
            factor = (low, high)[i % 2] if low < 0.5 else low + (high - low) * i / (LAYERS - 1)
            for linear in (layer.fc1, layer.fc2):  # type: ignore[union-attr]
                linear.weight.mul_(factor)  # type: ignore[operator, union-attr]
    found = review(model, X)
    assert found[GAIN].status == "FAIL"
    assert "Right on average only" in found[GAIN].mend
    assert f"is {high} times" in found[GAIN].mend


@pytest.mark.parametrize("weight", [0.0, 0.01, 2.0])
def test_norms_that_do_not_start_at_one(weight: float) -> None:
    found = review(stack(replace(RIGHT, norm_weight=weight), LAYERS), X, depth=(0, LAYERS))
    assert found["gain of the norms"].status == "FAIL"
    assert not found.passed


def test_layers_too_weak_to_be_seen_do_not_pass() -> None:
    """Their sum is the skip, up to rounding: they are missed, and that is said."""
    model = stack(RIGHT, LAYERS)
    with torch.no_grad():
        for layer in (model[2], model[3]):
            for linear in (layer.fc2, layer.self_attn.out_proj):  # type: ignore[union-attr]
                linear.weight.mul_(1e-9)  # type: ignore[operator, union-attr]
    found = review(model, X, depth=(0, LAYERS))
    assert found["α on the skip"].status == "UNKNOWN"
    assert "12 matrices belong to no sub-layer that was found" in found["α on the skip"].found


def test_tokens_that_are_alike_from_the_start_are_the_batchs_fault() -> None:
    found = review(stack(RIGHT, LAYERS), X[:, :1].expand(4, 16, D).contiguous())
    assert statuses(found) == {"signal at depth": "UNKNOWN"}
    assert "equal already" in found["signal at depth"].found


# --- which axis is time


class TimeFirst(nn.Module):
    """torch.nn's layers without batch_first, drawn as DeepNorm or left as Post-LN."""

    def __init__(self, layers: int, batch_first: bool, right: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        constants = deepnorm_constants(encoder_layers=layers).encoder
        assert constants is not None
        self.alpha, beta = (constants.alpha, constants.beta) if right else (1.0, 1.0)
        self.attention, self.one, self.two, self.norms = (nn.ModuleList() for _ in range(4))
        for _ in range(layers):
            attention = nn.MultiheadAttention(D, HEADS, batch_first=batch_first)
            self.attention.append(attention)
            self.one.append(nn.Linear(D, 2 * D))
            self.two.append(nn.Linear(2 * D, D))
            self.norms.extend([nn.LayerNorm(D), nn.LayerNorm(D)])
            query, key, value = attention.in_proj_weight.detach().chunk(3)
            last = (self.one[-1].weight, self.two[-1].weight, attention.out_proj.weight, value)
            for weight, gain in ((query, 1.0), (key, 1.0), *((weight, beta) for weight in last)):
                nn.init.xavier_normal_(weight, gain=gain)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for i, attention in enumerate(self.attention):
            x = self.norms[2 * i](self.alpha * x + attention(x, x, x, need_weights=False)[0])
            x = self.norms[2 * i + 1](self.alpha * x + self.two[i](F.relu(self.one[i](x))))
        return x


@pytest.mark.parametrize("batch_first", [True, False])
def test_time_is_found_whichever_axis_it_is(batch_first: bool) -> None:
    x = X[:, :8] if batch_first else X[:, :8].transpose(0, 1)
    dead = review(TimeFirst(30, batch_first, right=False), x)["signal at depth"]
    assert dead.status == "FAIL"
    assert "tokens have become equal" in dead.mend
    assert "encoder: token similarity 0.99" in dead.found or "encoder: token similarity 1.000" in dead.found
    right = review(TimeFirst(4, batch_first, right=True), x)
    assert statuses(right) == {}
    assert "(encoder)" in right["α on the skip"].expected  # no mask: an encoder
    assert not review(TimeFirst(2, batch_first, right=True), x[:1] if batch_first else x[:, :1])["signal at depth"].mend


def test_torchs_default_layout_gets_a_batch_of_its_own() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(D, HEADS, D), 24, enable_nested_tensor=False)
    shapes: list[torch.Size] = []
    handle = model.register_forward_hook(lambda module, args, output: shapes.append(args[0].shape))
    found = review(model)
    handle.remove()
    assert shapes[0] == (32, 4, D)
    assert "similarity 0.999" in found["signal at depth"].found


# --- by hand


class Fused(nn.Module):
    """GPT-2's matrices, (fan_in, fan_out), with all of attention in one module that has no others inside."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.mix, self.norm_1, self.norm_2 = Mix(beta), nn.LayerNorm(D), nn.LayerNorm(D)
        self.ffn = Mlp(beta)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_1(self.alpha * x + self.mix(x))
        return self.norm_2(self.alpha * x + self.ffn(x))  # type: ignore[no-any-return]


class Mix(nn.Module):
    def __init__(self, beta: float) -> None:
        super().__init__()
        self.everything = nn.Parameter(torch.empty(D, 4 * D))
        for i, gain in enumerate((1.0, 1.0, beta, beta)):
            nn.init.xavier_normal_(self.everything.detach()[:, i * D : (i + 1) * D], gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        q, k, v = ((x @ w).view(B, T, HEADS, -1).transpose(1, 2) for w in self.everything[:, : 3 * D].split(D, dim=1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y.transpose(1, 2).reshape(B, T, D) @ self.everything[:, 3 * D :]


class Mlp(nn.Module):
    def __init__(self, beta: float) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.empty(D, 2 * D)), nn.Parameter(torch.empty(2 * D, D))
        for weight in (self.up, self.down):
            nn.init.xavier_normal_(weight.detach(), gain=beta)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x @ self.up) @ self.down


def by_hand(model: nn.Sequential) -> list[SubLayerView]:
    views = []
    for layer in model:
        names = ("query", "key", "value", "output")
        matrices = layer.mix.everything.split(D, dim=1)  # type: ignore[operator, union-attr]
        views.append(SubLayerView(layer.mix, layer.norm_1, dict(zip(names, matrices, strict=True))))  # type: ignore[arg-type]
        weights = {"ffn_in": layer.ffn.up.T, "ffn_out": layer.ffn.down.T}  # type: ignore[operator, union-attr]
        views.append(SubLayerView(branch=layer.ffn, norm=layer.norm_2, weights=weights))  # type: ignore[arg-type]
    return views


def test_views_by_hand_of_fused_weights() -> None:
    torch.manual_seed(0)
    constants = deepnorm_constants(decoder_layers=LAYERS).decoder
    assert constants is not None
    model = nn.Sequential(*(Fused(constants.alpha, constants.beta) for _ in range(LAYERS)))
    assert statuses(review(model, X, sublayers=by_hand(model))) == {}
    # Without hands the form is found, and the matrices are not.
    alone = review(model, X, depth=(0, LAYERS))
    assert alone["α on the skip"].status == alone["norm outside"].status == "PASS"
    assert {row.status for row in alone.rows if row.name in (GAIN, QK, "independent layers")} == {"UNKNOWN"}
    # Copies of weights have no gradient, which is not a reason to pass.
    copies = [
        replace(view, weights={k: w.detach().clone() for k, w in view.weights.items()}) for view in by_hand(model)
    ]
    assert review(model, X, sublayers=copies)["signal at depth"].status == "UNKNOWN"
    wrong = nn.Sequential(*(Fused(1.0, constants.beta) for _ in range(LAYERS)))
    assert "There is no α" in review(wrong, X, sublayers=by_hand(wrong))["α on the skip"].mend


def test_what_was_found_can_be_completed_by_hand() -> None:
    model = stack(RIGHT, LAYERS)
    views = find_sublayers(model, X)
    assert len(views) == 2 * LAYERS
    before = copy.copy(views[0])
    assert statuses(review(model, X, sublayers=views)) == {}
    assert views[0] == before
    assert review(model, X, sublayers=views[:3], depth=(0, LAYERS))["signal at depth"].status != "FAIL"


class Unseen(nn.Module):
    """A norm that is a function: nothing passes between modules that could be recognised."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        for linear in (self.one, self.two):
            x = F.layer_norm(1.5 * x + linear(x), (D,))
        return x


def test_what_cannot_be_seen_is_refused_or_unknown() -> None:
    model = Unseen()
    with pytest.raises(ValueError, match="I cannot see where the residual is"):
        review(model, X)
    views = [SubLayerView(model.one, None, {"ffn_out": model.one.weight})]
    found = review(model, X, sublayers=views, depth=(1, 0))
    assert found["α on the skip"].status == found["norm outside"].status == "UNKNOWN"
    assert not found.passed


def test_buffers_and_randomness_stay_as_they_were() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.batch_norm = stack(RIGHT, 2), nn.BatchNorm1d(D)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(self.batch_norm(x.flatten(0, 1)).view_as(x))  # type: ignore[no-any-return]

    model = Counting().train()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    review(model, X)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert model.batch_norm.training


def test_ours_is_seen_by_its_form_too() -> None:
    """Without the help that a model of this package gives: the same verdict."""
    config = ModelConfig("encoder_decoder", "translation", 3, 4, vocab_size=32, d_model=D, n_heads=HEADS, d_ff=2 * D)
    model = build_model(config)
    assert statuses(review(model)) == {}
