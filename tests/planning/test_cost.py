"""Days, money and energy against published runs, the lesson's own sums, and records."""

import json
from pathlib import Path
from typing import Any

import pytest

from deepnet_edu.messages import UserError
from deepnet_edu.planning import (
    GPUS,
    PUBLISHED,
    SHAPES,
    UTILISATIONS,
    Span,
    find_gpu,
    flops_per_token,
    peak_of,
    price_of,
    sending_seconds,
    training_days,
    training_energy,
    training_flops,
    training_money,
    utilisation_of,
)
from tests.rules import small_config

ROOT = Path(__file__).resolve().parents[2]
LLAMA, A100 = PUBLISHED["llama-65b"].config, GPUS["a100-80gb"]


def exactly(share: float) -> Span:
    return Span(share, share, "given")


@pytest.mark.parametrize("name", ["small_1000", "deepnet_1000"])
def test_operations_of_a_run_are_those_of_its_tokens(name: str) -> None:
    config = SHAPES[name]
    parts = training_flops(config, 1e9, 64)
    assert sum(parts.values()) == pytest.approx(1e9 * flops_per_token(config, 64), rel=1e-12)  # type: ignore[operator]


def test_operations_by_hand() -> None:
    """6 times the weights that a token passes, and 6·L·d·(T + 1) of attention."""
    d, L, V, T = 4096, 32, 32_000, 2048
    parts = training_flops(PUBLISHED["llama-7b"].config, 1.0, T)
    assert parts["branches"] == 6 * L * (4 * d * d + 3 * d * 11_008)
    assert parts["attention"] == 6 * L * d * (T + 1)
    assert parts["head"] == 6 * V * d
    grouped = training_flops(PUBLISHED["llama2-70b"].config, 1.0, T)["branches"]
    assert grouped == 6 * 80 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28_672)


def test_the_papers_run() -> None:
    """102 languages: 4.81e21 operations are 11.6 days on 128 V100 at 30%, 3.5 on 128 A100 at 40%."""
    flops = 6 * 2_939_289_600 * 260_000 * 256 * 4096
    days = training_days(flops, GPUS["v100"], 128, exactly(0.3))
    assert days.low == days.high == pytest.approx(11.57, abs=0.005)
    assert training_days(flops, A100, 128, exactly(0.4)).low == pytest.approx(3.48, abs=0.005)
    assert training_money(days, 128, Span(5000 / 24 / 128, 5000 / 24 / 128, "")).low == pytest.approx(57_828, rel=1e-3)


def test_llama_65b() -> None:
    """1.4e12 tokens on 2,048 A100 took about 21 days and 449 MWh at 400 W and 1.1 (arXiv 2302.13971)."""
    flops = sum(training_flops(LLAMA, 1.4e12).values())
    measured = 380 * flops / 1.4e12 / A100.peak
    assert measured == pytest.approx(next(one.share[0] for one in UTILISATIONS if "LLaMA" in one.what), abs=5e-4)
    days = training_days(flops, A100, 2048, exactly(measured))
    assert days.low == pytest.approx(21, abs=0.5)
    assert training_energy(days, 2048, A100).low / 1000 == pytest.approx(449, rel=0.01)
    span = training_days(flops, A100, 2048, utilisation_of(LLAMA))
    assert span.low < 21 < span.high


def test_measured_shares_are_those_of_the_record() -> None:
    cases = json.loads((ROOT / "benchmarks/results/gpu_depth.json").read_text(encoding="utf-8"))["cases"]
    for case, told in zip("ab", UTILISATIONS[:2], strict=True):
        best = max(row.get("model FLOPs utilisation", 0) for row in cases[case]["rows"])
        assert best * cases[case]["measured peak, TFLOP/s"] / 989 == pytest.approx(told.share[0], abs=5e-4)


def test_narrow_models_use_less_of_a_gpu() -> None:
    narrow, wide = utilisation_of(SHAPES["deepnet_1000"]), utilisation_of(LLAMA)
    assert (narrow.low, narrow.high) == (0.203, 0.46)
    assert (wide.low, wide.high) == (0.325, 0.485)
    assert "GLM-130B" in wide.rests_on
    assert "this library" in narrow.rests_on


def test_waiting_and_sending_make_the_high_end() -> None:
    plain = training_days(1e21, A100, 8, Span(0.3, 0.4, "x"))
    worse = training_days(1e21, A100, 8, Span(0.3, 0.4, "x"), bubble=0.25, sending=86_400)
    assert worse.low == plain.low
    assert worse.high == pytest.approx(1.25 * plain.high + 1)
    assert "a bubble of 25%" in worse.rests_on


def test_more_gpus_take_fewer_days_for_one_bill() -> None:
    price, bills = price_of(A100, 2.0), []
    for count in (8, 80):
        days = training_days(1e21, A100, count, exactly(0.4))
        bills.append((training_money(days, count, price).low, training_energy(days, count, A100).high))
    assert bills[0] == pytest.approx(bills[1])


def test_prices_have_a_date_or_are_asked_for() -> None:
    assert price_of(GPUS["h200"]).rests_on.startswith("2026-05, ")
    assert price_of(GPUS["b200"], 4.5).low == 4.5
    with pytest.raises(UserError, match=r"No price of B200 SXM was looked up: give yours, for example --price 2\.50"):
        price_of(GPUS["b200"])


def test_sending() -> None:
    """Within a machine by one direction of its own link, beyond by the network; PCIe has no number here."""
    assert sending_seconds(450e9, GPUS["h100"], 8) == 1
    assert sending_seconds(50e9, GPUS["h100"], 16) == 1
    assert sending_seconds(50e9, GPUS["rtx4090"], 2) is None
    assert sending_seconds(50e9, GPUS["rtx4090"], 2, link=25e9) == 2


def test_gpus() -> None:
    assert find_gpu("H200") is GPUS["h200"]
    with pytest.raises(UserError, match="Unknown GPU 'h20': did you mean 'h200'"):
        find_gpu("h20")
    assert peak_of("NVIDIA A100-SXM4-40GB", "bf16") == GPUS["a100-40gb"].peak
    for gpu in GPUS.values():
        assert gpu.best is None or 0.5 < gpu.best / gpu.peak < 1
        assert {*gpu.recalled} <= {*gpu.to_dict()}
        assert gpu.price is None or gpu.price.least < gpu.price.most


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: training_flops(small_config("deepnorm", "decoder"), -1.0), "tokens=-1.0: expected a number"),
        (lambda: training_flops(small_config("dlcl", "decoder"), 1.0), "'dlcl' has products of its own"),
        (lambda: training_flops(small_config("deepnorm", "decoder"), 1.0, -3), "length=-3"),
        (lambda: training_days(1e9, A100, 0, exactly(0.3)), "count=0"),
        (lambda: training_days(1e9, A100, 1, exactly(1.2)), "expected shares of the peak"),
        (lambda: price_of(A100, -2.0), r"price=-2\.0: expected a number"),
    ],
)
def test_bad_numbers(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
