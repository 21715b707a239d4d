"""The table of verdicts and the five instruments: what is drawn is what the runs say."""

from typing import Any

import pytest

from deepnet_edu.figures.stability import instruments, verdict_table


def row(rule: str, architecture: str = "decoder", seed: int = 0, **values: Any) -> dict[str, Any]:
    usual = {"learning_rate": 1e-3, "verdict": "PASS", "share_learned": 0.1, "outcome": "learned"}
    return {"rule": rule, "architecture": architecture, "seed": seed} | usual | values


def texts(rows: list[dict[str, Any]], **settings: Any) -> list[str]:
    return [text.get_text() for text in verdict_table(rows, **settings).axes[0].texts]


def test_each_cell_says_how_many_runs_learned() -> None:
    rows = [row("deepnorm"), row("deepnorm", seed=1, outcome="stood still", verdict="UNSURE")]
    rows += [row("post_ln", verdict="FAIL", outcome="stood still"), row("pre_ln", outcome="broke")]
    shown = texts(rows, first=("post_ln", "deepnorm"))
    assert shown[:6] == ["fail", "0/1", "unsure", "1/2", "pass", "broke 1/1"]
    assert texts(rows[:1]) == ["pass", "1/1", "decoder: learning rate"]


def test_the_rules_that_learned_most_come_first_and_both_architectures_have_columns() -> None:
    rows = [row("pre_ln"), row("deepnorm", share_learned=0.3), row("deepnorm", "encoder_decoder", learning_rate=3e-4)]
    ax = verdict_table(rows).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["DeepNorm", "Pre-LN"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["at start", "0.001", "at start", "0.0003"]
    assert "" in [text.get_text() for text in ax.texts]


def test_a_panel_for_each_instrument_with_zeros_on_their_line() -> None:
    run = {
        "loss": [3.0, 1.0],
        "chance": 2.77,
        "gradient": [[0.0, 0.5], [0.1, 0.1]],
        "similarity": [0.1, float("nan")],
        "update": [0.01, 0.02],
        "moved": 0.0,
    }
    figure = instruments({"A": run})
    assert len(figure.axes) == 5
    loss, gradient, _, update, moved = figure.axes
    assert loss.get_yticklabels()[0].get_text() == "A"
    assert [float(one.get_xdata()[0]) for one in gradient.lines[1:3]] == [1e-19, 0.5]
    assert float(update.lines[0].get_xdata()[0]) == 0.01
    assert float(moved.lines[0].get_xdata()[0]) == 1e-4


@pytest.mark.parametrize("draw", [verdict_table, instruments])
def test_nothing_to_draw_is_a_sentence(draw: Any) -> None:
    with pytest.raises(ValueError, match="There is no run to draw"):
        draw([])
