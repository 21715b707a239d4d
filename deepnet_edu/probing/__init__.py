"""Measurements on a real model, sub-layer by sub-layer, that leave the model as it was."""

from deepnet_edu.probing.ablation import layer_harm, without_layers
from deepnet_edu.probing.mixing import composite_gain, depth_mixing
from deepnet_edu.probing.sweep import SweepRow, depth_sweep, judge_sweep, slope
from deepnet_edu.probing.update import Step, UpdateGroup, model_update, update_group
from deepnet_edu.probing.watch import Watch, input_share, input_similarity, probe, token_similarity

__all__ = [
    "Step",
    "SweepRow",
    "UpdateGroup",
    "Watch",
    "composite_gain",
    "depth_mixing",
    "depth_sweep",
    "input_share",
    "input_similarity",
    "judge_sweep",
    "layer_harm",
    "model_update",
    "probe",
    "slope",
    "token_similarity",
    "update_group",
    "without_layers",
]
