"""Each formula against a measurement where it should hold, and a case where it does not."""

from math import e, pi, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deepnet_edu import ModelConfig, build_model, deepnorm_constants, probe
from deepnet_edu import theory as t
from deepnet_edu.model import random_batch
from deepnet_edu.probing import model_update
from deepnet_edu.probing import slope as power
from deepnet_edu.residual import Residual

SHAPE = {"d_model": 64, "n_heads": 4, "d_ff": 256, "vocab_size": 64, "max_length": 64}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def correlated(tokens: int, r: float, features: int, sigma: float = 1.0) -> Tensor:
    """(tokens, features): variance σ², any two tokens correlated by r."""
    return sigma * (sqrt(r) * torch.randn(1, features) + sqrt(1 - r) * torch.randn(tokens, features))


def covariance(x: Tensor) -> float:
    """Of two different tokens in the same feature, means taken away. x: (tokens, features)."""
    x = x - x.mean()
    n = len(x)
    return ((x.sum(0).square() - x.square().sum(0)).mean() / (n * (n - 1))).item()


# --- one component


@pytest.mark.parametrize("r", [0.0, 0.5])
def test_linear(r: float) -> None:
    x = correlated(2, r, 2000, sigma=1.5).requires_grad_()
    w = 0.03 * torch.randn(3000, 2000)
    y = x @ w.T
    expected = t.linear_moments(2000, 3000, 0.03**2, 1.5**2, r)
    assert y.var().item() == pytest.approx(expected.variance, rel=0.07)
    assert covariance(y.detach()) == pytest.approx(expected.covariance, abs=0.3)
    g = torch.randn_like(y)
    y.backward(g)
    assert x.grad is not None
    assert x.grad.var().item() == pytest.approx(expected.gradient, rel=0.07)


def test_linear_does_not_hold_where_the_input_has_a_mean() -> None:
    y = (torch.randn(2, 2000) + 2) @ (0.03 * torch.randn(3000, 2000)).T
    assert y.var().item() > 3 * t.linear_moments(2000, 3000, 0.03**2, 1.0).variance


@pytest.mark.parametrize("r", [0.0, 0.3, 0.9])
def test_relu(r: float) -> None:
    x = correlated(2, r, 400_000, sigma=2.0)
    y = F.relu(x)
    expected = t.relu_moments(4.0, r)
    assert y.mean().item() == pytest.approx(expected.mean, rel=0.01)
    assert y.var().item() == pytest.approx(expected.variance, rel=0.01)
    assert covariance(y) == pytest.approx(expected.covariance, abs=0.01)
    assert (x > 0).float().mean().item() == pytest.approx(expected.gradient, rel=0.01)
    assert expected.mean**2 + expected.variance == pytest.approx(4.0 / 2)  # Xiong et al., Lemma 1


def test_relu_does_not_hold_where_the_input_has_a_mean() -> None:
    assert F.relu(torch.randn(100_000) + 1).mean().item() > 2 * t.relu_moments(1.0).mean


def test_layer_norm() -> None:
    x = (3 * torch.randn(50, 512)).requires_grad_()
    expected = t.layer_norm_moments(9.0)
    y = F.layer_norm(x, (512,))
    assert y.var().item() == pytest.approx(expected.variance, rel=0.01)
    y.backward(torch.randn_like(y))
    assert x.grad is not None
    assert x.grad.var().item() == pytest.approx(expected.gradient, rel=0.03)


@pytest.mark.usefixtures("double")
def test_the_jacobian_of_layer_norm_has_norm_root_d_over_length() -> None:
    x = 4 * torch.randn(40)
    x = x - x.mean()
    jacobian = torch.autograd.functional.jacobian(lambda z: F.layer_norm(z, (40,), eps=0.0), x)
    expected = t.layer_norm_jacobian(x.norm().item(), 40)
    assert torch.linalg.matrix_norm(jacobian, 2).item() == pytest.approx(expected, rel=1e-9)
    # With a mean, which LN takes away, ‖x‖ is more than what is divided by: only a bound then.
    shifted = torch.autograd.functional.jacobian(lambda z: F.layer_norm(z, (40,), eps=0.0), x + 5)
    assert torch.linalg.matrix_norm(shifted, 2).item() > 1.2 * t.layer_norm_jacobian((x + 5).norm().item(), 40)


