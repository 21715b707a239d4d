"""The picture of depth mixing: its shades are the matrix, and its words say what the output is made of."""

import numpy as np
import pytest

from deepnet_edu.figures import mixing_matrices
from deepnet_edu.figures.mixing import MixingFigure, MixingView
from deepnet_edu.model import ModelConfig
from deepnet_edu.profiles import DepthMixing
from deepnet_edu.theory import mixing_matrix


def matrix(residual: str) -> DepthMixing:
    sizes = {"d_model": 32, "n_heads": 2, "d_ff": 64, "vocab_size": 10}
    return mixing_matrix(ModelConfig("decoder", "lm", 12, residual=residual, **sizes), 16)  # type: ignore[arg-type]


def test_each_matrix_has_a_panel_with_its_shades() -> None:
    matrices = [matrix(residual) for residual in ("pre_ln", "post_ln", "deepnorm")]
    figure = mixing_matrices(matrices, columns=2)
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in panels] == [one.label for one in matrices]
    assert np.array_equal(panels[0].images[0].get_array(), np.tril(np.ones((25, 25))))
    shares = mixing_matrices(matrices, "shares").axes[2].images[0].get_array()
    assert np.array_equal(shares, matrices[2].shares)


def test_one_matrix_says_what_the_output_is_made_of() -> None:
    found = matrix("deepnorm")
    figure = MixingFigure().show(MixingView("DeepNorm, 12 layers", "said", "theory", found, "weights"))
    assert np.array_equal(figure.axes[2].lines[0].get_ydata(), found.shares[-1])


def test_bad_input_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="no matrix to draw"):
        mixing_matrices([])
    with pytest.raises(ValueError, match="did you mean 'shares'"):
        mixing_matrices([matrix("pre_ln")], "share")  # type: ignore[arg-type]
