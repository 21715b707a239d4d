"""What a training run costs: days, money and energy, each as a range that says what it rests on.

Arithmetic on the operations of :func:`~deepnet_edu.planning.training_flops` and on what
:mod:`~deepnet_edu.planning.devices` knows of GPUs. What no arithmetic gives, the share of a GPU's peak that a run uses,
is taken from runs that were measured.
"""

from dataclasses import asdict, dataclass
from typing import Any

from deepnet_edu.fields import Count, NotNegative, Positive, checked
from deepnet_edu.messages import UserError
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.planning.devices import Gpu

HOUR, DAY = 3600, 86_400


@dataclass(frozen=True)
class Span:
    """A range from ``low`` to ``high``, and what it rests on, a phrase."""

    low: float
    high: float
    rests_on: str

    def times(self, factor: float) -> "Span":
        """The same, each end times a factor."""
        return Span(self.low * factor, self.high * factor, self.rests_on)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Utilisation:
    """A run whose model FLOPs utilisation is known: of dense half-precision peak, recomputation not counted.

    Attributes:
        what: the run.
        width: d_model.
        share: of the peak, least and most.
        source: of the number.
    """

    what: str
    width: int
    share: tuple[float, float]
    source: str


_GPU_DEPTH = "benchmarks/results/gpu_depth.json"
UTILISATIONS = (
    Utilisation("500 + 500 layers of width 512 on one H200, this library", 512, (0.203, 0.203), _GPU_DEPTH),
    Utilisation("a decoder of 1,000 layers of width 512 on one H200, this library", 512, (0.232, 0.232), _GPU_DEPTH),
    Utilisation("language models of width 768 and 1,152 on H100", 1152, (0.41, 0.46), "published, no recomputation"),
    Utilisation("GLM-130B on 768 A100", 12_288, (0.325, 0.325), "arXiv 2210.02414"),
    Utilisation("Llama 3 405B on up to 16,384 H100", 16_384, (0.38, 0.43), "arXiv 2407.21783, through other texts"),
    Utilisation(
        "LLaMA 65B on 2,048 A100, from 380 tokens a second and GPU",
        8192,
        (0.485, 0.485),
        "arXiv 2302.13971, Section 2.4, through a copy",
    ),
)
#: Up to this width a model counts as narrow: its products are small, and the rest of a layer weighs more.
NARROW = 1152
#: Watts drawn for each watt of the boards' rated power. Both from memory: LLaMA's authors count 1.1 for the building
#: alone (arXiv 2302.13971, Section 6); a DGX H100 is rated at 10.2 kW for eight boards of 700 W.
OVERHEAD = (1.1, 1.8)
#: GPUs of one machine, which their own link connects; beyond, bytes a second of a 400 Gb/s port for each GPU (assumed).
MACHINE, NETWORK = 8, 50e9


@checked()
def utilisation_of(config: ModelConfig) -> Span:
    """The share of the peak that a run of this width may use, by those that were measured: narrow ones, or wide ones.

    Args:
        config: any.
    """
    narrow = config.d_model <= NARROW
    known = [one for one in UTILISATIONS if (one.width <= NARROW) == narrow]
    told = "; ".join(f"{one.what} ({one.source})" for one in known)
    return Span(min(one.share[0] for one in known), max(one.share[1] for one in known), f"measured: {told}")


@checked()
def training_days(
    flops: Positive, gpu: Gpu, count: Count, utilisation: Span, bubble: NotNegative = 0.0, sending: NotNegative = 0.0
) -> Span:
    """Days of a run: its operations over what the GPUs do in a second.

    days = flops/(count·peak·utilisation)/86,400; the high end has the low utilisation, and the time that ranks wait and
    send besides, none of it hidden.

    Args:
        flops: of the run, as :func:`training_flops` counts them.
        gpu: whose dense peak counts.
        count: of GPUs.
        utilisation: shares of the peak, more than 0 and at most 1.
        bubble: time that a rank of a pipeline waits, over the time that it works.
        sending: seconds of the run that a rank sends.

    Raises:
        ValueError: the utilisation is not a share.
    """
    if not 0 < utilisation.low <= utilisation.high <= 1:
        raise ValueError(
            f"utilisation from {utilisation.low:g} to {utilisation.high:g}: expected shares of the peak, more than 0 "
            "and at most 1."
        )
    ideal = flops / (count * gpu.peak) / DAY
    rests = f"6N and attention a token, {gpu.peak / 1e12:,.0f} TFLOP/s dense of {gpu.title} ({gpu.source})"
    more = [f"{utilisation.low:.0%} to {utilisation.high:.0%} of that, {utilisation.rests_on}"]
    if bubble:
        more.append(f"at the high end a bubble of {bubble:.0%}")
    if sending:
        more.append(f"at the high end {sending / DAY:.2g} days of sending that no work hides")
    slow = ideal / utilisation.low * (1 + bubble) + sending / DAY
    return Span(ideal / utilisation.high, slow, "; ".join([rests, *more]))


@checked()
def price_of(gpu: Gpu, price: Positive | None = None) -> Span:
    """Dollars for an hour of one GPU: what was given, else the range that was read, with its date.

    Raises:
        UserError: nothing was given, and no price is known.
    """
    if price is not None:
        return Span(price, price, "the price that was given")
    if gpu.price is None:
        raise UserError(f"No price of {gpu.title} was looked up: give yours, for example --price 2.50.")
    return Span(gpu.price.least, gpu.price.most, f"{gpu.price.date}, {gpu.price.source}")


@checked()
def training_money(days: Span, count: Count, price: Span) -> Span:
    """Dollars: all GPUs are paid for all hours. More of them take fewer days for the same bill.

    Args:
        days: of the run.
        count: of GPUs.
        price: dollars for an hour of one.
    """
    hours = 24 * count
    return Span(
        days.low * hours * price.low, days.high * hours * price.high, f"{count:,} GPUs for those days; {price.rests_on}"
    )


@checked()
def training_energy(days: Span, count: Count, gpu: Gpu) -> Span:
    """Kilowatt-hours: the boards at their rated power, and what machine and building draw with them.

    Args:
        days: of the run.
        count: of GPUs.
        gpu: whose power counts.
    """
    least, most = OVERHEAD
    watts = count * gpu.power / 1000
    return Span(
        24 * days.low * watts * least,
        24 * days.high * watts * most,
        f"{gpu.power:.0f} W a board ({gpu.source}), times {least} (cooling and supply, arXiv 2302.13971) to {most} (a "
        "DGX H100's 10.2 kW for eight of 700 W), both from memory",
    )


@checked()
def sending_seconds(bytes_sent: NotNegative, gpu: Gpu, count: Count, link: Positive | None = None) -> float | None:
    """Seconds that a rank takes to send this many bytes, with nothing hidden behind work.

    Args:
        bytes_sent: by the rank, as :func:`rank_traffic` counts them.
        gpu: whose link counts within a machine of eight: one direction, half of what data sheets state.
        count: of GPUs; of more than eight the network between machines counts.
        link: bytes a second of one direction, if known.

    Returns:
        None where there is no number for the link.
    """
    if link is None:
        link = NETWORK if count > MACHINE else gpu.link and gpu.link / 2
    return None if link is None else bytes_sent / link
