"""The picture of growth by group: relative values, predicted lines, labels at their ends."""

import numpy as np

from deepnet_edu.figures import growth_against_depth


def test_growth_is_relative_and_its_prediction_a_line_from_the_same_point() -> None:
    panels = {f"panel {n}": {"a": ([2.0, 4.0, 8.0], 1.0), "control": ([5.0, 50.0, 500.0], None)} for n in range(4)}
    figure = growth_against_depth([6, 12, 24], panels, ylabel="update")
    assert [ax.get_title() for ax in figure.axes] == list(panels)
    for ax in figure.axes:
        predicted, measured, control = (line.get_ydata() for line in ax.get_lines())
        np.testing.assert_allclose(predicted, measured)
        np.testing.assert_allclose(control, [1, 10, 100])
        assert [text.get_text() for text in ax.texts] == ["a", "control"]
    assert figure.axes[0].get_ylabel() == "update / update at 6 layers"
