"""The judge of ``diagnose`` (lesson 16): recorded runs of known cause, and what contradicts a wrong one."""

from random import Random
from typing import Any

from deepnet_edu.checks.base import Trial
from deepnet_edu.checks.trial import TYPE
from deepnet_edu.checks.values import describe

CAUSES = (
    "healthy",
    "tokens alike from the start",
    "branches drowned",
    "rate too high",
    "rate too low",
    "branches asleep",
    "stack not trained",
    "targets say nothing",
)
#: Which of several wrong answers is talked about: that to the cause which teaches most.
_FIRST = (
    "tokens alike from the start",
    "targets say nothing",
    "stack not trained",
    "branches asleep",
    "branches drowned",
    "rate too low",
    "rate too high",
    "healthy",
)
#: Runs of benchmarks/lesson_16.py, part "diagnosis", loss and update thinned to four steps: cause, layers | loss |
#: gradient of first and last layer at the start, at the end | similarity | update | moved.
_RUNS = """
healthy,48|3.26 1.29 0.241 0.0993|0.075 0.0723 0.00522 0.00439|0.0179 0.0199|0.014 0.11 0.065 0.037|0.194
healthy,48|3.11 1.89 0.41 0.116|1.29 0.151 0.0787 0.00666|0.84 0.0201|0.062 0.31 0.11 0.054|0.0795
tokens alike from the start,48|3.41 2.79 2.78 2.78|1.48 1.83 6.79e-07 0.454|1 1|0.4 0.099 0.056 0.059|0.0198
branches drowned,48|3.32 2.49 1.25 0.523|0.577 1.16e-16 0.22 3.59e-17|0.0418 0.0352|0.0022 0.036 0.034 0.026|0.12
rate too high,48|3.26 2.54 2.59 2.58|0.075 0.0723 0 0.0511|0.0179 0.63|1.7 0.18 0.11 0.059|1.73
rate too low,48|3.26 3.31 3.38 3.29|0.075 0.0723 0.0743 0.0718|0.0179 0.0193|4.1e-05 0.00059 0.00062 0.00058|0.00112
branches asleep,48|3.24 2.68 0.388 0.00155|0 0 0.000375 0.00062|0.0167 0.0772|0.00055 0.044 0.21 0.54|0.248
targets say nothing,48|3.42 2.81 2.78 2.77|0.0435 0.0419 0.000911 0.0376|0.0179 0.998|0.014 0.076 0.027 0.025|0.0806
healthy,48|3.43 1.32 0.267 0.111|0.077 0.0793 0.00781 0.00547|0.0574 0.00689|0.015 0.11 0.081 0.038|0.192
healthy,48|3.1 2.02 0.395 0.102|0.711 0.201 0.0759 0.00593|0.831 0.0189|0.056 0.3 0.13 0.044|0.0784
tokens alike from the start,48|3.16 2.8 2.77 2.79|0.596 1.61 2.43e-07 0.372|1 1|0.41 0.11 0.048 0.046|0.0215
branches drowned,48|3.38 2.62 1.26 0.566|0.549 1.16e-16 0.23 3.49e-17|0.105 0.0233|0.0024 0.036 0.035 0.026|0.119
rate too high,48|3.43 2.82 2.79 2.79|0.077 0.0793 0 0.0301|0.0574 1|1.8 0.098 0.061 0.071|1.74
rate too low,48|3.43 3.47 3.39 3.39|0.077 0.0793 0.0759 0.0782|0.0574 0.0627|4.5e-05 0.00061 0.00061 0.00064|0.00112
branches asleep,48|3.48 2.88 0.415 0.00153|0 0 0.00109 0.00101|0.054 0.106|0.00058 0.045 0.21 0.38|0.241
targets say nothing,48|3.2 2.8 2.78 2.78|0.0419 0.0418 0.000893 0.0621|0.0574 0.999|0.016 0.083 0.026 0.025|0.0811
healthy,96|3.25 1.04 0.18 0.0793|0.0529 0.0512 0.00347 0.00223|0.016 0.011|0.023 0.14 0.086 0.036|0.167
healthy,96|3.06 1.97 0.507 0.14|1.14 0.113 0.128 0.00507|0.904 0.0219|0.079 0.34 0.21 0.099|0.0678
tokens alike from the start,96|3.59 2.78 2.78 2.79|1.5 4.54 6.16e-13 0.417|1 1|0.46 0.12 0.038 0.05|0.0216
branches drowned,96|3.27 1.98 0.599 0.205|0.764 9.18e-17 0.107 8.62e-18|0.0896 0.0326|0.0044 0.058 0.041 0.022|0.094
rate too high,96|3.25 2.77 2.79 2.78|0.0529 0.0512 0 0.0407|0.016 1|1.6 0.068 0.042 0.045|1.73
rate too low,96|3.25 3.3 3.36 3.26|0.0529 0.0512 0.0521 0.0506|0.016 0.0198|7.1e-05 0.00099 0.001 0.00096|0.00113
branches asleep,96|3.24 2.31 0.0218 0.0117|0 0 0.00871 0.00417|0.0167 0.0805|0.00063 0.079 0.68 1.3|0.196
targets say nothing,96|3.41 2.79 2.78 2.77|0.0306 0.0294 0.000214 0.0261|0.016 1|0.024 0.081 0.027 0.026|0.0681
healthy,96|3.42 1.1 0.209 0.0848|0.0543 0.0547 0.0044 0.00308|0.0556 -0.000147|0.027 0.12 0.095 0.049|0.165
healthy,96|3.06 2 0.444 0.116|1.22 0.137 0.128 0.00457|0.89 0.0115|0.081 0.35 0.18 0.087|0.0681
tokens alike from the start,96|3.32 2.84 2.78 2.79|4.85 1.64 1.1e-10 0.407|1 1|1.1 0.099 0.069 0.046|0.0189
stack not trained,48|3.26 1.43 0.127 0.0324|0.075 0.0723 0.00325 0.00294|0.0179 0.00631|0.004 0.065 0.036 0.013|0
stack not trained,48|3.43 1.54 0.15 0.0353|0.077 0.0793 0.00351 0.00368|0.0574 0.0311|0.0041 0.063 0.037 0.014|0
stack not trained,96|3.25 1.43 0.125 0.032|0.0529 0.0512 0.00228 0.00223|0.016 0.00586|0.004 0.065 0.036 0.013|0
branches drowned,96|3.33 2.1 0.623 0.241|0.727 9.46e-17 0.145 1.41e-17|0.157 0.0234|0.005 0.057 0.048 0.025|0.0938
rate too high,96|3.42 2.78 2.79 2.79|0.0543 0.0547 0 0.0206|0.0556 1|1.8 0.095 0.048 0.031|1.73
rate too low,96|3.42 3.45 3.36 3.36|0.0543 0.0547 0.053 0.0536|0.0556 0.0645|8e-05 0.001 0.001 0.0011|0.00113
branches asleep,96|3.48 2.5 0.0233 0.000499|0 0 0.000952 0.00439|0.054 0.078|0.00075 0.076 0.58 0.4|0.19
stack not trained,96|3.42 1.53 0.147 0.035|0.0543 0.0547 0.00244 0.00239|0.0556 0.0315|0.0041 0.063 0.037 0.014|0
targets say nothing,96|3.19 2.76 2.79 2.79|0.0296 0.0282 0.000206 0.0372|0.0556 1|0.027 0.076 0.031 0.039|0.0676
"""

