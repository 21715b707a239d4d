"""Masked language modelling: what BERT's Section 3.1 says, counted."""

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from deepnet_edu import Batch, ModelConfig, TrainConfig, build_model, probe, train
from deepnet_edu.data import BytePairs, MaskedText, PackedText, PythonDocs, mask_tokens
from deepnet_edu.experiment.config import find_run
from deepnet_edu.experiment.data import DataConfig, make_task
from deepnet_edu.messages import UserError

MASK, ORDINARY, IGNORED = 300, range(3, 300), -100
DOCUMENTS = [f"Document {i} has the number {i * i}. " * (i % 5 + 1) for i in range(40)]
SHAPE = {"d_model": 32, "n_heads": 2, "d_ff": 64, "max_length": 32}


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(rows: int, length: int, seed: int = 9) -> torch.Tensor:
    return torch.randint(ORDINARY.start, ORDINARY.stop, (rows, length), generator=draws(seed))


def packed(**settings: int) -> MaskedText:
    return MaskedText(PackedText(DOCUMENTS, **{"length": 16, "batch_size": 4} | settings))


def encoder(text: MaskedText, layers: int = 2) -> ModelConfig:
    return ModelConfig("encoder", "mlm", encoder_layers=layers, vocab_size=text.vocab_size, **SHAPE)


def test_15_percent_are_answers_and_80_10_10_is_what_becomes_of_them() -> None:
    """Within five standard errors of each share, of 60,000 answers."""
    x = tokens(4000, 100)
    inputs, targets = mask_tokens(x, MASK, ORDINARY, draws())
    chosen = targets != IGNORED
    assert chosen.sum(1).unique().tolist() == [15]
    assert torch.equal(inputs[~chosen], x[~chosen])
    assert torch.equal(targets[chosen], x[chosen])
    n, V = int(chosen.sum()), len(ORDINARY)
    hidden = (inputs == MASK)[chosen].double().mean().item()
    same = (inputs == x)[chosen].double().mean().item()  # one in V of the random tokens is the old one by chance
    for found, expected in ((hidden, 0.8), (same, 0.1 + 0.1 / V), (1 - hidden - same, 0.1 - 0.1 / V)):
        assert found == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / n))


def test_each_position_and_each_replacement_is_as_likely_as_any_other() -> None:
    x = tokens(20_000, 20)
    inputs, targets = mask_tokens(x, MASK, ORDINARY, draws())
    chosen = targets != IGNORED
    assert chosen.double().mean(0).tolist() == pytest.approx([0.15] * 20, abs=5 * math.sqrt(0.15 * 0.85 / 20_000))
    replaced = inputs[chosen & (inputs != MASK) & (inputs != x)]
    counts = replaced.bincount(minlength=MASK)[ORDINARY.start :].double()
    assert replaced.min() >= ORDINARY.start
    chi_squared = ((counts - counts.mean()) ** 2 / counts.mean()).sum().item()
    assert chi_squared == pytest.approx(len(ORDINARY), abs=6 * math.sqrt(2 * len(ORDINARY)))


def test_special_tokens_and_padding_are_never_chosen() -> None:
    x = tokens(500, 40)
    x[:, 0], x[:, 20] = 1, 2
    padding = torch.arange(40) >= torch.randint(5, 40, (500, 1), generator=draws(1))
    inputs, targets = mask_tokens(x, MASK, ORDINARY, draws(), padding=padding)
    untouched = padding | (x < ORDINARY.start)
    assert torch.equal(inputs[untouched], x[untouched])
    assert (targets[untouched] == IGNORED).all()
    free = (~untouched).sum(1)
    assert (targets != IGNORED).sum(1).tolist() == [max(1, round(0.15 * n)) for n in free.tolist()]


def test_a_short_sequence_has_one_answer_and_one_without_text_has_none() -> None:
    assert (mask_tokens(tokens(50, 2), MASK, ORDINARY, draws())[1] != IGNORED).sum(1).tolist() == [1] * 50
    nothing = torch.full((2, 6), 2)
    inputs, targets = mask_tokens(nothing, MASK, ORDINARY, draws())
    assert torch.equal(inputs, nothing)
    text = packed()
    assert build_model(encoder(text)).loss(Batch(inputs, targets)).item() == 0


def test_what_cannot_be_masked_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"Tokens of shape \(5,\): expected \(B, T\)"):
        mask_tokens(tokens(1, 5)[0], MASK, ORDINARY, draws())
    with pytest.raises(ValueError, match="share=1.5: expected .* from 0 to 1"):
        mask_tokens(tokens(1, 5), MASK, ORDINARY, draws(), share=1.5)
    with pytest.raises(ValueError, match=r"ordinary=range\(0, 0\): expected the tokens that stand for text"):
        mask_tokens(tokens(1, 5), MASK, range(0), draws())
    with pytest.raises(ValueError, match=r"padding of shape \(1, 4\): expected \(1, 5\)"):
        mask_tokens(tokens(1, 5), MASK, ORDINARY, draws(), padding=torch.zeros(1, 4, dtype=torch.bool))


