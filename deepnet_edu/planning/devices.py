"""What a device could do at most: the peak of its dense matrix products."""

import re

from deepnet_edu.fields import checked

#: Floating point operations a second by the names that PyTorch reports, from the vendors' data sheets; dense, never
#: with sparsity. Other models of the same family, such as H100 PCIe, have other peaks.
_HALF = ("bf16", "fp16")
_PEAKS: tuple[tuple[str, tuple[str, ...], float], ...] = (
    (r"V100.SXM2", ("fp16",), 125.3e12),  # it has no bfloat16
    (r"A100", _HALF, 312e12),
    (r"H100 (SXM|80GB HBM3)", _HALF, 989e12),
    (r"\bH200\b(?! NVL)", _HALF, 989e12),
    (r"\bB200\b", _HALF, 2250e12),
    (r"MI300X", _HALF, 1307e12),
    (r"RTX 4090$", _HALF, 165.2e12),
)


@checked()
def peak_of(device_name: str, precision: str) -> float | None:
    """Floating point operations a second that a device can do at most, for model FLOPs utilisation.

    Args:
        device_name: as ``torch.cuda.get_device_name()`` has it.
        precision: of the products: ``"bf16"``, ``"fp16"``, or another, whose peaks are not known.

    Returns:
        The dense peak, or None where nobody has looked it up: then measure it.
    """
    for pattern, precisions, peak in _PEAKS:
        if re.search(pattern, device_name) and precision in precisions:
            return peak
    return None