Run = dict[str, Any]


def failures() -> list[tuple[str, Run]]:
    """Cause and run, in mixed order, half of the runs on a task of another chance."""
    found = []
    for line in _RUNS.strip().splitlines():
        cause, loss, gradient, similarity, update, moved = line.split("|")
        a, b, c, d = map(float, gradient.split())
        run: Run = {
            "loss": [float(one) for one in loss.split()],
            "chance": 2.7726,
            "gradient": [[a, b], [c, d]],
            "similarity": [float(one) for one in similarity.split()],
            "update": [float(one) for one in update.split()],
            "moved": float(moved),
        }
        found.append((cause.rsplit(",", 1)[0], run))
    Random(4).shuffle(found)
    for i, (_, run) in enumerate(found):
        factor = (1.0, 0.5, 1.0, 1.6)[i % 4]  # of fewer words, or of more: all losses differ, and so does chance
        run["loss"], run["chance"] = [factor * one for one in run["loss"]], factor * run["chance"]
    return found


def diagnose(trial: Trial) -> None:
    """In this order. moved is 0: stack not trained. Both gradients at the start are 0: branches asleep. Similarity at
    the start above 0.99: tokens alike from the start. The last gradient at the start below a millionth of the first:
    branches drowned. First update above 0.5: rate too high. The loss ends above 95% of chance: rate too low where moved
    is below 0.01, else targets say nothing. Else healthy.
    """
    wrong: list[tuple[Run, str, str]] = []
    for right, run in failures():
        got = trial.call(run)
        known = isinstance(got, str) and got in CAUSES
        said = "The answer is one of the eight causes, as the lesson spells them: " + ", ".join(CAUSES) + "."
        trial.require(known, said, got=describe(got), rung=TYPE)
        if got != right:
            wrong.append((run, got, right))
    if wrong:
        run, got, right = min(wrong, key=lambda one: _FIRST.index(one[2]))
        trial.require(False, _contradiction(run, got, right), right, got)


