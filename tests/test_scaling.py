"""α and β against arithmetic done here, in another form than the library's: logarithms and products of roots."""

import subprocess
import sys
from math import exp, log, sqrt

import numpy as np
import pytest

from deepnet_edu import deepnorm_constants
from deepnet_edu.scaling import DeepNormConstants, StackConstants


@pytest.mark.parametrize("n", [1, 2, 6, 12, 100, 1000])
def test_single_stack(n: int) -> None:
    alpha, beta = sqrt(sqrt(2 * n)), 1 / sqrt(sqrt(8 * n))
    for constants in (deepnorm_constants(encoder_layers=n).encoder, deepnorm_constants(decoder_layers=n).decoder):
        assert constants is not None
        assert constants.alpha == pytest.approx(alpha, rel=1e-12)
        assert constants.beta == pytest.approx(beta, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (12, 3), (3, 12), (500, 500), (1, 1), (18, 100)])
def test_encoder_decoder(n: int, m: int) -> None:
    constants = deepnorm_constants(encoder_layers=n, decoder_layers=m)
    assert constants.encoder is not None
    assert constants.decoder is not None
    root = exp((4 * log(n) + log(m)) / 16)
    assert constants.encoder.alpha == pytest.approx(0.81 * root, rel=1e-12)
    assert constants.encoder.beta == pytest.approx(0.87 / root, rel=1e-12)
    assert constants.decoder.alpha == pytest.approx(sqrt(sqrt(3 * m)), rel=1e-12)
    assert constants.decoder.beta == pytest.approx(1 / sqrt(sqrt(12 * m)), rel=1e-12)


def test_values_worked_by_hand() -> None:
    # (12, 3): 12⁴·3 = 62,208; its 16th root is 1.99350. (3·3)^(1/4) = √3, (12·3)^(-1/4) = 1/√6.
    constants = deepnorm_constants(12, 3)
    assert constants.encoder == StackConstants(pytest.approx(1.6147, abs=5e-5), pytest.approx(0.4364, abs=5e-5))
    assert constants.decoder == StackConstants(pytest.approx(sqrt(3)), pytest.approx(1 / sqrt(6)))


@pytest.mark.parametrize("n", [7, 300])
def test_the_condition_that_the_constants_solve(n: int) -> None:
    single = deepnorm_constants(decoder_layers=n).decoder
    assert single is not None
    assert 2 * n * 2 * single.beta**2 / single.alpha**2 == pytest.approx(1, rel=1e-12)
    pair = deepnorm_constants(encoder_layers=n, decoder_layers=2 * n)
    assert pair.encoder is not None
    assert pair.decoder is not None
    assert 3 * 2 * n * 2 * pair.decoder.beta**2 / pair.decoder.alpha**2 == pytest.approx(1, rel=1e-12)
    rounded = (n**4 * 2 * n / 27) ** 0.25 * 2 * pair.encoder.beta**2 / pair.encoder.alpha**2
    assert rounded == pytest.approx(1.012, abs=1e-3)  # the price of 0.81 and 0.87


def test_a_stack_that_is_not_there_is_none() -> None:
    assert deepnorm_constants(encoder_layers=3).decoder is None
    assert deepnorm_constants(decoder_layers=np.int64(3)) == deepnorm_constants(0, 3)
    assert isinstance(deepnorm_constants(0, 3), DeepNormConstants)


@pytest.mark.parametrize("bad", [-1, 1.5, 12.0, "12", None, True])
def test_bad_depths_are_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="decoder_layers=.*whole number of layers, 0 or more"):
        deepnorm_constants(decoder_layers=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="encoder_layers="):
        deepnorm_constants(encoder_layers=bad, decoder_layers=2)  # type: ignore[arg-type]


def test_no_layers_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"both 0.*deepnorm_constants\(decoder_layers=12\)"):
        deepnorm_constants()


def test_needs_no_torch() -> None:
    use = "from deepnet_edu import deepnorm_constants; deepnorm_constants(1)"
    subprocess.run([sys.executable, "-c", f"import sys; {use}; assert 'torch' not in sys.modules"], check=True)
