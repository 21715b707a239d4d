"""Plans on paper: schedules against PyTorch's own, the bubble, what each rank holds and sends, the plan proposed."""

import re
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.pipelining import Schedule1F1B, ScheduleInterleaved1F1B

from deepnet_edu.messages import UserError
from deepnet_edu.model import build_empty
from deepnet_edu.planning import (
    SHAPES,
    Plan,
    bubble,
    count_parameters,
    in_time,
    length,
    rank_memory,
    rank_order,
    rank_traffic,
    stage_layers,
    timeline,
    training_memory,
)
from deepnet_edu.planning.pipeline import Action, most_at_once
from deepnet_edu.training.distributed.stages import runs
from tests.rules import small_config

ROOT = Path(__file__).parents[2]
DECODER = SHAPES["small_1000"]
BOTH = SHAPES["deepnet_200_opus"]
PIPELINES = [
    (schedule, p, m) for schedule in ("gpipe", "1f1b", "interleaved") for p in (1, 2, 3, 4) for m in (p, 4 * p)
]


# --- schedules


def of_pytorch(schedule: str, rank: int, ranks: int, microbatches: int) -> list[Action]:
    """The same by the schedules that train, without any process."""
    if schedule == "1f1b":
        single = object.__new__(Schedule1F1B)
        single._num_stages, single._n_microbatches = ranks, microbatches
        found = single._get_pipeline_order()[rank]
    else:
        many = object.__new__(ScheduleInterleaved1F1B)
        many.n_local_stages, many.microbatches_per_round, many.pp_group_size, many._n_microbatches = (
            2,
            ranks,
            ranks,
            microbatches,
        )
        found = many._calculate_single_rank_operations(rank)
    names = {"FORWARD": False, "FULL_BACKWARD": True}
    return [
        Action(names[one.computation_type.name], one.stage_index, one.microbatch_index)
        for one in found
        if one is not None and one.computation_type.name in names
    ]


@pytest.mark.parametrize(("schedule", "ranks", "microbatches"), [row for row in PIPELINES if row[0] != "gpipe"])
def test_orders_are_those_of_the_schedules_that_train(schedule: str, ranks: int, microbatches: int) -> None:
    # What PyTorch prints for the last rank of 1f1b counts micro-batches from 1; it works on them from 0 all the same.
    for rank in range(ranks - (schedule == "1f1b")):
        assert rank_order(schedule, rank, ranks, microbatches) == of_pytorch(schedule, rank, ranks, microbatches)


@pytest.mark.parametrize(("schedule", "ranks", "microbatches"), PIPELINES)
def test_a_timeline_obeys_its_needs_and_waits_as_the_formula_says(schedule: str, ranks: int, microbatches: int) -> None:
    slots = timeline(schedule, ranks, microbatches)
    ended = {slot.action: slot.end for slot in slots}
    stages = 1 + max(slot.action.stage for slot in slots)
    assert len(ended) == len(slots) == 2 * stages * microbatches
    for rank, (backward, stage, piece), start, _ in slots:
        assert rank == stage % ranks
        below = Action(False, stage - 1, piece) if not backward and stage else None
        above = Action(True, stage + 1, piece) if backward and stage + 1 < stages else None
        for needed in (below, above, Action(False, stage, piece) if backward else None):
            assert needed is None or ended[needed] <= start
    for one, other in pairwise(slots):
        assert one.rank != other.rank or one.end <= other.start
    assert length(slots) == pytest.approx(3 * microbatches * (1 + bubble(schedule, ranks, microbatches)))


def test_one_forward_one_backward_keeps_few_and_waits_as_long() -> None:
    assert [most_at_once(rank_order("gpipe", rank, 4, 16)) for rank in range(4)] == [16] * 4
    assert [most_at_once(rank_order("1f1b", rank, 4, 16)) for rank in range(4)] == [4, 3, 2, 1]
    assert bubble("gpipe", 4, 16) == bubble("1f1b", 4, 16) == 3 / 16 == 2 * bubble("interleaved", 4, 16)


def test_stages_are_runs_of_nearly_the_same_length() -> None:
    assert [len(run) for run in stage_layers(11, 4)] == [3, 3, 2, 3]
    assert [layer for run in stage_layers(11, 4) for layer in run] == list(range(11))
    with pytest.raises(ValueError, match="expected 1 to 3"):
        stage_layers(3, 4)


