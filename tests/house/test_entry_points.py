"""The public functions, given what they are not made for: a sentence of ours or a result, never an inner error."""

import inspect
import linecache
import random
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deepnet_edu
from deepnet_edu import Batch, ModelConfig, TrainConfig, build_model, deepnorm_constants, predict, probe, theory, train
from deepnet_edu.data import BytePairs, PackedText, PreviousToken, PythonDocs, TokenMap, Translations
from deepnet_edu.fields import check_fields, checked
from deepnet_edu.messages import UserError
from deepnet_edu.model import random_batch
from deepnet_edu.model.generation import beam_search, greedy, sample
from deepnet_edu.planning import (
    Plan,
    count_parameters,
    explain,
    find_shape,
    flops_per_token,
    peak_of,
    settings_that_fit,
    training_memory,
    training_time,
)
from deepnet_edu.probing import composite_gain, depth_mixing, depth_sweep
from deepnet_edu.probing.update import model_update

PACKAGE = str(Path(deepnet_edu.__file__).parent)
SIZES = {"d_model": 16, "n_heads": 2, "d_ff": 16, "vocab_size": 11, "max_length": 8}
CONFIG = ModelConfig("decoder", "lm", 1, **SIZES)
MODEL = build_model(CONFIG)
STREAMS = build_model(ModelConfig("decoder", "lm", 1, residual="mhc", **SIZES))
X = torch.randint(11, (2, 4), generator=torch.Generator().manual_seed(0))
BATCH = Batch(X, X)


