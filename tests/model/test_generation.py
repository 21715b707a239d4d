"""Writing with a cache against writing without, sampling against the softmax, beams against all sequences there are."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deepnet_edu import ModelConfig, build_model
from deepnet_edu.model import Model, Translator
from deepnet_edu.model.generation import beam_search, filtered, greedy, sample
from deepnet_edu.residual import Architecture
from tests.rules import CLAIMS, small_config

SIZES = {"d_model": 16, "n_heads": 2, "d_ff": 32, "vocab_size": 5, "max_length": 20}
LM = ModelConfig("decoder", "lm", 2, **SIZES)
MT = ModelConfig("encoder_decoder", "translation", 2, 2, **SIZES)


def peaked(config: ModelConfig, seed: int = 0) -> Model:
    """Random models are almost undecided; a larger head makes them say something."""
    model = build_model(config, seed)
    with torch.no_grad():
        model.head.weight.mul_(3)
    return model


def settings(config: ModelConfig) -> dict[str, int]:
    return {"start": 0} if config is MT or config.task == "translation" else {}


def logits_after(model: Model, prompt: Tensor, written: Tensor) -> Tensor:
    """Of the next token, from the whole sequence at once. prompt: (B, T), written: (B, n)."""
    with torch.no_grad():
        if isinstance(model, Translator):
            return model(prompt, torch.cat([torch.zeros_like(prompt[:, :1]), written], 1))[:, -1]
        return model(torch.cat([prompt, written], 1))[:, -1]


LONGEST = 4
PROMPTS = torch.randint(4, (3, 3), generator=torch.Generator().manual_seed(5))


@cache
def all_log_probabilities(config: ModelConfig, seed: int, row: int) -> dict[tuple[int, ...], float]:
    """log P of every sequence up to ``LONGEST`` tokens after a prompt, level by level."""
    model, prompt = peaked(config, seed), PROMPTS[row : row + 1]
    known = {(): 0.0}
    for n in range(LONGEST):
        prefixes = list(product(range(config.vocab_size), repeat=n))
        written = torch.tensor(prefixes, dtype=torch.long).view(len(prefixes), n)
        log_p = logits_after(model, prompt.expand(len(prefixes), -1), written).log_softmax(-1).tolist()
        for prefix, following in zip(prefixes, log_p, strict=True):
            known |= {(*prefix, token): known[prefix] + following[token] for token in range(config.vocab_size)}
    return known


@pytest.mark.usefixtures("both_paths", "double")
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize("config", [LM, MT], ids=["lm", "translation"])
def test_greedy_takes_the_best_at_every_step(config: ModelConfig, position: str) -> None:
    model = peaked(replace(config, position=position))
    prompts = torch.randint(5, (3, 4))
    written = greedy(model, prompts, 8, **settings(config))
    assert written.shape == (3, 8)
    for row, prompt in enumerate(prompts):
        for i in range(8):
            expected = logits_after(model, prompt[None], written[row : row + 1, :i]).argmax(-1)
            assert written[row, i] == expected


@pytest.mark.usefixtures("both_paths", "double")
@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("config", [LM, MT], ids=["lm", "translation"])
def test_a_padded_batch_writes_what_each_row_writes_alone(config: ModelConfig, position: str) -> None:
    model = peaked(replace(config, position=position))
    batch = torch.randint(5, (2, 6))
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[0, :3] = True
    for write in (greedy, lambda *a, **k: beam_search(*a, beams=3, end=4, **k)[0]):
        together = write(model, batch, 5, padding=padding, **settings(config))
        for row, prompt in ((0, batch[:1, 3:]), (1, batch[1:])):
            alone = write(model, prompt, 5, **settings(config))
            assert together[row, : alone.shape[1]].tolist() == alone[0].tolist()


def test_end_fills_the_row_and_stops_when_all_are_done() -> None:
    model = peaked(LM)
    prompts = torch.randint(5, (8, 4))
    free = greedy(model, prompts, 10)
    end = int(free[0, 1])
    written = greedy(model, prompts, 10, end=end)
    for row, full in zip(written.tolist(), free.tolist(), strict=True):
        stop = full.index(end) + 1 if end in full else len(full)
        assert row[:stop] == full[:stop][: len(row)]
        assert set(row[stop:]) <= {end}
    alone = greedy(model, prompts[:1], 10, end=end)
    assert alone.shape[1] == free[0].tolist().index(end) + 1


@pytest.mark.usefixtures("both_paths")
def test_sampling_follows_the_softmax_at_a_temperature() -> None:
    model = peaked(LM)
    prompt = torch.randint(5, (1, 4))
    expected = (logits_after(model, prompt, prompt[:, :0]) / 1.7).softmax(-1)[0]
    drawn = sample(
        model, prompt.expand(20_000, 4), 1, temperature=1.7, generator=torch.Generator().manual_seed(0)
    ).flatten()
    found = torch.bincount(drawn, minlength=5) / len(drawn)
    chi_squared = ((found - expected).square() / expected).sum().item() * len(drawn)
    assert chi_squared < 18.5  # 0.1% of the time by chance, with 4 degrees of freedom


def test_the_same_generator_writes_the_same() -> None:
    model, prompt = peaked(LM), torch.randint(5, (4, 3))
    first, again, other = (
        sample(model, prompt, 9, generator=torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_top_k_and_top_p_leave_out_exactly_the_others() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.4, 0.05, 0.25, 0.2]]))

    def left(top_k: int | None, top_p: float) -> list[int]:
        return filtered(logits, top_k, top_p)[0].isfinite().nonzero().flatten().tolist()

    assert left(None, 1.0) == [0, 1, 2, 3, 4]
    assert left(2, 1.0) == [1, 3]
    assert left(9, 1.0) == [0, 1, 2, 3, 4]
    assert left(None, 0.39) == [1]
    assert left(None, 0.41) == [1, 3]
    assert left(None, 0.66) == [1, 3, 4]
    assert left(None, 1e-9) == [1]
    assert left(2, 0.61) == [1]  # of the two, the first has 0.4 / 0.65 = 0.615
    assert left(2, 0.62) == [1, 3]
    model, prompt = peaked(LM), torch.randint(5, (6, 3))
    assert torch.equal(sample(model, prompt, 6, generator=torch.Generator(), top_k=1), greedy(model, prompt, 6))


@pytest.mark.usefixtures("both_paths", "double")
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("end", [None, 3])
@pytest.mark.parametrize("config", [LM, MT], ids=["lm", "translation"])
def test_enough_beams_find_the_best_of_all_sequences(
    config: ModelConfig, end: int | None, length_penalty: float
) -> None:
    config = replace(config, vocab_size=4)
    for seed in range(2):
        model = peaked(config, seed)
        tokens, scores = beam_search(
            model, PROMPTS, LONGEST, beams=64, length_penalty=length_penalty, end=end, **settings(config)
        )
        for row in range(3):
            every = all_log_probabilities(config, seed, row)
            known = {
                s: log_p / len(s) ** length_penalty
                for s, log_p in every.items()
                if s and end not in s[:-1] and (len(s) == LONGEST or s[-1] == end)
            }
            best = max(known, key=known.__getitem__)
            found = tokens[row].tolist()
            assert tuple(found[: len(best)]) == best
            assert set(found[len(best) :]) <= {end}
            assert scores[row].item() == pytest.approx(known[best], abs=1e-9)


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("config", [LM, MT], ids=["lm", "translation"])
def test_one_beam_is_greedy_and_more_are_not_worse(config: ModelConfig) -> None:
    model, prompts = peaked(config), torch.randint(5, (6, 4))
    one, score = beam_search(model, prompts, 7, beams=1, **settings(config))
    assert torch.equal(one, greedy(model, prompts, 7, **settings(config)))
    _, better = beam_search(model, prompts, 7, beams=12, **settings(config))
    assert (better >= score - 1e-5).all()
    if config is LM:
        assert (better > score + 1e-3).any()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("residual", "architecture"), [claim for claim in CLAIMS if claim[1] != "encoder"])
def test_every_rule_scores_its_beams_as_without_a_cache(residual: str, architecture: Architecture) -> None:
    """Beams change rows in the cache, and a row is padded: what they found has that probability when read at once."""
    config = small_config(residual, architecture)
    model, prompt = peaked(config), torch.randint(11, (2, 4))
    padding = torch.tensor([[True, True, False, False], [False] * 4])
    written, score = beam_search(model, prompt, 4, beams=3, length_penalty=0, padding=padding, **settings(config))
    with torch.no_grad():
        if isinstance(model, Translator):
            read = torch.cat([torch.zeros_like(written[:, :1]), written[:, :-1]], 1)
            logits = model(prompt, read, padding)
        else:
            logits = model(torch.cat([prompt, written[:, :-1]], 1), F.pad(padding, (0, 3)))[:, 3:]
    found = logits.log_softmax(-1).gather(-1, written[..., None]).sum((1, 2))
    torch.testing.assert_close(score, found, rtol=1e-9, atol=1e-9)


def test_a_vocabulary_of_two() -> None:
    model = peaked(replace(LM, vocab_size=2))
    tokens, score = beam_search(model, torch.zeros(2, 1, dtype=torch.long), 5, beams=1, end=1)
    assert tokens.shape[0] == 2
    assert score.isfinite().all()


def test_a_model_in_training_writes_without_dropout_and_stays_in_training() -> None:
    model = peaked(replace(LM, dropout=0.5))
    model.stack.layers[0].eval()
    modes = [module.training for module in model.modules()]
    prompt = torch.randint(5, (2, 3))
    assert torch.equal(greedy(model, prompt, 9), greedy(model, prompt, 9))
    assert [module.training for module in model.modules()] == modes


PROMPT = torch.zeros(2, 3, dtype=torch.long)
RIGHT = torch.tensor([[False, False, True]] * 2)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"prompt": PROMPT[0]}, r"prompt of shape \(3,\): expected \(B, T\).*prompt\[None\]"),
        ({"prompt": PROMPT[:, :0]}, "at least one token"),
        ({"prompt": PROMPT.to("meta")}, r"The prompt is on meta, the model on cpu: use prompt.to\('cpu'\)"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: expected a whole number, 1 or more"),
        ({"max_new_tokens": 19}, "need 21 positions, the model has 20.*max_length=21"),
        ({"end": 5}, "end=5 is outside the vocabulary: expected 0 to 4"),
        ({"start": 0}, "start=0: a model for task='lm' continues its prompt: leave out start"),
        ({"padding": RIGHT}, "padded on the right, where it is continued: pad it on the left"),
        ({"padding": RIGHT[:1]}, r"padding of shape \(1, 3\)"),
        ({"temperature": 0.0}, "temperature=0.0: expected a positive number"),
        ({"top_k": 0}, "top_k=0: expected 1 or more"),
        ({"top_p": 0.0}, "top_p=0.0: expected more than 0"),
        ({"beams": 0}, "beams=0: expected a whole number"),
        ({"length_penalty": -1.0}, "length_penalty=-1.0: expected 0 or more"),
    ],
)
def test_what_cannot_be_written_is_refused(given: dict, sentence: str) -> None:
    arguments = {"prompt": PROMPT, "max_new_tokens": 2, **given}
    model = build_model(LM)
    write: Callable[..., object] = greedy
    if given.keys() & {"temperature", "top_k", "top_p"}:
        write = partial(sample, generator=torch.Generator())
    elif given.keys() & {"beams", "length_penalty"}:
        write = beam_search
    with pytest.raises(ValueError, match=sentence):
        write(model, **arguments)


def test_the_longest_that_fits_is_written() -> None:
    assert greedy(build_model(LM), PROMPT, 18).shape == (2, 18)


def test_models_that_cannot_write_say_so() -> None:
    encoder = build_model(ModelConfig("encoder", "mlm", encoder_layers=1, **SIZES))
    with pytest.raises(ValueError, match="task='mlm' cannot write: build one with task='lm' or 'translation'"):
        greedy(encoder, PROMPT, 2)
    with pytest.raises(ValueError, match="start=None: a model for task='translation' needs a start token"):
        greedy(build_model(MT), PROMPT, 2)