def test_the_gradient_factor_of_layer_norm_fails_at_small_width() -> None:
    """Two directions of d are lost: at d = 4 that is half of them."""
    x = torch.randn(5000, 4, requires_grad=True)
    F.layer_norm(x, (4,)).backward(torch.randn(5000, 4))
    assert x.grad is not None
    lost = x.grad.square().sum(-1).median().item() / 4
    assert lost < 0.75 * t.layer_norm_moments(1.0).gradient


@pytest.mark.parametrize("r", [0.0, 0.4, 1.0])
def test_flat_attention_forward_and_backward(r: float) -> None:
    n, d = 16, 60_000
    x = correlated(n, r, d)
    y = x.mean(0, keepdim=True).expand(n, d)
    expected = t.attention_forward_moments(n, r)
    assert y.var().item() == pytest.approx(expected.variance, rel=0.03)
    assert covariance(y) == pytest.approx(expected.covariance, rel=0.03)
    g = correlated(n, r, d)
    back = g.mean(0)  # each value gets 1/n of every gradient
    assert back.var().item() == pytest.approx(t.attention_backward_factor(n, r) * 1.0, rel=0.03)


def test_attention_that_chooses_is_not_flat() -> None:
    """With large scores each token looks at one other, and keeps the variance of a single token."""
    n, d = 16, 4000
    x = torch.randn(n, d)
    chosen = (30 * torch.randn(n, n)).softmax(-1) @ x
    assert chosen.var().item() > 5 * t.attention_forward_moments(n, 0.0).variance


def test_softmax() -> None:
    scores = 0.5 * torch.randn(2000, 400)
    assert scores.softmax(-1).var().item() == pytest.approx(t.softmax_variance(400, 0.25), rel=0.03)
    spread = (4 * torch.randn(2000, 400)).softmax(-1).var().item()
    assert spread < 0.01 * t.softmax_variance(400, 16.0)  # exp(16) is far above n


@pytest.mark.parametrize("r", [0.0, 0.5, 0.95])
def test_correlation_through_a_relu_ffn(r: float) -> None:
    x = correlated(2, r, 3000)
    h = F.relu(x @ torch.randn(3000, 6000) / sqrt(3000)) @ torch.randn(6000, 4000) / sqrt(6000)
    found = (h[0] @ h[1] / (h[0].norm() * h[1].norm())).item()
    assert found == pytest.approx(t.relu_ffn_correlation(r), abs=0.04)
    assert t.relu_ffn_correlation(0.0) == pytest.approx(1 / pi)
    if r == 0:  # GELU lets less than ReLU's mean pass: the map is another one
        gelu = F.gelu(x @ torch.randn(3000, 6000) / sqrt(3000)) @ torch.randn(6000, 4000) / sqrt(6000)
        assert (gelu[0] @ gelu[1] / (gelu[0].norm() * gelu[1].norm())).item() < t.relu_ffn_correlation(r) - 0.05


# --- the stack


def profile(residual: str, layers: int, architecture: str = "decoder") -> tuple:
    depth = {"decoder_layers": layers} if architecture == "decoder" else {"encoder_layers": layers}
    config = ModelConfig(
        architecture, "lm" if architecture == "decoder" else "mlm", residual=residual, **depth, **SHAPE
    )
    found = probe(build_model(config), random_batch(config, 4, 64))
    return found.variance, found.input_share


@pytest.mark.usefixtures("both_paths")
def test_pre_lns_variance_grows_linearly() -> None:
    variance, _ = profile("pre_ln", 96)
    by_layer = variance[1::2]
    rate = (by_layer[-1] - by_layer[47]) / 48
    straight = t.pre_ln_variance(48, rate, by_layer[47])
    np.testing.assert_allclose(by_layer[47:], straight, rtol=0.15)
    # Not from the start: attention averages tokens, and adds more once they are equal.
    assert by_layer[7] - by_layer[0] < 0.7 * 7 * rate
    post, _ = profile("post_ln", 24)
    assert post[-1] == pytest.approx(1, abs=1e-3)  # a norm on the sum: nothing grows


