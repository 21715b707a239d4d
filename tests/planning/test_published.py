"""Published models: counted by formula and by building them whole, both to the last digit of what is published."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from deepnet_edu import build_model
from deepnet_edu.messages import UserError
from deepnet_edu.model import ModelConfig
from deepnet_edu.planning import PUBLISHED, count_parameters, features, find_shape, parameters_by_part
from deepnet_edu.residual import RESIDUALS, Architecture
from tests.rules import CLAIMS, small_config

#: Of the shapes' publications, or read off the released weights.
COUNTS = {
    "bert-base": 109_514_298, "bert-large": 335_174_458, "gpt2-small": 124_439_808, "gpt2-xl": 1_557_611_200,
    "gpt3-175b": 174_604_259_328, "llama-7b": 6_738_415_616, "llama-13b": 13_015_864_320, "llama-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616, "llama2-13b": 13_015_864_320, "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248, "llama3-70b": 70_553_706_496, "llama3-405b": 405_853_388_800,
    "deepseek-7b": 6_910_365_696, "deepseek-67b": 67_425_001_472, "glm-130b": 128_697_794_560,
    "m2m100-12b": 11_802_198_016,
}  # fmt: skip
#: Published sizes, whose vocabulary is inferred.
ROUND = {"deepnet-200-opus": 863e6, "deepnet-200": 3.2e9, "deepnet-1000": 3.8e9}


def test_all_are_there() -> None:
    assert {*COUNTS, *ROUND} == set(PUBLISHED)
    assert {name for name, one in PUBLISHED.items() if one.sure == "inferred"} == set(ROUND)


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_agree_to_the_last_digit(name: str) -> None:
    config, stated = PUBLISHED[name].config, PUBLISHED[name].parameters
    if name in COUNTS:
        assert stated == COUNTS[name]
    else:
        assert stated == pytest.approx(ROUND[name], rel=0.003)
    assert sum(parameters_by_part(config).values()) == stated
    assert count_parameters(config)["all"] == stated
    model = build_model(config, device="meta")
    assert sum(p.numel() for p in model.parameters()) == stated
    assert len(model.sublayers()) == PUBLISHED[name].facts()["connections"]


@pytest.mark.parametrize("name", ["bert-base", "llama2-70b", "gpt2-small", "m2m100-12b", "glm-130b"])
def test_each_part_is_what_its_modules_hold(name: str) -> None:
    model, parts = build_model(PUBLISHED[name].config, device="meta"), parameters_by_part(PUBLISHED[name].config)
    kinds = {"self_attention": "attention", "cross_attention": "cross_attention", "ffn": "feed_forward"}
    found = dict.fromkeys(parts, 0)
    for parameter_name, parameter in model.named_parameters():
        words = parameter_name.split(".")
        if "branch" in words:
            part = kinds[words[words.index("branch") - 1]]
        elif "table" in words:
            part = "positions"
        elif (parameter.shape == (model.config.d_model,) and words[0] != "before_head") or "norm" in parameter_name:
            part = "norms"
        else:
            part = "embeddings" if words[0].startswith("embed") else "head"
        found[part] += parameter.numel()
    if name == "bert-base":  # a matrix with its bias, then the norm, before the head
        found["norms"], found["head"] = found["norms"] + 2 * 768, found["head"] - 2 * 768
    if name == "glm-130b":
        found["norms"], found["head"] = found["norms"] + found["head"], 0
    assert found == parts


@pytest.mark.parametrize(("name", "layers", "d"), [("bert-base", 12, 768), ("bert-large", 24, 1024)])
def test_berts_other_ends(name: str, layers: int, d: int) -> None:
    """A pooler is a matrix on the first token, the classifier of sentence pairs one of two rows."""
    with torch.device("meta"):
        pooler, pairs = nn.Linear(d, d), nn.Linear(d, 2)
    model = build_model(PUBLISHED[name].config, device="meta")
    head = [*model.before_head.parameters(), model.head.bias]  # type: ignore[union-attr]
    extra = sum(p.numel() for p in pooler.parameters())
    total = PUBLISHED[name].parameters
    assert PUBLISHED[name].others == {
        "with a pooler, without a head": total - sum(p.numel() for p in head) + extra,
        "for pretraining": total + extra + sum(p.numel() for p in pairs.parameters()),
    }


def test_405_billion_as_first_shipped() -> None:
    assert count_parameters(replace(PUBLISHED["llama3-405b"].config, n_kv_heads=16))["all"] == 410_081_247_232


@pytest.mark.parametrize(
    "config",
    [
        small_config("post_ln", "encoder_decoder"),
        replace(small_config("pre_ln", "encoder_decoder"), source_vocab_size=7, bias=False, norm="rms"),
        replace(small_config("deepnorm", "decoder"), n_kv_heads=1, activation="geglu", head="norm"),
        ModelConfig("encoder", "classification", 0, 2, d_model=8, n_heads=2, d_ff=12, n_classes=5, residual="pre_ln"),
    ],
)
def test_the_formula_counts_what_is_built(config: ModelConfig) -> None:
    built = sum(p.numel() for p in build_model(config, device="meta").parameters())
    assert sum(parameters_by_part(config).values()) == built


BY_FORMULA = [
    (rule, architecture)
    for rule, architecture in CLAIMS
    if RESIDUALS[rule].norms is not None and RESIDUALS[rule].says("norms")
]


@pytest.mark.parametrize(("residual", "architecture"), BY_FORMULA)
def test_a_rule_that_says_its_norms_has_no_other_parameters(residual: str, architecture: Architecture) -> None:
    """In both stacks, and with RMSNorm, and in a model of one layer, which is its first and its last."""
    for layers, norm in ((3, "layer"), (1, "rms")):
        config = replace(small_config(residual, architecture, layers), norm=norm)
        model = build_model(config, device="meta")
        counted = count_parameters(config)
        for stack, found in model.stacks().items():
            assert counted[stack] == sum(p.numel() for p in found.parameters())
        assert counted["all"] == sum(p.numel() for p in model.parameters()) == sum(parameters_by_part(config).values())


def test_the_formula_refuses_rules_with_parameters_of_their_own() -> None:
    with pytest.raises(ValueError, match=r"residual='rezero' has parameters .* By formula: post_ln, pre_ln, "):
        parameters_by_part(small_config("rezero", "decoder"))


def test_rows_of_the_table() -> None:
    row = PUBLISHED["llama2-70b"].facts()
    assert (row["layers"], row["heads"], row["kv_heads"], row["width"]) == (80, 64, 8, 8192)
    assert row["features"] == (
        "Pre-LN with RMSNorm, SwiGLU of 28,672, rotary positions, 8 key-value heads, no biases, vocabulary 32,000"
    )
    assert PUBLISHED["deepnet-1000"].facts()["layers"] == 1000
    assert features(small_config("deepnorm", "decoder")).startswith("DeepNorm with LayerNorm, GELU of 20")


def test_a_model_in_a_toml_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = "".join(
        f"{line}\n"
        for line in (
            'architecture = "decoder"', 'task = "lm"', "decoder_layers = 32", "d_model = 4096", "n_heads = 32",
            "n_kv_heads = 8", "d_ff = 14336", "vocab_size = 128256", 'residual = "pre_ln"', 'norm = "rms"',
            'activation = "swiglu"', 'position = "rotary"', "bias = false",
        )
    )  # fmt: skip
    file.write_text(text)
    assert count_parameters(find_shape(str(file)))["all"] == COUNTS["llama3-8b"]
    for wrong, message in (
        (text.replace("n_kv_heads", "n_kv_head"), "Unknown field 'n_kv_head': did you mean 'n_kv_heads'"),
        (text.replace('"rms"', "rms"), "holds no shape: not TOML"),
        (text.replace("32\n", '"32"\n'), "decoder_layers: expected a whole number, found '32'"),
        (text.replace("d_ff = 14336\n", ""), "d_ff is missing"),
        (text.replace("n_kv_heads = 8", "n_kv_heads = 7"), "try n_kv_heads=8"),
    ):
        file.write_text(wrong)
        with pytest.raises(UserError, match=message) as refused:
            find_shape(str(file))
        assert "\n" not in str(refused.value)


def test_names_of_published_models() -> None:
    assert find_shape("llama-7b") is PUBLISHED["llama-7b"].config
    assert find_shape("deepnet-1000") == find_shape("deepnet_1000")
    with pytest.raises(UserError, match="did you mean 'llama3-405b'"):
        find_shape("llama3-405")
