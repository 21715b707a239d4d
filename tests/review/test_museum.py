"""Each finding has a room of the museum, and the room is that of the bug which was built."""

import re
from dataclasses import replace

import pytest

from deepnet_edu.course.places import ROOT
from deepnet_edu.review import Review, review
from deepnet_edu.review.museum import ROOM_OF_ROW, link, rooms
from deepnet_edu.review.recognise import POST_LN, PRE_LN, room_of_alpha, room_of_gains
from tests.review.museum import PAGE, page
from tests.review.reviewed import Recipe, X, stack

ALPHA, NORM, LAYER = "α on the skip", "norm outside", "independent layers"
GAIN, QK = "gain of value, output and FFN", "gain of query and key"
LAYERS = 8
BETA = (8 * LAYERS) ** -0.25
RIGHT = Recipe(alpha=(2 * LAYERS) ** 0.25, beta=BETA)


def test_the_page_is_that_of_the_rooms() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.review.museum"


def test_every_room_that_the_code_names_exists_and_has_a_title_of_its_own() -> None:
    code = "".join(
        (ROOT / "deepnet_edu" / "review" / f"{name}.py").read_text() for name in ("rows", "recognise", "report")
    )
    named = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', code)) | set(ROOM_OF_ROW.values())
    assert named <= rooms().keys()
    assert set(rooms()) - named <= {"head-factors", "copies", "unseen"}  # the first of which review cannot see
    assert len({room.title for room in rooms().values()}) == len(rooms())
    assert all(room.text and room.repair for room in rooms().values())


def test_a_link_leads_to_an_anchor_of_the_page() -> None:
    for slug in rooms():
        file, anchor = link(slug).split("#")
        assert f'<a id="{anchor}"></a>' in (ROOT / file).read_text(encoding="utf-8")


#: What is built wrong, and the room of each row that fails for it.
BUGS = {
    "α on the branch": (replace(RIGHT, alpha_on_branch=True), {ALPHA: "alpha-on-the-branch"}),
    "copies": (replace(RIGHT, clones=1), {LAYER: "copies"}),
    "scaled skip": (replace(RIGHT, pre_norm=True), {NORM: "scaled-skip-without-norm"}),
    "default × β": (replace(RIGHT, init="default"), {GAIN: "default-weights", QK: "default-weights"}),
    "variance": (replace(RIGHT, beta=BETA**0.5), {GAIN: "gain-as-variance"}),
    "sign": (replace(RIGHT, beta=1 / BETA), {GAIN: "beta-exponent"}),
    "precedence": (replace(RIGHT, beta=(8 * LAYERS) ** -1 / 4), {GAIN: "beta-exponent"}),
    "constant": (replace(RIGHT, alpha=2.828), {ALPHA: "constant-alpha"}),
    "swapped": (
        replace(RIGHT, alpha=BETA, beta=(2 * LAYERS) ** 0.25), {ALPHA: "swapped-constants", GAIN: "swapped-constants"},
    ),
    "GLM": (
        replace(RIGHT, alpha=(2 * LAYERS) ** 0.5, beta=(2 * LAYERS) ** -0.5),
        {ALPHA: "other-constants", GAIN: "other-constants"},
    ),
    "another depth": (replace(RIGHT, alpha=5.0), {ALPHA: "alpha-of-another-depth"}),
    "value forgotten": (replace(RIGHT, unscaled=("v_proj",)), {GAIN: "forgotten-slice"}),
    "packed": (replace(RIGHT, init="packed"), {GAIN: "packed-as-one", QK: "packed-as-one"}),
    "query and key": (replace(RIGHT, also_scaled=("q_proj", "k_proj")), {QK: "query-and-key-scaled"}),
    "sub-layers": (replace(RIGHT, beta=BETA * 2**0.5), {GAIN: "layers-for-sublayers"}),
    "γ": (replace(RIGHT, norm_weight=2.0), {"gain of the norms": "gain-of-the-norms"}),
    "detached": (replace(RIGHT, detached=True), {"gradient through F": "detached-branch"}),
    "another gain": (replace(RIGHT, gains={"fc1": 0.7}), {GAIN: "another-gain"}),
}  # fmt: skip


def judged(recipe: Recipe) -> Review:
    model = stack(recipe, LAYERS)
    return review(model, X, depth=(0, LAYERS))


@pytest.mark.parametrize("name", list(BUGS))
def test_the_room_is_that_of_the_bug(name: str) -> None:
    recipe, expected = BUGS[name]
    found = judged(recipe)
    assert {row.name: found[row.name].room for row in found.rows if row.name in expected} == expected
    assert all(bool(row.room) == (row.status != "PASS") for row in found.rows)
    assert found.design is None
    for slug in expected.values():
        assert f"See docs/museum.md#{slug}" in str(found)


def test_what_has_no_alpha_is_told_what_it_is() -> None:
    post, pre = judged(replace(RIGHT, alpha=1.0, beta=1.0)), judged(replace(RIGHT, alpha=1.0, beta=1.0, pre_norm=True))
    assert (post.design, pre.design) == (POST_LN, PRE_LN)
    assert post.headline == (
        "Not DeepNorm: this is Post-LN, norm(x + F(x)). Its α is 1; DeepNorm at 8 layers has α = 2 (decoder). "
        "That is a fault only in a model that should be DeepNorm."
    )
    assert str(post).startswith(post.headline)
    assert {post[ALPHA].room, pre[NORM].room} == {"another-design"}
    assert post.verdict == pre.verdict == "FAIL"


def test_the_right_one_has_no_room() -> None:
    found = judged(RIGHT)
    assert (found.verdict, found.design, found.headline) == ("PASS", None, "DeepNorm as in the paper, at 8 layers.")
    assert {row.room for row in found.rows} == {""}
    assert found.to_dict()["design"] is None


def test_the_encoders_constant_of_torchscale() -> None:
    wanted, default = {"encoder": 0.2063, "decoder": 0.17}, {"ffn_in": 0.9, "ffn_out": 0.45}
    key = [(stack, role) for stack in wanted for role in default]
    drawn = {one: default[one[1]] for one in key}
    found = {one: wanted[one[0]] * (1.15 / 0.87 if one[0] == "encoder" else 1) for one in key}
    assert room_of_gains(found, drawn, wanted, wanted) == "encoder-constant"
    assert room_of_gains({one: found[one] * drawn[one] for one in key}, drawn, wanted, wanted) == "default-weights"
    assert room_of_gains(dict.fromkeys(key, 0.5), drawn, wanted, wanted) == "another-gain"


def test_a_branch_that_is_not_there_is_of_no_known_bug() -> None:
    assert room_of_alpha(0.0, 2.0) == "alpha-of-another-depth"