@pytest.mark.usefixtures("both_paths")
def test_layernorm_scaling_grows_logarithmically() -> None:
    """Branches that are linear in their input: exact; the GELU of a small input is not, and adds less still."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(20_000)
    for layer in range(1, 201):
        for _ in range(2):
            x = x + rng.standard_normal(20_000) / sqrt(layer)
    assert x.var() == pytest.approx(t.layernorm_scaling_variance(200, 1.0), rel=0.05)
    variance, _ = profile("layernorm_scaling", 96)
    plain, _ = profile("pre_ln", 96)
    assert variance[-1] < 0.2 * plain[-1]


@pytest.mark.usefixtures("both_paths")
def test_deepnorms_input_share_by_depth() -> None:
    """s = 0.32 for the GELU/ReLU FFN at 4d and 0.13 for attention: 98.9% is left after 12 layers, more at 100."""
    assert t.deepnorm_input_share(12) == pytest.approx(0.950, abs=5e-4)
    assert t.deepnorm_input_share(100) == pytest.approx(0.982, abs=5e-4)
    assert t.deepnorm_input_share(1000) == pytest.approx(0.994, abs=5e-4)
    for layers in (12, 100):
        constants = deepnorm_constants(decoder_layers=layers).decoder
        assert constants is not None
        f = np.full(2 * layers, constants.beta**4)
        assert t.input_share(f, constants.alpha)[-1] == pytest.approx(t.deepnorm_input_share(layers), rel=1e-9)
        _, share = profile("deepnorm", layers)
        s = (0.32 + 0.13) / 2
        assert share[-1] == pytest.approx(t.deepnorm_input_share(layers, s), abs=4e-3)
    _, post = profile("post_ln", 12)
    assert post[-1] < 0.05  # Post-LN has no such share


@pytest.mark.parametrize("r", [0.0, 0.2, 0.7])
def test_a_similarity_step_of_post_ln_attention(r: float) -> None:
    """Causal flat attention with random value and output weights, added and normalised."""
    n, d = 32, 1500
    x = torch.cat([correlated(n, r, d)[None] for _ in range(4)])  # (B, n, d)

    def shared(x: Tensor) -> float:
        return (n * x.mean(1).square().sum(-1) / x.square().sum((1, 2))).mean().item()

    average = torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None]
    branch = average @ x @ (torch.randn(d, d) / sqrt(d))
    before, after = shared(x), shared(x + branch)
    assert after - before == pytest.approx(t.similarity_step(before, n, 1.0), abs=0.02)
    normed = F.layer_norm(x + branch, (d,))
    # Later tokens average more and add less: token by token LN undoes that, which the step leaves out.
    assert shared(normed) == pytest.approx(before + t.similarity_step(before, n, 1.0), abs=0.05)


def gradient_parts(similarity: float, n: int = 64, d: int = 512) -> tuple[float, float]:
    """How x → LN(x + flat attention) changes a gradient of each token's own, and one that all share."""
    x = correlated(n, similarity, d).requires_grad_()
    weights = torch.randn(d, d) / sqrt(d)
    y = F.layer_norm(x + x.mean(0, keepdim=True) @ weights, (d,))
    own, shared = torch.randn(n, d), torch.randn(1, d).expand(n, d)
    factors = []
    for g in (own - own.mean(0), shared):
        (back,) = torch.autograd.grad((y * g).sum(), x, retain_graph=True)
        factors.append((back.norm() / g.norm()).item())
    return factors[0], factors[1]


@pytest.mark.parametrize("similarity", [0.0, 0.5, 0.95])
def test_own_and_shared_gradients_through_post_ln(similarity: float) -> None:
    assert gradient_parts(similarity) == pytest.approx(t.post_ln_gradient_factors(similarity, 64), rel=0.08)


@pytest.mark.usefixtures("both_paths")
def test_the_own_factor_alone_does_not_say_what_a_stack_does() -> None:
    """1/√2 an attention sub-layer would be 2^-12 over 24; the part that tokens share keeps the whole at a tenth."""
    config = ModelConfig("encoder", "mlm", encoder_layers=24, residual="post_ln", **SHAPE)
    found = probe(build_model(config), random_batch(config, 4, 64))
    ffn = found.gradient_by_role["ffn_out"][1::2]
    assert ffn[0] / ffn[-1] > 100 * t.post_ln_gradient_factors(1.0, 64)[0] ** 24


# --- bounds


