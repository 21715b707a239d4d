"""Pictures: pure functions from records to matplotlib figures."""

from deepnet_edu.figures.curves import against_depth, growth_against_depth, theory_and_measurement
from deepnet_edu.figures.mixing import mixing_matrices
from deepnet_edu.figures.picture import Picture
from deepnet_edu.figures.schematic import residual_blocks
from deepnet_edu.figures.training import learning_rate_grid, loss_curves, recorded_curves, training_race

__all__ = [
    "Picture",
    "against_depth",
    "growth_against_depth",
    "learning_rate_grid",
    "loss_curves",
    "mixing_matrices",
    "recorded_curves",
    "residual_blocks",
    "theory_and_measurement",
    "training_race",
]