@pytest.mark.parametrize(("layers", "stages"), [(11, 4), (6, 4), (1000, 12), (5, 5), (7, 1)])
def test_stages_are_those_that_train(layers: int, stages: int) -> None:
    cut = runs(replace(DECODER, decoder_layers=layers), stages)
    assert [range(held[0].first, held[-1].last) for held in cut] == stage_layers(layers, stages)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("1f1", 0, 2, 4), "did you mean '1f1b'"),
        (("1f1b", 2, 2, 4), "rank=2: expected 0 to 1"),
        (("1f1b", 0, 2, 0), "expected 1 or more"),
        (("interleaved", 0, 4, 6), "expected a multiple of 4"),
    ],
)
def test_what_no_schedule_knows_is_refused(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rank_order(*given)


def test_orders_in_which_all_wait_are_refused() -> None:
    forward, backward = Action(False, 0, 0), Action(True, 0, 0)
    with pytest.raises(ValueError, match="wait for each other"):
        in_time([[backward, forward], [Action(False, 1, 0), Action(True, 1, 0)]])


# --- memory


@pytest.mark.parametrize("how", [{}, {"checkpoint_every": 8}, {"device": "cuda", "precision": "autocast"}])
@pytest.mark.parametrize("name", SHAPES)
def test_one_rank_is_one_device(name: str, how: dict[str, Any]) -> None:
    (rank,) = rank_memory(SHAPES[name], 8, 32, **how)
    whole = training_memory(SHAPES[name], 8, 32, **how)
    for part in ("parameters", "weights", "gradients", "optimizer", "activations", "temporaries", "objects", "total"):
        assert getattr(rank, part) == getattr(whole, part), part


@pytest.mark.parametrize("config", [DECODER, BOTH, replace(BOTH, shared_embeddings=False, encoder_layers=7)])
@pytest.mark.parametrize("schedule", ["1f1b", "interleaved"])
def test_every_parameter_lies_on_some_stage(config: Any, schedule: str) -> None:
    """Once; only a matrix that embeddings and head share is on each rank that uses it."""
    ranks = rank_memory(config, 16, 32, pipeline=4, schedule=schedule)
    held, parameters = sum(rank.parameters for rank in ranks), count_parameters(config)["all"]
    table = config.vocab_size * config.d_model
    assert held == parameters + (config.shared_embeddings and (held - parameters) // table * table)
    assert held - parameters <= 2 * table
    assert max(rank.parameters for rank in ranks) < parameters / 2


@pytest.mark.parametrize("residual", ["deepnorm", "pre_ln", "resi_dual", "dlcl"])
def test_parameters_of_stages_are_those_of_their_layers(residual: str) -> None:
    config = replace(small_config(residual, "decoder"), decoder_layers=6)
    with torch.device("meta"):
        model = build_empty(config)
    layers = [sum(p.numel() for p in layer.parameters()) for layer in model.stacks()["decoder"].layers]
    ranks = rank_memory(config, 12, 8, pipeline=3)
    inner = ranks[1].parameters
    assert inner == pytest.approx(sum(layers[2:4]), rel=0.02)


def test_shards_divide_what_lasts_and_copies_divide_activations_alone() -> None:
    (one,), (copy,), (shard,) = (
        rank_memory(DECODER, 16, 64, **how) for how in ({"data": 1}, {"data": 4}, {"shard": 4})
    )
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(copy, part) == getattr(one, part) == pytest.approx(4 * getattr(shard, part), abs=4)
    assert copy.activations == one.activations / 4
    assert copy.temporaries - training_memory(DECODER, 4, 64).temporaries == copy.gradients  # DDP's buckets
    plain = training_memory(DECODER, 4, 64, path="plain")
    assert shard.activations == plain.activations
    layer, ends = count_parameters(DECODER)["decoder"] // 1000, count_parameters(DECODER)["ends"]
    assert shard.temporaries - plain.temporaries == 4 * (3 * layer + 2 * ends)


def test_a_stage_keeps_as_many_micro_batches_as_its_schedule() -> None:
    def activations(schedule: str) -> list[int]:
        return [
            rank.activations for rank in rank_memory(DECODER, 32, 64, pipeline=4, schedule=schedule, microbatches=16)
        ]

    gpipe, one, interleaved = activations("gpipe"), activations("1f1b"), activations("interleaved")
    for rank in (1, 2):
        assert one[rank] == gpipe[rank] * (4 - rank) // 16
        assert interleaved[rank] == pytest.approx(gpipe[rank] / 2 * (11 - 2 * rank) / 16, rel=0.01)
    whole = training_memory(DECODER, 32, 64, path="plain").activations
    assert sum(gpipe) == pytest.approx(whole, rel=0.02)


def test_with_checkpoints_a_stage_keeps_states_and_computes_one_group_again() -> None:
    few, many = (
        rank_memory(DECODER, n, 64, pipeline=4, schedule="gpipe", microbatches=n, checkpoint_every=10)[1].activations
        for n in (8, 16)
    )
    states = 25 * 64 * DECODER.d_model * 4  # of 250 layers
    crossing = 64 * DECODER.d_model * 4
    assert many - few == 8 * (states + crossing)
    group = rank_memory(DECODER, 4, 64, pipeline=4, microbatches=4)[3]
    assert 0 < few - 8 * (states + crossing) < group.activations


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"data": 3}, "expected a multiple of 3 × 1"),
        ({"pipeline": 4, "microbatches": 5}, "expected a multiple of 1 × 5"),
        ({"pipeline": 0}, "pipeline=0: expected a whole number"),
        ({"pipeline": 2, "schedule": "zero"}, "Unknown schedule"),
    ],
)
@pytest.mark.parametrize("function", [rank_memory, rank_traffic])
def test_what_cannot_be_cut_is_refused(function: Any, how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        function(DECODER, 16, 64, **how)


# --- traffic


def test_traffic_by_closed_forms() -> None:
    size = 4 * count_parameters(DECODER)["all"]
    (copy,), (shard,) = rank_traffic(DECODER, 16, 64, data=4), rank_traffic(DECODER, 16, 64, shard=4)
    assert copy.total == copy.gradients == 2 * 3 * size // 4
    layers = 4 * count_parameters(DECODER)["decoder"]
    assert shard.total == 3 * (2 * size + layers) // 4
    assert rank_traffic(DECODER, 16, 64)[0].total == 0
    stream = 16 * 64 * 64 * 4
    assert [rank.total for rank in rank_traffic(DECODER, 16, 64, pipeline=4)] == [
        stream,
        2 * stream,
        2 * stream,
        stream,
    ]
    twice = rank_traffic(DECODER, 16, 64, pipeline=4, schedule="interleaved")
    assert [rank.stream for rank in twice] == [3 * stream, 4 * stream, 4 * stream, 3 * stream]
    pair = rank_traffic(DECODER, 16, 64, pipeline=2, data=2)
    assert [rank.stream for rank in pair] == [stream // 2] * 2
    assert sum(rank.gradients for rank in pair) == size
    both = rank_traffic(DECODER, 16, 64, pipeline=2, shard=2)
    assert sum(rank.gradients + rank.weights for rank in both) == size


def test_all_streams_of_a_rule_cross_and_the_encoders_output_too() -> None:
    def crossing(config: Any) -> list[int]:
        return [rank.stream for rank in rank_traffic(config, 8, 16, source_tokens=4, pipeline=4)]

    plain = replace(small_config("deepnorm", "encoder_decoder"), encoder_layers=2, decoder_layers=2)
    row = 4 * 8 * plain.d_model  # bytes of one position of all sequences
    # encoder | encoder → its output | decoder, and the encoder's output
    assert crossing(plain) == [4 * row, 8 * row, (4 + 20) * row, 20 * row]
    assert crossing(replace(plain, residual="resi_dual")) == [8 * row, 12 * row, (4 + 36) * row, 36 * row]


# --- the plan proposed


@pytest.mark.parametrize(
    ("name", "gpus", "gigabytes", "how", "plan", "why"),
    [
        ("small_1000", 1, 80, {}, Plan(), "One GPU holds it"),
        ("small_1000", 8, 80, {}, Plan(data=8), "Copies fit"),
        ("deepnet_200_opus", 8, 40, {"checkpoint_every": "auto"}, Plan(data=8), "its gradients alone"),
        ("deepnet_1000", 16, 24, {"checkpoint_every": "auto"}, Plan(shard=16), "A copy needs 80.9 GB"),
        ("deepnet_1000", 8, 80, {}, Plan(data=4, pipeline=2, microbatches=8), "bubble of 8 micro-batches is 12%"),
        (
            "deepnet_200_opus",
            8,
            40,
            {"sequences": 12},
            Plan(data=4, pipeline=2, microbatches=3),
            "cannot be shared out",
        ),
    ],
)
def test_copies_while_they_fit_then_shards_then_stages(
    name: str, gpus: int, gigabytes: float, how: dict[str, Any], plan: Plan, why: str
) -> None:
    proposal = Plan.auto(SHAPES[name], gpus, 1e9 * gigabytes, **how)
    assert proposal.plan == plan
    assert why in proposal.why
    assert proposal.plan.ranks == gpus
    batch = how.get("sequences", 8 * gpus)
    proposal.plan.check(SHAPES[name], gpus, batch)
    settings = {key: value for key, value in how.items() if key != "sequences"}
    ranks = rank_memory(SHAPES[name], batch, 256, **asdict(proposal.plan), device="cuda", **settings)
    assert max(rank.total for rank in ranks) <= 0.9e9 * gigabytes


def test_what_the_page_about_depth_says_is_so() -> None:
    page = (ROOT / "docs/depth.md").read_text(encoding="utf-8")
    plan, why = Plan.auto(SHAPES["deepnet_1000"], 8, 24e9, sequences=128, tokens=64, checkpoint_every="auto")
    assert f"{plan.title!r}\n>>> why\n{why!r}\n" in page


@pytest.mark.parametrize(
    ("gpus", "memory", "how", "said"),
    [
        (
            8,
            4e9,
            {"sequences": 8, "tokens": 64},
            "'auto' with shard=8 needs 3.4 GB; 16 GPUs by shard=16 need",
        ),
        (8, 80e9, {"sequences": 4}, "take a multiple of 8, for example 64"),
        (2, 1e6, {}, "take fewer layers"),
    ],
)
def test_what_fits_nowhere_is_refused_with_what_would(gpus: int, memory: float, how: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        Plan.auto(BOTH, gpus, memory, **how)


@pytest.mark.parametrize(("gpus", "memory"), [(0, 1e9), (True, 1e9), (2.0, 1e9), (2, 0), (2, float("inf")), (2, "80")])
def test_numbers_of_gpus_are_checked(gpus: Any, memory: Any) -> None:
    with pytest.raises(ValueError, match="expected a"):
        Plan.auto(BOTH, gpus, memory)
