"""Pictures: pure functions from records to matplotlib figures."""

from deepnet_edu.figures.picture import Picture
from deepnet_edu.figures.schematic import residual_blocks
from deepnet_edu.figures.training import learning_rate_grid, recorded_curves, training_race

__all__ = ["Picture", "learning_rate_grid", "recorded_curves", "residual_blocks", "training_race"]
