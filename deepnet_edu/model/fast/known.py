"""What the fast path knows, for planning: sizes, and rules by what they say. Needs no PyTorch."""

from deepnet_edu.residual import RESIDUALS, Residual, Scheduled, Signal, StackName, place_at, sublayer_kinds

#: The longest sequence, and the sizes of a head that native.c knows, where all widths are multiples of 8. Longer
#: sequences are better served by PyTorch's attention, which keeps no weights.
LONGEST, HEAD_DIMS, MULTIPLE = 128, (8, 16, 32, 64), 8


def why_unknown(rule: Residual, signal: Signal | None) -> str:
    """What a rule that says this of itself does beyond the fast path, a clause; empty if nothing."""
    if isinstance(rule, Scheduled):
        return "whose numbers follow the step of training"
    if signal is None:
        return "which has no signal()"
    if signal.norm_value or signal.norm_inside or signal.norm_branch or signal.read != 1:
        return "which does more than norm and add"
    if signal.norm_sum == signal.norm_read or signal.norm_sum == signal.norm_finish:
        return "whose norms are in other places than Post-LN's and Pre-LN's"
    return ""


def knows(residual: str, encoder_layers: int, decoder_layers: int) -> bool:
    """Whether the fast path can compute the layers of a model with this rule, as it is built."""
    kind = RESIDUALS.get(residual)
    if kind is None or kind.norms is None or not (kind.says("norms") and kind.says("signal")):
        return False  # it learns, or computes, something else
    stacks: dict[StackName, int] = {"encoder": encoder_layers, "decoder": decoder_layers}
    forms = set()
    for stack, layers in stacks.items():
        for index in (0, len(sublayer_kinds(stack, encoder_layers)) * layers - 1) if layers else ():
            rule = kind.at(place_at(index, stack, encoder_layers, decoder_layers))
            signal = rule.signal()
            if signal is None or why_unknown(rule, signal):
                return False
            forms.add(signal.norm_sum)
    return len(forms) == 1