def test_text_has_a_mask_token_of_its_own_and_ends_are_left_alone() -> None:
    text = packed(batch_size=64)
    assert text.mask == BytePairs().vocab_size == text.vocab_size - 1
    generator = draws()
    for _ in range(20):
        batch = text.batch(generator)
        assert int(batch.inputs.max()) == text.mask
        answers = batch.targets[batch.targets != IGNORED]
        assert answers.min() >= text.ordinary.start
        assert answers.max() < text.mask


def test_each_epoch_has_the_same_windows_and_other_masks() -> None:
    text, generator = packed(batch_size=1), draws()
    epochs = []
    for _ in range(2):
        seen = {}
        for _ in range(text.text.windows):
            batch = text.batch(generator)
            whole = torch.where(batch.targets == IGNORED, batch.inputs, batch.targets)
            seen[tuple(whole[0].tolist())] = tuple(batch.targets[0].tolist())
        epochs.append(seen)
    first, second = epochs
    assert first.keys() == second.keys()
    assert sum(first[window] == second[window] for window in first) < 0.1 * len(first)


def test_chance_is_what_counting_says() -> None:
    """The entropy of an answer given its own input, from 800,000 of them."""
    text = MaskedText(PackedText(["abbbcccccccc" * 3] * 200, length=32, batch_size=8))
    stream = text.text.train[text.text.train >= text.ordinary.start].long()
    x = stream.repeat(2000)[: 40 * 20_000].view(-1, 40)
    inputs, targets = mask_tokens(x, text.mask, text.ordinary, draws(), share=1)
    pairs = Counter((targets * 1000 + inputs).flatten().tolist())
    alone = Counter(inputs.flatten().tolist())

    def entropy(counts: Counter[int]) -> float:
        total = sum(counts.values())
        return -sum(n / total * math.log(n / total) for n in counts.values())

    assert text.chance == pytest.approx(entropy(pairs) - entropy(alone), abs=0.004)
    assert text.chance < text.text.chance


def test_an_encoder_learns_from_what_stands_round_a_hidden_token() -> None:
    """A window has one letter of eight. A guess that sees no other token costs 1.88 nats."""
    text = MaskedText(PackedText([letter * 15 for letter in "abcdefgh" * 20], length=16, batch_size=16))
    history = train(build_model(encoder(text)), text, TrainConfig(steps=40, learning_rate=1e-2), progress=False)
    assert history.final_loss() < 0.25 * text.chance
    profile = probe(build_model(encoder(text, layers=12)), text.batch(draws()))
    assert len(profile.variance) == 24
    assert profile.judge().passed


@pytest.mark.parametrize("kind", ["packed", "bytes"])
def test_a_run_that_is_resumed_hides_the_same_tokens(kind: str, tmp_path: Path) -> None:
    def text() -> MaskedText:
        return packed() if kind == "packed" else MaskedText(PythonDocs(length=16, batch_size=4))

    config = encoder(text(), layers=1)
    whole = train(build_model(config), text(), TrainConfig(steps=6), progress=False)
    train(build_model(config), text(), TrainConfig(steps=3, save_every=3), out=tmp_path, progress=False)
    again = train(build_model(config), text(), TrainConfig(steps=6), out=tmp_path, resume=True, progress=False)
    assert again.loss == whole.loss


def test_a_run_that_reads_text_for_an_encoder(tmp_path: Path) -> None:
    settings = ["architecture=encoder", "task=mlm", "encoder_layers=2", "decoder_layers=0"]
    run = find_run("laptop-1000", [*settings, "vocab_size=129"])
    task = make_task(run.data, run.model.vocab_size, run.model.task)
    assert isinstance(task, MaskedText)
    assert task.vocab_size == 129
    pairs = make_task(DataConfig(tokenizer="bpe"), 300, "mlm")
    assert isinstance(pairs, MaskedText)
    assert pairs.vocab_size == 300
    pairs.tokenizer.save(tmp_path / "pairs.json")
    with pytest.raises(ValueError, match="has 299 tokens and the mask token and the model vocab_size=299: use .*=300"):
        make_task(DataConfig(tokenizer=str(tmp_path / "pairs.json")), 299, "mlm")
    with pytest.raises(UserError, match="has 129 tokens or more, the mask token among them"):
        find_run("laptop-1000", [*settings, "vocab_size=128"])
    classifier = ["architecture=encoder", "task=classification", "encoder_layers=1", "decoder_layers=0"]
    with pytest.raises(UserError, match="makes batches for task='lm' or 'mlm', and model.task='classification'"):
        find_run("laptop-1000", [*classifier, "vocab_size=0", "n_classes=9"])
