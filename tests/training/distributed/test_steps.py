"""Ten steps under each plan: the numbers of one process, and no more memory than the plan says."""

from typing import Any

import pytest

from deepnet_edu.model import build_model
from deepnet_edu.planning import Plan
from deepnet_edu.training.distributed.stages import runs
from tests.training.distributed.cases import CASES, REFUSED, Case

pytestmark = pytest.mark.xdist_group("ranks")
TOLERANCE = 1e-6
ALL = [(ranks, case) for ranks, cases in CASES.items() for case in cases]


@pytest.fixture(params=ALL, ids=[case.name for _, case in ALL])
def case(request: pytest.FixtureRequest) -> tuple[Case, list[dict[str, Any]]]:
    """A case, and what each rank saw of it."""
    ranks, case = request.param
    found = request.getfixturevalue({2: "two", 4: "four"}[ranks])
    return case, [rank[case.name] for rank in found]


def test_losses_and_weights_are_those_of_one_process(case: tuple[Case, list[dict[str, Any]]]) -> None:
    for rank in case[1]:
        assert rank["moved"]
        assert rank["loss"] < TOLERANCE
        assert rank["norm"] < TOLERANCE
        assert rank["weights"] < TOLERANCE


def test_a_rank_holds_what_the_plan_gives_it(case: tuple[Case, list[dict[str, Any]]]) -> None:
    """Counted from the whole model: layers by stage, a pipeline's ends, and the shards of what a rank has."""
    plan, model = Plan.parse(case[0].plan), build_model(case[0].config).double()
    for rank, saw in enumerate(case[1]):
        place = rank // plan.shares
        mine = [stage for stage in range(plan.stages) if stage % plan.pipeline == place]
        held = {id(parameter): parameter for parameter in held_parameters(model, plan, mine)}
        trained = {id(parameter) for parameter in model.group(case[0].recipe.parameters)}
        kinds = 2 if case[0].recipe.optimizer == "adamw" else 0
        whole = sum(parameter.nbytes for parameter in held.values())
        moments = kinds * sum(parameter.nbytes for parameter in held.values() if id(parameter) in trained)
        # Rows that cannot be divided evenly: one more or less of each parameter.
        slack = sum(parameter[0].nbytes for parameter in held.values() if parameter.ndim) if plan.shard > 1 else 0
        assert abs(saw["bytes"] - whole / plan.shard) <= slack
        assert abs(saw["moments"] - moments / plan.shard) <= kinds * slack
    if plan.shard > 1:
        assert sum(saw["bytes"] for saw in case[1][: plan.shard]) == saw_whole(model, plan)


def held_parameters(model: Any, plan: Plan, stages: list[int]) -> list[Any]:
    """What the ranks at a place of the pipeline have together, without stages.py's own cutting."""
    stacks, ends = model.stacks(), dict(zip(model.stacks(), model.embeddings(), strict=True))
    found = []
    for stage in stages:
        for run in runs(model.config, plan.stages)[stage]:
            found += [p for layer in stacks[run.stack].layers[run.first : run.last] for p in layer.parameters()]
            found += list(ends[run.stack].parameters()) if run.first == 0 else []
        if stage == plan.stages - 1:
            top = (model.before_head, model.head, model.rescale)
            found += [parameter for part in top if part is not None for parameter in part.parameters()]
    return found


def saw_whole(model: Any, plan: Plan) -> int:
    """Bytes that the first ranks of a shard have together."""
    mine = [stage for stage in range(plan.stages) if stage % plan.pipeline == 0]
    return sum({id(p): p.nbytes for p in held_parameters(model, plan, mine)}.values())


@pytest.mark.parametrize("ranks", [2, 4])
def test_together_the_ranks_have_all_names_of_the_single_model(ranks: int, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue({2: "two", 4: "four"}[ranks])
    for case in CASES[ranks]:
        whole = build_model(case.config)
        once = {name for name, _ in whole.named_parameters()} | {name for name, _ in whole.named_buffers()}
        saved = set(whole.state_dict()) & once
        assert {name for rank in found for name in rank[case.name]["names"]} == saved


def test_what_a_plan_cannot_do_is_refused_with_the_reason(two: list[dict[str, Any]]) -> None:
    for rank in two:
        for said, (*_, sentence) in zip(rank["refused"], REFUSED, strict=True):
            assert said.startswith("UserError: ")
            assert sentence in said


def test_a_loss_that_is_no_number_ends_all_ranks(two: list[dict[str, Any]]) -> None:
    for rank in two:
        assert rank["diverged"].startswith("TrainingDiverged: Stopped at step 0: loss nan")


def test_dropout_is_drawn_from_seed_step_and_rank(two: list[dict[str, Any]]) -> None:
    first, again, other = two[0]["dropout"]
    assert first == again
    assert first != other


@pytest.mark.parametrize("what", ["data=2 fp16", "shard=2 bf16", "pipeline=2 bf16"])
def test_half_precision_is_near(what: str, two: list[dict[str, Any]]) -> None:
    alone = two[0]["data=1 fp32"]
    assert two[0][what] == two[1][what] == pytest.approx(alone, rel=0.01)
    assert two[0][what] != pytest.approx(alone, rel=1e-6)


def test_copies_can_be_looked_into(two: list[dict[str, Any]]) -> None:
    assert two[0]["profiles"] == two[1]["profiles"] == [0, 2, 4, 5]


def test_compiled_layers_gather_what_they_read(two: list[dict[str, Any]]) -> None:
    for rank in two:
        saw = rank["compiled"]
        assert saw["loss"] < TOLERANCE
        assert saw["weights"] < TOLERANCE
        assert saw["graphs"] == 2  # batches have two lengths, and more layers than that make no more
        assert saw["back"]