def _contradiction(run: Run, said: str, right: str) -> str:
    """The instrument that contradicts what was said of a run."""
    (first, last), (start, _), update, moved = run["gradient"][0], run["similarity"], run["update"][0], run["moved"]
    if said == "tokens alike from the start":
        ends = " They became similar later, because nothing told them apart." if right == "targets say nothing" else ""
        return f"Look at the start: token similarity was {start:.2f} before the first step.{ends}"
    if right == "tokens alike from the start":
        blamed = said in ("rate too high", "rate too low")
        rate = "no learning rate helps" if blamed else "first and last gradient are of one size, and tell nothing of it"
        return f"Tokens were equal before the first step, with a similarity of {start:.3f}: {rate}."
    if right == "stack not trained":
        return "The loss falls, but moved is 0: embedding and head learn, past the stack."
    if right == "branches asleep":
        return (
            "Before the first step the gradient is exactly 0 in the first and the last layer, and yet the run learns."
        )
    if right == "branches drowned":
        return f"Before the first step the gradient of the last layer is {last:.0e}, that of the first {first:.2g}."
    if said == "branches drowned" or said == "branches asleep":
        return (
            f"Before the first step both gradients are alive: {first:.2g} in the first layer, {last:.2g} in the last."
        )
    if right == "rate too high":
        fell = run["gradient"][1][0]
        return (
            f"Look at the first update: it moved the logits by {update:.1f}, as much as they are large, and later the "
            f"gradient of the first layer fell to {fell:.0e}. The loss alone never jumped."
        )
    if said == "rate too high":
        return (
            f"The first update moved the logits by {update:.1g} only: a rate that is too high breaks a stack at once."
        )
    if said == "stack not trained":
        return f"The stack did move: by {moved:.1g} of its own length."
    if right == "healthy":
        return f"This run learned: its loss ends at {run['loss'][-1]:.2f}, where chance is {run['chance']:.2f}."
    if right == "rate too low":
        return f"The weights are nearly those that were drawn: the stack moved by {moved:.1g} of its own length."
    if said == "rate too low":
        return f"The stack moved by {moved:.2g} of its own length, as far as in runs that learned."
    return f"This run learned nothing: its loss ends at {run['loss'][-1]:.2f}, where chance is {run['chance']:.2f}."
