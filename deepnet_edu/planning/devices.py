"""GPUs: what their data sheets say, what was measured, and what an hour of one costs."""

import re
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from deepnet_edu.fields import checked
from deepnet_edu.messages import UserError, unknown

_HALF = ("bf16", "fp16")


class Price(NamedTuple):
    """Dollars for an hour of one GPU, from the least to the most, when and where they were read."""

    least: float
    most: float
    date: str
    source: str


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        title: as it is sold.
        memory: bytes, 10⁹ to the GB that it is sold with.
        bandwidth: bytes a second of its memory.
        peak: floating point operations a second of dense products in bfloat16 or float16, never with sparsity.
        best: of the fastest product that was measured; None where none was.
        power: of the board, W.
        link: bytes a second to its neighbours, both directions together; None where there is only PCIe.
        price: of an hour; None where it was not looked up.
        source: of peak, power and memory.
        recalled: attributes that were not checked against any source.
        pattern: of the name that PyTorch reports. Others of the same family, such as H100 PCIe, have other numbers.
        precisions: that the peak is for.
    """

    title: str
    memory: float
    bandwidth: float
    peak: float
    best: float | None
    power: float
    link: float | None
    price: Price | None
    source: str
    recalled: tuple[str, ...]
    pattern: str
    precisions: tuple[str, ...] = _HALF

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = asdict(self)
        found["price"] = None if self.price is None else self.price._asdict()
        return {name: value for name, value in found.items() if name not in ("pattern", "precisions")}


_SHEETS = "vendors' specifications, as acecloud.ai and hmc-tech.com list them"
_MEASURED = "github.com/stas00/ml-engineering, compute/accelerator, read on 2026-08-22"
_LIST = "on-demand list prices of many providers, mercatus-ai.com/blog/cloud-gpu-pricing: one write-up, not checked"


def _price(least: float, most: float) -> Price:
    return Price(least, most, "2026-05", _LIST)


#: By the name to type.
GPUS: dict[str, Gpu] = {
    "v100": Gpu(
        "V100 SXM2 32GB", 32e9, 0.90e12, 125.3e12, None, 300, 300e9,
        Price(1.63, 3.06, "2022", "from $5,000 a day for 128, to AWS on demand; the second from memory"),
        _SHEETS, ("bandwidth", "link", "price"), r"V100.SXM2", ("fp16",),  # it has no bfloat16
    ),
    "a100-40gb": Gpu(
        "A100 40GB SXM", 40e9, 1.555e12, 312e12, 271e12, 400, 600e9, None, _MEASURED, (), r"A100.*40GB"
    ),
    "a100-80gb": Gpu(
        "A100 80GB SXM", 80e9, 2.039e12, 312e12, 271e12, 400, 600e9, _price(0.80, 3.00), _MEASURED, (), r"A100"
    ),
    "h100": Gpu(
        "H100 SXM", 80e9, 3.35e12, 989e12, 794.5e12, 700, 900e9, _price(1.99, 5.00), _MEASURED, (),
        r"H100 (SXM|80GB HBM3)",
    ),
    "h200": Gpu(
        "H200 SXM", 141e9, 4.8e12, 989e12, 794.5e12, 700, 900e9, _price(2.50, 7.00), _MEASURED, (),
        r"\bH200\b(?! NVL)",
    ),
    "b200": Gpu("B200 SXM", 180e9, 8.0e12, 2250e12, 1745e12, 1000, 1.8e12, None, _MEASURED, (), r"\bB200\b"),
    "mi300x": Gpu("MI300X", 192e9, 5.3e12, 1307e12, 668e12, 750, 896e9, None, _MEASURED, ("link",), r"MI300X"),
    "rtx4090": Gpu(
        "RTX 4090", 24e9, 1.008e12, 165.2e12, None, 450, None, None, _SHEETS, ("bandwidth", "power"), r"RTX 4090$"
    ),
}  # fmt: skip


@checked()
def find_gpu(given: str) -> Gpu:
    """The GPU of this name, whatever the case of its letters.

    Raises:
        UserError: there is none; the sentence names the nearest.
    """
    name = given.lower()
    if name not in GPUS:
        raise UserError(unknown("GPU", given, GPUS))
    return GPUS[name]


@checked()
def peak_of(device_name: str, precision: str) -> float | None:
    """Floating point operations a second that a device can do at most, for model FLOPs utilisation.

    Args:
        device_name: as ``torch.cuda.get_device_name()`` has it.
        precision: of the products: ``"bf16"``, ``"fp16"``, or another, whose peaks are not known.

    Returns:
        The dense peak, or None where it was not looked up: then measure it.
    """
    for gpu in GPUS.values():
        if re.search(gpu.pattern, device_name) and precision in gpu.precisions:
            return gpu.peak
    return None
