"""`deepnet-edu plan` for whole runs on GPUs, and `deepnet-edu models`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepnet_edu.cli import app
from deepnet_edu.messages import UserError
from deepnet_edu.planning import PUBLISHED

RUN = "plan deepnet-1000 --gpu h200 --count 8 --tokens 100e9 --price 2.50"


def said(line: str) -> str:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result
    return result.output


def refused(line: str) -> str:
    result = CliRunner().invoke(app, line.split())
    assert isinstance(result.exception, UserError), result
    sentence = str(result.exception)
    assert "\n" not in sentence
    return sentence


def test_a_whole_run_in_json() -> None:
    found = json.loads(said(f"{RUN} --json"))
    assert (found["parameters"], found["count"], found["fits"]) == (3_806_470_144, 8, True)
    assert found["gpu"]["title"] == "H200 SXM"
    assert found["tokens"] == 1e11
    for name in ("utilisation", "days", "money", "energy"):
        assert 0 < found[name]["low"] <= found[name]["high"]
        assert found[name]["rests_on"]
    assert found["price"]["low"] == found["price"]["high"] == 2.5


def test_a_whole_run_in_words() -> None:
    words = said(RUN)
    assert "deepnet-1000: 3,806,470,144 parameters, DeepNorm, 1e+11 tokens." in words
    assert "8 × H200 SXM" in words
    assert "Days rest on: " in words
    assert "Dollars rest on: the price that was given." in words
    smallest = said("plan llama3-8b --gpu h100 --tokens 1e12")
    assert "It does not fit on 1; the smallest plan that does" in smallest
    assert "on-demand list prices" in smallest


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("plan deepnet-1000 --gpu h20 --tokens 1e9", "Unknown GPU 'h20': did you mean 'h200'?"),
        ("plan deepnet-100 --gpu h200 --tokens 1e9", "did you mean 'deepnet-1000'?"),
        ("plan deepnet-1000 --gpu h200 --tokens -5", "--tokens '-5': expected a positive number, for example"),
        ("plan deepnet-1000 --gpu h200 --tokens inf", "--tokens 'inf': expected a positive number"),
        ("plan deepnet-1000 --gpu h200 --tokens 1e9 --price -2.5", "--price '-2.5': expected a positive number"),
        ("plan deepnet-1000 --gpu h200 --tokens 1e9 --price nan", "--price 'nan': expected a positive number"),
        ("plan deepnet-1000 --gpu h200 --tokens 1e9 --utilisation 40", "expected a positive number, at most 1"),
        ("plan deepnet-1000 --gpu h200 --tokens 1e9 --count 0", "--count '0': expected a whole number from 1"),
        ("plan deepnet-1000 --gpu h200", "say how many tokens it reads: for example --tokens 100e9"),
        ("plan deepnet-1000 --gpu b200 --tokens 1e9", "give yours, for example --price 2.50"),
        (
            "plan deepnet-1000 --price 2",
            "--price is for a plan with --gpu: add --gpu h200, for example, or leave it out",
        ),
        ("plan deepnet-1000 --gpu h200 --tokens 1e9 --path fast", "--path is for a plan without --gpu"),
        ("plan small_1000 --tokens 6.5", "--tokens 6.5: expected a whole number from 1"),
        ("plan llama3-405b --gpu rtx4090 --count 8 --tokens 1e9 --price 1", "fits on no number of RTX 4090"),
        ("models llama-7", "did you mean 'llama-7b'"),
        ("models llama-7b --residuals", "--residuals lists rules, not 'llama-7b'"),
        ("models none.toml", "none.toml holds no shape: No such file or directory"),
    ],
)
def test_bad_input_is_one_sentence(line: str, sentence: str) -> None:
    assert sentence in refused(line)


def test_the_table_of_models() -> None:
    rows = json.loads(said("models --json"))
    assert {row["name"]: row["parameters"] for row in rows} == {name: one.parameters for name, one in PUBLISHED.items()}
    assert {"model", "architecture", "layers", "parameters", "heads", "width", "features", "sure", "source"} <= {
        *rows[0]
    }
    words = said("models")
    assert all(f"{one.parameters:,}" in words for one in PUBLISHED.values())
    assert "500+500 2,500" in " ".join(words.split())
    assert "Residual rules: deepnet-edu models --residuals" in words


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    lines = ['architecture = "decoder"', 'task = "lm"', "decoder_layers = 2", "d_model = 8", "n_heads = 2", "d_ff = 12"]
    file.write_text("\n".join([*lines, "vocab_size = 5", "bias = false", 'position = "rotary"']))
    (row,) = json.loads(said(f"models {file} --json"))
    assert row["parameters"] == 2 * 5 * 8 + 2 * (4 * 8 * 8 + 2 * 8 * 12 + 4 * 8)
    assert "8" in said(f"models llama-7b {file}")
    file.write_text("\n".join([*lines, "vocab_sise = 5"]))
    assert "Unknown field 'vocab_sise': did you mean 'vocab_size'" in refused(f"models {file}")
