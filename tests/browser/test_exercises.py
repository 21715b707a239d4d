"""A learner answers wrongly, then rightly: the sentence, the bar, the progress file; in light and in dark."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepnet_edu.checks import check
from deepnet_edu.course.places import find_lesson
from tests.browser.conftest import run_all

pytestmark = pytest.mark.browser


@dataclass(frozen=True)
class Case:
    """One exercise of a lesson: a wrong answer, the sentence that it gets, the right one, what the last cell prints."""

    lesson: str
    exercise: str
    head: str
    wrong: str
    sentence: str
    right: str
    last: str

    @property
    def file(self) -> str:
        return find_lesson(self.lesson)

    def source(self, line: str) -> str:
        return f"{self.head}\n    return {line}"

    def bar(self, done: int) -> str:
        return f"{done} of {sum(lesson == self.lesson for lesson in check.lesson_of.values())} done"


CASES = [
    Case(
        "01",
        "input_share",
        "def input_share(n, f, alpha):",
        "1 - n * f / alpha**2",
        "Right to first order, but for Post-LN with f = 1 and 24 sub-layers it gives -23.",
        "(alpha**2 / (alpha**2 + f)) ** n",
        "after 1,000 layers with f = 1",
    ),
    Case(
        "02",
        "equivalent_branch_scale",
        "def equivalent_branch_scale(alpha):",
        "alpha * 1",
        "Then the branch is α² too strong: α on the skip makes the branch weaker.",
        "1 / alpha",
        "the same as LN for a token of mean 0",
    ),
    Case(
        "03",
        "averaged_variance",
        "def averaged_variance(T, r, causal):",
        "1.0",
        "Lemma 4.1 bounds the magnitude, it is no equality: 7 independent tokens average to 1/7.",
        "r + (1 - r) * (sum(1 / i for i in range(1, T + 1)) if causal else 1) / T",
        "r = 0.9: 0.910 behind ReLU",
    ),
    Case(
        "04",
        "token_similarity",
        "def token_similarity(x):\n    u = x / x.norm(dim=-1, keepdim=True)",
        "(u @ u.mT).mean().item()",
        "A token is always similar to itself: leave out those T pairs.",
        "((u.sum(1).square().sum(-1) / x.shape[1] - 1) / (x.shape[1] - 1)).mean().item()",
        "layer 1,000 adds 0.1% of the stream",
    ),
    Case(
        "05",
        "post_ln_init_divisor",
        "def post_ln_init_divisor(layer, n_layers):",
        "layer + 0",
        "That shrinks the top. Post-LN-init shrinks the bottom: layer 1 most.",
        "n_layers - layer + 1",
        "a fresh weight is about 0.125",
    ),
    Case(
        "06",
        "update_sum",
        "def update_sum(n_layers, alpha, beta, step):",
        "2 * n_layers * 2 * beta**2 / alpha**2",
        "Adam divides the gradient by its size, so a step has the length 1 and the second β/α is lost.",
        "2 * n_layers * (2**0.5 * beta / alpha) ** (2 if step == 'sgd' else 1)",
        "encoder's, SGD: slope below -0.5",
    ),
    Case(
        "07",
        "deepnorm",
        "def deepnorm(x, f, norm, alpha):",
        "norm(x + alpha * f(x))",
        "α is on the wrong term: the branch is α² too strong.",
        "norm(alpha * x + f(x))",
        "500 encoder layers of DeepNet's width",
    ),
    Case(
        "09",
        "beta_of_depth",
        "def beta_of_depth(n_layers):",
        "(8 * n_layers) ** -1 / 4",
        "This is the room as it was published: ** binds before /, so it is (1/(8·12))/4.",
        "(8 * n_layers) ** (-1 / 4)",
        "100 layers, 200 sub-layers",
    ),
    Case(
        "10",
        "next_scale",
        "def next_scale(scale, good, overflow, interval):",
        "(scale / 2, good) if overflow else (scale * 2, 0) if good + 1 == interval else (scale, good + 1)",
        "The row of good steps is broken: the count begins again at 0.",
        "(scale / 2, 0) if overflow else (scale * 2, 0) if good + 1 == interval else (scale, good + 1)",
        "steps, in learning rates",
    ),
    Case(
        "11",
        "model_flops_utilisation",
        "def model_flops_utilisation(tokens_per_second, parameters, n_layers, d_model, tokens, peak):",
        "tokens_per_second * 6 * parameters / peak",
        "Attention's scores and mixing have no weights, and cost too: 12·n_layers·d_model·tokens.",
        "tokens_per_second * (6 * parameters + 12 * n_layers * d_model * tokens) / peak",
        "the bytes that it moves take",
    ),
    Case(
        "15",
        "bubble_share",
        "def bubble_share(ranks, microbatches, chunks=1):",
        "(ranks - 1) / microbatches",
        "With chunks each wait is shorter: divide by the chunks.",
        "(ranks - 1) / (microbatches * chunks)",
        "5 ranks, 8 steps, and each has the sum",
    ),
]
#: Contrast of an element's text with what lies behind it, as WCAG 2.2 defines it.
CONTRAST = """element => {
    const rgba = text => { const v = text.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
    const light = color => color.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    let behind = element;
    while (rgba(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const back = rgba(getComputedStyle(behind).backgroundColor);
    let opacity = 1;
    for (let e = element; e !== behind; e = e.parentElement) opacity *= Number(getComputedStyle(e).opacity);
    const front = rgba(getComputedStyle(element).color).map((v, i) => opacity * v + (1 - opacity) * back[i]);
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
}"""


def open_lesson(page, lab_url: str, case: Case) -> None:
    """Open it and run all its cells, untouched."""
    page.goto(lab_url.replace("00_a_thousand_layers", case.file))
    page.get_by_role("heading", name=f"{case.lesson} ·").first.wait_for(timeout=180_000)
    run_all(page, case.last)


def answer(page, marker: str, source: str) -> None:
    """Replace the cell that holds ``marker``, run it, and run the check below it."""
    page.locator(".jp-CodeCell .cm-content", has_text=marker).first.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(source)
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.lesson)
def test_a_wrong_answer_gets_its_sentence_and_a_right_one_turns_the_bar(
    page, lab_url: str, workspace: Path, case: Case
) -> None:
    exercise, progress = case.exercise, workspace / ".progress.json"
    open_lesson(page, lab_url, case)
    cards = page.locator(".jp-OutputArea-output", has=page.locator(f"code:text-is('{exercise}')"))
    page.locator(".jp-CodeCell .cm-content", has_text=f"check.{exercise}({exercise})").scroll_into_view_if_needed()
    untouched = cards.filter(has_text="Not attempted yet")
    untouched.wait_for()
    assert case.bar(0) in (untouched.text_content() or "")

    progress.write_text("{ what is this")  # some accident; nothing of it is thrown away
    answer(page, f'NotImplementedError("{exercise}")', case.source(case.wrong))
    cards.filter(has_text=case.sentence).wait_for(timeout=60_000)
    assert json.loads(progress.read_text())["exercises"][exercise]["state"] == "tried"
    assert progress.with_name(".progress.json.damaged-1").read_text() == "{ what is this"

    answer(page, f"return {case.wrong}", case.source(case.right))
    right = cards.filter(has_text="✓ Right")
    right.wait_for(timeout=60_000)
    assert case.bar(1) in (right.text_content() or "")
    assert "█" in (right.text_content() or "")
    assert json.loads(progress.read_text())["exercises"][exercise]["state"] == "done"

    # Cards can be read on a light and on a dark page.
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        page.get_by_role("menuitem", name="Settings", exact=True).click()
        page.locator(".lm-Menu-item", has_text="Theme").first.hover()
        page.locator(".lm-Menu-itemLabel").get_by_text(theme, exact=True).click()
        page.wait_for_function(f"document.body.dataset.jpThemeName === '{theme}'")
        for selector, least in (("b", 3.0), ("div > code", 4.5), ("small", 4.5)):
            contrast = right.locator(selector).first.evaluate(CONTRAST)
            assert contrast >= least, (theme, selector, contrast)
