"""Predictions with their assumptions: of one component, of a stack, of gradients and updates. NumPy only."""

from deepnet_edu.theory.backward import attention_backward
from deepnet_edu.theory.bounds import (
    encoder_condition,
    encoder_decoder_update_bound,
    fixed_step_update_sum,
    last_ffn_gradient_bound,
    post_ln_gradient_decay,
    sgd_update_sum,
    update_bound,
)
from deepnet_edu.theory.mixing import mixing_matrix
from deepnet_edu.theory.moments import (
    Moments,
    activation_correlation,
    attention_backward_factor,
    attention_forward_moments,
    attention_moments,
    attention_weights,
    layer_norm_jacobian,
    layer_norm_moments,
    linear_moments,
    relu_ffn_correlation,
    relu_moments,
    softmax_variance,
)
from deepnet_edu.theory.prediction import predict
from deepnet_edu.theory.recursion import (
    deepnorm_input_share,
    input_share,
    layernorm_scaling_variance,
    post_ln_gradient_factors,
    pre_ln_variance,
    similarity_step,
    variance_by_depth,
)

__all__ = [
    "Moments",
    "activation_correlation",
    "attention_backward",
    "attention_backward_factor",
    "attention_forward_moments",
    "attention_moments",
    "attention_weights",
    "deepnorm_input_share",
    "encoder_condition",
    "encoder_decoder_update_bound",
    "fixed_step_update_sum",
    "input_share",
    "last_ffn_gradient_bound",
    "layer_norm_jacobian",
    "layer_norm_moments",
    "layernorm_scaling_variance",
    "linear_moments",
    "mixing_matrix",
    "post_ln_gradient_decay",
    "post_ln_gradient_factors",
    "pre_ln_variance",
    "predict",
    "relu_ffn_correlation",
    "relu_moments",
    "sgd_update_sum",
    "similarity_step",
    "softmax_variance",
    "update_bound",
    "variance_by_depth",
]