class Xiong(torch.nn.Module):
    """The setting of the paper: N(0, 1/d) weights, uniform attention, ReLU, d_ff = d, Post-LN or Pre-LN."""

    def __init__(self, layers: int, d: int, pre: bool) -> None:
        super().__init__()
        self.pre = pre
        self.weights = torch.nn.ParameterList(
            torch.nn.Parameter(torch.randn(d, d) / sqrt(d)) for _ in range(4 * layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        d = x.shape[-1]
        for value, output, w1, w2 in zip(*(self.weights[i::4] for i in range(4)), strict=True):
            for branch in (
                lambda z, a=value, b=output: z.mean(1, keepdim=True) @ a @ b,
                lambda z, a=w1, b=w2: F.relu(z @ a) @ b,
            ):
                x = x + branch(F.layer_norm(x, (d,))) if self.pre else F.layer_norm(x + branch(x), (d,))
        return F.layer_norm(x, (d,)) if self.pre else x


def ffn_gradients(layers: int, pre: bool, d: int = 64) -> np.ndarray:
    model, head = Xiong(layers, d, pre), torch.randn(d, 32) / sqrt(d)
    x, y = torch.randn(4, 16, d), torch.randint(32, (4, 16))
    loss = F.cross_entropy((model(x) @ head).flatten(0, 1), y.flatten())
    return np.array([g.norm().item() for g in torch.autograd.grad(loss, list(model.weights[3::4]))])


def test_the_last_gradient_shrinks_with_depth_for_pre_ln_only() -> None:
    depths = (6, 12, 24, 48)
    post, pre = ([ffn_gradients(n, kind)[-1] for n in depths] for kind in (False, True))
    for found, norm in ((post, "post_ln"), (pre, "pre_ln")):
        predicted = [t.last_ffn_gradient_bound(64, n, norm) for n in depths]  # type: ignore[arg-type]
        assert power(depths, found) == pytest.approx(power(depths, predicted), abs=0.15)
    with pytest.raises(ValueError, match="the theorem has 'post_ln' and 'pre_ln'"):
        t.last_ffn_gradient_bound(64, 6, "deepnorm")  # type: ignore[arg-type]


def test_the_decay_is_a_bound_and_not_what_happens() -> None:
    """Tokens become equal, their shared gradient does not decay: after 12 layers far more is left than the bound's
    (2/3)^(11/2) = 0.11, whose other constants are not known."""
    decay = t.post_ln_gradient_decay(12)
    assert decay[-1] == 1
    assert decay[0] == pytest.approx((2 / 3) ** 5.5)
    found = ffn_gradients(12, pre=False)
    assert found[0] / found[-1] > 2 * decay[0]


def test_theorem_4_2() -> None:
    """The sum for one SGD step is 1 for DeepNorm at every depth, 2N for Post-LN; measured: the same powers of depth."""
    for layers in (6, 1000):
        constants = deepnorm_constants(decoder_layers=layers).decoder
        assert constants is not None
        alpha, beta = constants.alpha, constants.beta
        assert t.sgd_update_sum(2 * layers, beta, beta, alpha) == pytest.approx(1)
        assert t.fixed_step_update_sum(2 * layers, beta, beta, alpha) == pytest.approx(sqrt(2 * layers))
        glm = sqrt(2 * layers)
        assert t.fixed_step_update_sum(2 * layers, 1 / glm, 1 / glm, glm) == pytest.approx(sqrt(2))
        v = np.full(2 * layers, beta)
        assert t.update_bound(v, v, alpha, np.full(2 * layers, sqrt(2) * beta / alpha)) == pytest.approx(1)
        assert t.sgd_update_sum(2 * layers, 1, 1, 1) == 4 * layers


@pytest.mark.usefixtures("both_paths")
def test_theorem_4_2_leaves_out_the_norms_and_they_grow() -> None:
    def update(layers: int, group: str) -> float:
        config = ModelConfig("decoder", "lm", layers, **SHAPE)
        batch = random_batch(config, 4, 32)
        return model_update(build_model(config).double(), batch, "sgd", group, 1e-6)  # type: ignore[arg-type]

    depths = (8, 32)
    assert power(depths, [update(n, "matrices") for n in depths]) == pytest.approx(0, abs=0.1)
    assert power(depths, [update(n, "norms") for n in depths]) == pytest.approx(1, abs=0.1)


def test_theorem_4_3_and_its_conditions() -> None:
    N = M = 18
    constants = deepnorm_constants(N, M)
    assert constants.encoder is not None
    assert constants.decoder is not None
    e, d = constants.encoder, constants.decoder
    assert t.encoder_condition(N, M, e.beta, e.beta, e.alpha) == pytest.approx(1.012, abs=1e-3)
    assert t.sgd_update_sum(3 * M, d.beta, d.beta, d.alpha) == pytest.approx(1)

    def total(v_e: float, a_e: float, v_d: float, a_d: float) -> float:
        encoder = (np.full(2 * N, v_e), np.full(2 * N, v_e), a_e, np.full(2 * N, sqrt(2) * v_e / a_e))
        decoder = (np.full(3 * M, v_d), np.full(3 * M, v_d), a_d, np.full(3 * M, sqrt(2) * v_d / a_d))
        return t.encoder_decoder_update_bound(encoder, decoder)

    assert total(e.beta, e.alpha, d.beta, d.alpha) == pytest.approx(2, rel=0.02)  # 1 for each stack
    # Post-LN: the encoder enters M times.
    assert total(1, 1, 1, 1) == pytest.approx(M * 2 * 2 * N + 2 * 3 * M)
    one = (np.ones(2), np.ones(2), 1.0, np.ones(2))
    with pytest.raises(ValueError, match="not a multiple of 3"):
        t.encoder_decoder_update_bound(one, one)


@pytest.mark.parametrize("causal", [True, False])
def test_a_gradient_through_flat_attention(causal: bool) -> None:
    """Own and shared parts of a gradient, by autograd through a real average."""
    n, d = 12, 4000
    weights = torch.ones(n, n).tril() if causal else torch.ones(n, n)
    weights = (weights / weights.sum(1, keepdim=True)).requires_grad_(False)
    for c in (0.0, 0.6):
        x = torch.zeros(n, d, requires_grad=True)
        (back,) = torch.autograd.grad(((weights @ x) * correlated(n, c, d)).sum(), x)
        gram = back @ back.T / d
        variance, covariance = gram.diag().mean().item(), ((gram.sum() - gram.diag().sum()) / (n * (n - 1))).item()
        assert t.attention_backward(n, causal) @ [1.0, c] == pytest.approx([variance, covariance], rel=0.1, abs=0.01)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("r", [0.0, 0.5])
def test_attention_with_scores_that_are_not_flat(causal: bool, r: float) -> None:
    """Σ A² and Σ A·A' of real softmax weights, from queries and keys of tokens with correlation r and scores of
    variance 1; and a gradient through them."""
    n, d, heads = 24, 64, 300
    generator = torch.Generator().manual_seed(0)

    def tokens() -> torch.Tensor:
        """Queries or keys of fresh matrices: the tokens' correlation stays."""
        shared, own = (torch.randn(heads, size, d, generator=generator, dtype=torch.float64) for size in (1, n))
        return r**0.5 * shared + (1 - r) ** 0.5 * own

    scores = tokens() @ tokens().transpose(1, 2) / d**0.5
    if causal:
        scores.masked_fill_(torch.ones(n, n).triu(1).bool(), -torch.inf)
    A = scores.softmax(-1)
    gram = A @ A.transpose(1, 2)
    own = gram.diagonal(dim1=1, dim2=2).mean().item()
    pair = ((gram.sum() - gram.diagonal(dim1=1, dim2=2).sum()) / (heads * n * (n - 1))).item()
    assert t.attention_weights(n, causal, 1 - r, r) == pytest.approx((own, pair), rel=0.2)
    back = A.transpose(1, 2) @ A  # of independent gradients: covariances between the values of two tokens
    variance = back.diagonal(dim1=1, dim2=2).mean().item()
    covariance = ((back.sum() - back.diagonal(dim1=1, dim2=2).sum()) / (heads * n * (n - 1))).item()
    found = t.attention_backward(n, causal, 1.0, r) @ [1.0, 0.0]
    assert found == pytest.approx([variance, covariance], rel=0.2)
    if not causal:
        assert t.attention_moments(n, r) != t.attention_moments(n, r, 1.0)


def test_flat_scores_are_the_known_averages() -> None:
    harmonic = sum(1 / k for k in range(1, 31))
    assert t.attention_weights(30, True, 0.0, 0.3) == pytest.approx((harmonic / 30, 2 * (30 - harmonic) / (30 * 29)))
    assert t.attention_weights(30, False, 0.0, 0.3) == pytest.approx((1 / 30, 1 / 30))
    # Scores that are far apart leave a query one key; ten million tokens are no more work than ten.
    assert t.attention_weights(30, False, 300.0, 0.0)[0] == pytest.approx(1)
    assert t.attention_weights(10**7, True, 1.0, 0.0)[0] == pytest.approx(e * 16.7 / 1e7, rel=0.1)


def test_a_prediction_of_2000_layers_asks_few_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slider waits for it: rules are made for a few places, unless their numbers change from layer to layer."""
    made, plain = [], Residual.formula_constants

    def counted(rule: Residual) -> dict[str, float]:
        made.append(1)
        return plain(rule)

    monkeypatch.setattr(Residual, "formula_constants", counted)
    t.predict(ModelConfig("decoder", "lm", 2000, **SHAPE), 16)
    assert len(made) < 20
    made.clear()
    profile = t.predict(ModelConfig("decoder", "lm", 40, residual="ds_init", **SHAPE), 16)
    assert len(made) > 80
    assert profile.input_share[-1] > 0.3
