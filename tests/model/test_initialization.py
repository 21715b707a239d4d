import pytest
import torch

from deepnet_edu.model import ModelConfig, build_model
from deepnet_edu.model.initialization import measured_gains

WIDE = ModelConfig("decoder", "lm", decoder_layers=3, d_model=256, n_heads=4, d_ff=1024, vocab_size=50)


def rebuilt(residual: str, seed: int = 0):
    return build_model(ModelConfig(**{**vars(WIDE), "residual": residual}), seed=seed)


def test_measured_gains_are_beta_within_sampling_error() -> None:
    beta = (8 * 3) ** -0.25
    rows = measured_gains(rebuilt("deepnorm"))
    assert len(rows) == 3 * 6
    for row in rows:
        expected = 1.0 if row.role in ("query", "key") else beta
        assert row.expected == pytest.approx(expected)
        assert row.measured == pytest.approx(expected, rel=5 * row.relative_error)
        assert row.relative_error < 0.004  # tight enough to tell β = 0.452 from √β, or 1/√2 from 1


@pytest.mark.parametrize("residual", ["post_ln", "pre_ln", "resi_dual"])
def test_other_rules_have_gain_one(residual: str) -> None:
    for row in measured_gains(rebuilt(residual)):
        assert row.measured == pytest.approx(1, rel=5 * row.relative_error)


def test_the_distribution_is_normal_and_centred() -> None:
    weight = rebuilt("deepnorm").stack.layers[0].ffn.branch.ffn_in.weight
    z = (weight / weight.std()).detach()
    assert abs(z.mean()) < 5 / z.numel() ** 0.5
    assert z.pow(4).mean().item() == pytest.approx(3, abs=0.1)  # 1.8 for a uniform one


def test_biases_are_zero_and_norms_the_identity() -> None:
    for name, parameter in rebuilt("deepnorm").stack.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name


def test_no_two_layers_are_equal() -> None:
    config = ModelConfig("decoder", "lm", decoder_layers=50, d_model=8, n_heads=2, d_ff=16, vocab_size=5)
    model = build_model(config)
    seen = [
        weight.detach().numpy().tobytes() for s in model.stack.sublayers() for weight in s.branch.weights().values()
    ]
    assert len(seen) == len(set(seen)) == 50 * 6
    pointers = {parameter.data_ptr() for parameter in model.parameters()}
    assert len(pointers) == len(list(model.parameters()))


def test_the_seed_decides_and_the_global_state_does_not() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = rebuilt("deepnorm", seed=3).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    again, other = rebuilt("deepnorm", seed=3).state_dict(), rebuilt("deepnorm", seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
