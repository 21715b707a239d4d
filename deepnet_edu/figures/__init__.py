"""Pictures: pure functions from records to matplotlib figures."""

from deepnet_edu.figures.curves import theory_and_measurement
from deepnet_edu.figures.picture import Picture
from deepnet_edu.figures.schematic import residual_blocks
from deepnet_edu.figures.training import learning_rate_grid, recorded_curves, training_race

__all__ = [
    "Picture",
    "learning_rate_grid",
    "recorded_curves",
    "residual_blocks",
    "theory_and_measurement",
    "training_race",
]
