"""A run on paper: the plan that fits, or the smallest that does, and what it costs."""

from typing import Any

import pytest

from deepnet_edu.messages import UserError
from deepnet_edu.planning import GPUS, PUBLISHED, SHAPES, Estimate, estimate, rank_memory, rank_traffic, training_flops
from deepnet_edu.planning.proposal import SHARE

H200 = GPUS["h200"]


def run(name: str, gpu: str, count: int, tokens: float = 1e11, **more: Any) -> Estimate:
    return estimate(PUBLISHED[name].config, GPUS[gpu], count, tokens, **{"price": 2.5, **more})


def test_a_model_that_fits() -> None:
    found = run("deepnet-1000", "h200", 8)
    assert (found.parameters, found.count, found.fits) == (3_806_470_144, 8, True)
    assert found.plan.ranks == 8
    config = SHAPES["deepnet_1000"]
    settings = {"data": found.plan.data, "shard": found.plan.shard, "precision": "autocast"}
    ranks = rank_memory(
        config, found.sequences, found.length, **settings, checkpoint_every=found.checkpoint_every, device="cuda"
    )
    assert found.memory == max(rank.total for rank in ranks) <= SHARE * H200.memory
    assert found.sent == max(rank.total for rank in rank_traffic(config, found.sequences, found.length, **settings))
    assert found.flops == training_flops(config, 1e11, 256)
    assert found.money.low == pytest.approx(24 * 8 * 2.5 * found.days.low)
    assert found.money.high == pytest.approx(24 * 8 * 2.5 * found.days.high)
    assert found.energy.low == pytest.approx(24 * found.days.low * 8 * 0.7 * 1.1)
    ideal = sum(found.flops.values()) / (8 * 989e12) / 86_400
    assert found.days.low == pytest.approx(ideal / found.utilisation.high)
    steps = 1e11 / (found.sequences * 2 * 256)
    slow = ideal / found.utilisation.low + found.sent / 450e9 * steps / 86_400
    assert found.days.high == pytest.approx(slow)


def test_one_that_does_not_fit_gets_the_smallest_plan_that_does() -> None:
    found = run("llama3-8b", "h100", 1)
    assert not found.fits
    assert found.wanted == 1
    assert found.count > 1
    assert found.memory <= SHARE * GPUS["h100"].memory
    half = found.count // 2
    for every in (0, "auto", 1):  # half as many hold it by no plan of copies or shards, however small the batch
        ranks = rank_memory(
            PUBLISHED["llama3-8b"].config, half, 8192, shard=half, checkpoint_every=every, precision="autocast",
            device="cuda",
        )  # fmt: skip
        assert max(rank.total for rank in ranks) > SHARE * GPUS["h100"].memory


def test_one_that_fits_on_no_number() -> None:
    with pytest.raises(
        UserError, match=r"fits on no number of RTX 4090 by copies, shards and stages: .* needs [\d.]+ GB"
    ):
        run("llama3-405b", "rtx4090", 8)


def test_what_is_given_counts() -> None:
    found = run("gpt2-small", "h100", 4, 1e10, utilisation=0.4, sequences=32, length=512)
    assert (found.sequences, found.length) == (32, 512)
    assert found.utilisation.low == found.utilisation.high == 0.4
    slower = run("gpt2-small", "h100", 4, 1e10, utilisation=0.4, sequences=32, length=512, link=1e9)
    assert slower.days.low == found.days.low
    assert slower.days.high > found.days.high
    assert run("gpt2-small", "rtx4090", 4, 1e10).sending is None
    plain = found.to_dict()
    assert plain["plan"] == found.plan.title
    assert set(plain["days"]) == {"low", "high", "rests_on"}


@pytest.mark.parametrize("given", [{"price": -1.0}, {"utilisation": 0.0}, {"sequences": -1}])
def test_bad_numbers(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(given))}=.*expected a number"):
        run("gpt2-small", "h100", 1, 1e9, **given)