class Unprintable:
    """Its own text is a mistake."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


VALUES: list[Any] = [
    None, {}, {"a": 1}, [], [1], (), "x", "", b"", -1, 0, 1, 3, 10**30, -(10**400), 0.5, -1.5, 1e-320, 1e300,
    float("nan"), float("inf"), True, 1j, object(), Unprintable(), int, len, lambda *_: None, Path("nowhere"),
    np.int64(3), np.float32(0.5), np.array([1, 2]), np.array("x"), np.zeros((2, 2)),
    torch.tensor(1), torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.long),
    torch.zeros(0, 0, dtype=torch.long), torch.full((2, 4), 10**9), torch.zeros(2, 4, dtype=torch.complex64),
    torch.zeros(2, 4, device="meta", dtype=torch.long), torch.zeros(1, 2, 3), torch.Generator(),
    CONFIG, TrainConfig(steps=1), Plan(), MODEL, BATCH, Batch(torch.zeros(2, 4), X), torch.nn.Linear(2, 2),
]  # fmt: skip
STEP = TrainConfig(steps=1)
#: A call that works, argument by argument; every one of them is then replaced by something else.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "ModelConfig": (ModelConfig, {**vars(CONFIG)}),
    "TrainConfig": (TrainConfig, {**vars(STEP)}),
    "Plan": (Plan, {**vars(Plan(data=2))}),
    "Batch": (Batch, {**vars(BATCH)}),
    "deepnorm_constants": (deepnorm_constants, {"encoder_layers": 2, "decoder_layers": 3}),
    "build_model": (build_model, {"config": CONFIG, "seed": 0, "device": "cpu"}),
    "random_batch": (random_batch, {"config": CONFIG, "batch_size": 2, "length": 4, "seed": 0}),
    "loss": (MODEL.loss, {"batch": BATCH}),
    "model": (MODEL, {"tokens": X, "padding": torch.zeros(2, 4, dtype=torch.bool)}),
    "probe": (probe, {"model": MODEL, "batch": BATCH}),
    "depth_mixing": (depth_mixing, {"model": MODEL, "batch": BATCH, "rows": 3}),
    "composite_gain": (composite_gain, {"model": STREAMS, "batch": BATCH}),
    "mixing_matrix": (theory.mixing_matrix, {"config": CONFIG, "tokens": 8}),
    "model_update": (model_update, {"model": MODEL, "batch": BATCH, "step": "sgd", "learning_rate": 1e-3}),
    "depth_sweep": (depth_sweep, {"configs": [CONFIG], "seeds": (0,), "length": 4, "batch_size": 2}),
    "predict": (predict, {"config": CONFIG, "tokens": 8, "gain": 1.0}),
    "train": (partial(train, progress=False), {"model": MODEL, "task": TokenMap(11, 4, 2), "config": STEP}),
    "train in a folder": (
        partial(train, MODEL, TokenMap(11, 4, 2), STEP, progress=False), {"out": None, "plan": None}
    ),
    "greedy": (
        greedy, {"model": MODEL, "prompt": X, "max_new_tokens": 2, "end": 3, "padding": torch.zeros(2, 4).bool()}
    ),
    "sample": (
        partial(sample, MODEL, X, 2),
        {"generator": torch.Generator(), "temperature": 1.0, "top_k": 3, "top_p": 0.9, "start": None},
    ),
    "beam_search": (partial(beam_search, MODEL, X, 2), {"beams": 2, "length_penalty": 1.0, "end": 3}),
    "TokenMap": (TokenMap, {"vocab_size": 5, "length": 4, "batch_size": 2}),
    "PreviousToken": (PreviousToken, {"vocab_size": 5, "length": 4, "batch_size": 2}),
    "PythonDocs": (PythonDocs, {"length": 4, "batch_size": 2}),
    "BytePairs": (BytePairs, {"merges": (), "languages": ()}),
    "BytePairs.train": (BytePairs.train, {"text": "abc abc", "vocab_size": 300, "languages": ()}),
    "BytePairs.encode": (BytePairs().encode, {"text": "abc"}),
    "BytePairs.decode": (BytePairs().decode, {"tokens": [100, 101]}),
    "PackedText": (
        PackedText,
        {"documents": ["a text of many letters"] * 20, "tokenizer": None, "length": 4, "batch_size": 2, "seed": 0},
    ),
    "Translations": (
        Translations,
        {"pairs": [("a", "b")] * 4, "tokenizer": BytePairs(), "max_tokens": 64, "max_length": 16, "seed": 0},
    ),
    "count_parameters": (count_parameters, {"config": CONFIG}),
    "flops_per_token": (flops_per_token, {"config": CONFIG, "tokens": 8, "source_tokens": 0}),
    "training_memory": (
        training_memory,
        {"config": CONFIG, "sequences": 2, "tokens": 8, "checkpoint_every": 0, "path": "auto", "precision": "float32"},
    ),
    "training_time": (training_time, {"config": CONFIG, "sequences": 2, "tokens": 8}),
    "settings_that_fit": (settings_that_fit, {"config": CONFIG, "sequences": 2, "tokens": 8, "limit_bytes": 10**9}),
    "explain": (explain, {"config": CONFIG, "sequences": 2, "tokens": 8, "limit_bytes": 10**9}),
    "peak_of": (peak_of, {"device_name": "A100", "precision": "bf16"}),
    "find_shape": (find_shape, {"given": "small_1000"}),
}  # fmt: skip
#: Of formulas: a number for each kind of argument.
NUMBERS = {"Array": np.full(6, 0.1), "int": 4, "float": 0.5}
for _name in theory.__all__:
    _function = getattr(theory, _name)
    if _name not in ("Moments", "predict", "mixing_matrix"):
        _given: dict[str, Any] = {}
        for _argument in inspect.signature(_function).parameters.values():
            _words = str(_argument.annotation)
            _given[_argument.name] = (
                (NUMBERS["Array"], NUMBERS["Array"], 2.0, NUMBERS["Array"]) if "tuple" in _words
                else "gelu" if "gelu" in _words
                else "post_ln" if "post_ln" in _words
                else True if "bool" in _words
                else NUMBERS["Array"] if "ndarray" in _words
                else 4 if "int" in _words
                else 0.5
            )  # fmt: skip
        CALLS[f"theory.{_name}"] = (_function, _given)


def complaint(work: Callable[[], Any]) -> str | None:
    """What is wrong with how a call ended; None where it gave a result, or a sentence of ours."""
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            work()
    except (ValueError, TypeError, UserError) as error:
        trace = error.__traceback__
        assert trace is not None
        while trace.tb_next is not None:
            trace = trace.tb_next
        file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        said = linecache.getline(file, line).strip()
        if not file.startswith(PACKAGE) or not said.startswith("raise"):
            return f"{type(error).__name__}: {error} ({file}:{line}: {said})"
        if " " not in str(error) or len(str(error)) > 700:
            return f"no sentence: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_works(name: str) -> None:
    function, given = CALLS[name]
    function(**given)


@pytest.mark.parametrize("name", CALLS)
def test_whatever_is_given_there_is_a_result_or_a_sentence(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    function, given = CALLS[name]
    wrong = []
    for argument in given:
        for i, value in enumerate(VALUES):
            if said := complaint(lambda changed={**given, argument: value}: function(**changed)):
                wrong.append(f"{argument} = value {i}: {said[:300]}")
    assert not wrong, f"{len(wrong)} of {len(given) * len(VALUES)}:\n" + "\n".join(wrong[:40])


def test_several_arguments_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chance, wrong = random.Random(0), []
    for _ in range(600):
        name = chance.choice(list(CALLS))
        function, given = CALLS[name]
        changed = {a: chance.choice(VALUES) if chance.random() < 0.4 else value for a, value in given.items()}
        if said := complaint(partial(function, **changed)):
            wrong.append(f"{name}: {said[:300]}")
    assert not wrong, "\n".join(wrong[:30])


# --- the mechanism


def test_checked_leaves_a_function_what_it_is() -> None:
    @checked(b=str)
    def add(a: int, *rest: int, b: str = "x", **more: Any) -> str:
        """Its text."""
        return f"{a}{rest}{b}{more}"

    assert add.__doc__ == "Its text."
    assert list(inspect.signature(add).parameters) == ["a", "rest", "b", "more"]
    assert add(1, b=2, c=3) == "1()2{'c': 3}"  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^a='x': expected a whole number.$"):
        add("x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing 1 required"):
        add()  # type: ignore[call-arg]


def test_numpy_numbers_become_pythons() -> None:
    config = ModelConfig("decoder", "lm", np.int64(2), **{**SIZES, "dropout": np.float32(0.5)})  # type: ignore[arg-type]
    assert type(config.decoder_layers) is int
    assert type(config.dropout) is float
    assert TrainConfig(steps=np.int32(4)).steps == 4  # type: ignore[arg-type]
    check_fields(config)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shared_embeddings": "yes"}, "shared_embeddings='yes': expected True or False."),
        ({"dropout": "0.1"}, "dropout='0.1': expected a number."),
        ({"residual": []}, "residual=\\[\\]: expected text."),
        ({"d_model": 10**16}, "expected a whole number, 1 or more, at most"),
    ],
)
def test_settings_of_a_wrong_type(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ModelConfig("decoder", "lm", 1, **{**SIZES, **change})


def test_a_loader_of_pytorch_is_no_task() -> None:
    loader = torch.utils.data.DataLoader([1, 2])  # type: ignore[arg-type,var-annotated]
    with pytest.raises(ValueError, match=r"task=.*expected a Task, for example PythonDocs\(\), or any object with a"):
        train(MODEL, loader, STEP, progress=False)  # type: ignore[arg-type]


def test_a_function_to_be_called_is_one() -> None:
    with pytest.raises(ValueError, match="on_step='print': expected a function or None."):
        train(MODEL, TokenMap(11, 4, 2), STEP, progress=False, on_step="print")  # type: ignore[arg-type]


# --- sizes


@pytest.mark.parametrize("change", [{"decoder_layers": 10**9}, {"d_model": 10**9}, {"vocab_size": 10**9}])
def test_a_model_that_does_not_fit_is_refused_with_its_numbers(change: dict[str, int]) -> None:
    config = ModelConfig(**{**vars(CONFIG), **change})
    with pytest.raises(ValueError, match=r"A model of .* parameters needs .* GB of memory or more, this machine has"):
        build_model(config)


def test_on_meta_only_modules_take_room() -> None:
    wide = ModelConfig(**{**vars(CONFIG), "d_model": 10**6, "d_ff": 10**6, "decoder_layers": 2})
    assert next(build_model(wide, device="meta").parameters()).device.type == "meta"
    with pytest.raises(ValueError, match="GB of memory or more"):
        build_model(ModelConfig(**{**vars(CONFIG), "decoder_layers": 10**9}), device="meta")


def test_batches_and_predictions_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="10,000,000 × 10,000,000 tokens needs"):
        random_batch(CONFIG, 10**7, 10**7)
    with pytest.raises(ValueError, match="at most 10,000,000"):
        predict(CONFIG, 10**12)
    with pytest.raises(ValueError, match="A prediction of 1,000,000,000 layers needs"):
        predict(ModelConfig(**{**vars(CONFIG), "decoder_layers": 10**9}), 8)
    assert len(predict(CONFIG, 10**6).variance) == 2
