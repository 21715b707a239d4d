"""The set of many languages: no leak, its vocabulary, and models that train on it and write."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch

from deepnet_edu.data import BytePairs, Multilingual, Pair, kept, leaks, multilingual, translate
from deepnet_edu.data.cldr import date_pairs, name_pairs, unit_pairs
from deepnet_edu.data.multilingual import source_key
from deepnet_edu.messages import UserError
from deepnet_edu.model import Model, ModelConfig, build_model
from deepnet_edu.training import TrainConfig, train

pytestmark = pytest.mark.xdist_group("multilingual")


@pytest.fixture(scope="module")
def found() -> Multilingual:
    return multilingual(["de", "ja", "pt", "pt_BR"], sentences=60)


@pytest.fixture(scope="module")
def tokenizer(found: Multilingual) -> BytePairs:
    return found.byte_pairs(1000)


def translator(tokenizer: BytePairs, **shape: int) -> Model:
    sizes = {"d_model": 16, "n_heads": 2, "d_ff": 32, "max_length": 48, "vocab_size": tokenizer.vocab_size, **shape}
    return build_model(ModelConfig("encoder_decoder", "translation", 2, 2, **sizes))


def everything(found: Multilingual) -> list[Pair]:
    return [pair for _, part in found.parts.items() for pair in part]


def test_no_source_is_in_two_parts(found: Multilingual) -> None:
    assert leaks(found.parts, source_key) == []
    assert all(len(part) > 200 for _, part in found.parts.items())


def test_a_leak_between_sibling_languages_would_be_found(found: Multilingual) -> None:
    """Split by pair, a test source is in training with its neighbour's translation."""
    pairs = everything(found)
    by_pair = type(found.parts)(pairs[::3], pairs[1::3], pairs[2::3])
    assert len(leaks(by_pair, source_key)) > 500


def test_each_source_once_a_language_with_its_placeholders(found: Multilingual) -> None:
    pairs = everything(found)
    assert len({(pair.source, pair.language) for pair in pairs}) == len(pairs)
    assert {pair.language for pair in pairs} == {"de", "ja", "pt", "pt_BR"} == {*found.languages}
    assert all(kept(pair.source, pair.target) and pair.source and pair.target for pair in pairs)
    assert not any("\xa0" in text or "\u202f" in text for pair in pairs for text in pair[:2])


def test_what_is_in_it() -> None:
    def of(source: str, *languages: str) -> set[tuple[str, str]]:
        return {tuple(pair[:2]) for pair in everything(multilingual(languages, [source], sentences=30))}

    assert ("Delete", "Löschen") in of("messages", "de")
    assert {("Germany", "Deutschland"), ("Swahili", "Suaheli"), ("Japanese Yen", "Japanischer Yen")} <= of(
        "names", "de"
    )
    dates = of("dates", "ja")
    assert len(dates) == 30
    assert all("年" in target and "日" in target for _, target in dates)
    units = of("units", "de", "fa", "zh_Hans")
    assert "Kilo" in " ".join(target for _, target in units)
    assert not any("-" in target for _, target in units)


def test_sentences_are_the_seed_s_and_of_all_languages() -> None:
    first, again, other = (multilingual(["de", "fr"], ["dates"], sentences=20, seed=seed) for seed in (1, 1, 2))
    assert everything(first) == everything(again) != everything(other)
    sources = {language: {p.source for p in everything(first) if p.language == language} for language in ("de", "fr")}
    assert sources["de"] == sources["fr"]


@pytest.mark.parametrize(
    ("languages", "sources", "sentence"),
    [
        (["de", "fre"], ["names"], "Unknown language 'fre': did you mean 'fr'"),
        (["pt-BR"], ["names"], "Unknown language 'pt-BR': did you mean 'pt_BR'"),
        (["en"], ["names"], "Language 'en' is that of all sources: name those to translate into"),
        (["de"], ["dates", "date"], "Unknown source 'date': did you mean 'dates'"),
    ],
)
def test_a_name_that_does_not_exist(languages: list[str], sources: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        multilingual(languages, sources)


def test_other_bad_settings() -> None:
    with pytest.raises(ValueError, match=r"languages='de': expected a list, for example \['de'\]"):
        multilingual("de")
    for sentences in (-1, 36_526):
        with pytest.raises(ValueError, match=f"sentences={sentences}: expected"):
            multilingual(["de"], ["dates"], sentences=sentences)


def test_no_day_comes_twice() -> None:
    """Else one part would say it with its weekday, and another without."""
    dates = [pair for pair in everything(multilingual(["ja"], ["dates"], sentences=3000)) if "～" not in pair.target]
    days = [pair.target.split("日")[0] for pair in dates]
    assert len({*days}) == len(days) == 2000


@pytest.mark.parametrize("language", ["???", "de-DE", "xx", ""])
def test_of_what_is_no_name_of_a_language_cldr_has_nothing(language: str) -> None:
    for pairs in (name_pairs, lambda names: date_pairs(names, 3), lambda names: unit_pairs(names, 3)):
        assert [*pairs([language])] == []


@pytest.mark.parametrize("count", [-1, 36_526])
def test_more_days_than_there_are(count: int) -> None:
    with pytest.raises(ValueError, match=f"count={count}: expected 0 to 36525"):
        date_pairs(["de"], count)


def test_a_broken_catalog_takes_nothing_else_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry is skipped, counted and reported, and all others of its file and of other sources are there."""
    path = tmp_path / "app" / "locale" / "de" / "LC_MESSAGES" / "django.po"
    path.parent.mkdir(parents=True)
    path.write_text('msgid "Yes"\nmsgstr "Ja"\n\nmsgid "No\nmsgstr "Nein"\n\nmsgid "Maybe"\nmsgstr "Vielleicht"\n')
    monkeypatch.setattr(import_module("deepnet_edu.data.multilingual"), "django_root", lambda: tmp_path)
    monkeypatch.setattr("deepnet_edu.data.catalogs.django_root", lambda: tmp_path)
    with pytest.warns(UserWarning, match="1 entries of catalogs cannot be read and were left out, the first in app/"):
        found = multilingual(["de"], ["messages", "dates"], sentences=3)
    assert found.skipped == {"cannot be read": 1}
    targets = {pair.target for pair in everything(found)}
    assert {"Ja", "Vielleicht"} < targets
    assert len(targets) == 5


def test_a_language_that_cldr_lacks_has_its_messages() -> None:
    found = multilingual(["udm"], sentences=5)
    assert {pair.language for pair in everything(found)} == {"udm"}


# --- one vocabulary


def test_the_vocabulary_is_learned_once(found: Multilingual, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "workspace" / "data"
    first = found.byte_pairs(800, folder)
    (file,) = folder.iterdir()
    monkeypatch.setattr(BytePairs, "train", None)
    again = found.byte_pairs(800, folder)
    assert (again.merges, again.languages) == (first.merges, first.languages)
    assert first.languages == found.languages
    monkeypatch.undo()
    assert found.byte_pairs(900, folder).vocab_size == 900
    assert len([*folder.iterdir()]) == 2
    file.write_text(file.read_text()[:-50])
    assert found.byte_pairs(800, folder).merges == first.merges
    assert BytePairs.load(file).merges == first.merges


def test_placeholders_are_one_letter_to_a_model(found: Multilingual, tokenizer: BytePairs) -> None:
    assert not any("%(" in text for text in found.texts())
    assert any("\ue000" in text for text in found.texts())
    assert len(tokenizer.encode("\ue000")) == 1


# --- training and writing


def test_a_translator_trains(found: Multilingual, tokenizer: BytePairs) -> None:
    with pytest.warns(UserWarning, match="have more tokens than max_length=48"):
        task = found.task(tokenizer, max_tokens=512, max_length=48)
    history = train(translator(tokenizer), task, TrainConfig(steps=2, learning_rate=1e-3), progress=False)
    assert len(history.loss) == 2
    assert all(0 < loss < 20 for loss in history.loss)
    json.dumps(task.state())


def test_the_other_parts_are_tasks_too(found: Multilingual, tokenizer: BytePairs) -> None:
    sizes = [len(found.task(tokenizer, part, max_length=512)) for part in ("train", "validation", "test")]
    assert sizes == [len(part) for _, part in found.parts.items()]
    with pytest.raises(ValueError, match="Unknown part 'tests': did you mean 'test'"):
        found.task(tokenizer, "tests")


def test_it_learns_what_it_is_given() -> None:
    """Eight pairs by heart, with their placeholders put back; greedy and by a beam."""
    pairs = [
        Pair(f"Delete {name} %({name})s", f"%({name})s {word}", language)
        for name, word in (("file", "Datei"), ("user", "Benutzer"), ("page", "Seite"), ("site", "Ort"))
        for language in ("de", "fr")
    ]
    found = Multilingual(type(multilingual(["de"], []).parts)(pairs, [], []), ("de", "fr"), None)  # type: ignore[arg-type]
    tokenizer = found.byte_pairs(261 + 40)
    model = translator(tokenizer, d_model=32, d_ff=64)
    train(model, found.task(tokenizer), TrainConfig(steps=150, learning_rate=1e-2), progress=False)
    for beams in (1, 3):
        outputs = translate(
            model, tokenizer, [p.source for p in pairs], [p.language for p in pairs], beams=beams, batch_size=3
        )
        assert outputs == [pair.target for pair in pairs]


@pytest.mark.parametrize("sentence", ["", "  \n"])
def test_an_empty_source(tokenizer: BytePairs, sentence: str) -> None:
    with pytest.raises(ValueError, match="A sentence is empty: there is nothing to translate"):
        translate(translator(tokenizer), tokenizer, ["Delete", sentence], "de")


def test_what_cannot_be_translated(tokenizer: BytePairs) -> None:
    model = translator(tokenizer)
    with pytest.raises(ValueError, match=r"has 1\d\d tokens, and the model 48 positions: give it in shorter pieces"):
        translate(model, tokenizer, ["Delete " * 60], "de")
    with pytest.raises(ValueError, match="Unknown language 'pt_BRR': did you mean 'pt_BR'"):
        translate(model, tokenizer, ["Delete"], "pt_BRR")
    with pytest.raises(ValueError, match="longest=0: expected a whole number from 1"):
        translate(model, tokenizer, ["Delete"], "de", longest=0)
    with pytest.raises(ValueError, match="2 languages for 1 sentences"):
        translate(model, tokenizer, ["Delete"], ["de", "ja"])
    with pytest.raises(ValueError, match="expected a list of strings"):
        translate(model, tokenizer, "Delete", "de")
    lm = build_model(ModelConfig("decoder", "lm", 1, d_model=8, n_heads=2, d_ff=8, vocab_size=1000))
    with pytest.raises(ValueError, match="cannot translate: build one with task='translation'"):
        translate(lm, tokenizer, ["Delete"], "de")
    with pytest.raises(ValueError, match="The tokenizer has 1000 tokens, the model 500"):
        translate(translator(tokenizer, vocab_size=500), tokenizer, ["Delete"], "de")
    assert translate(model, tokenizer, [], "de") == []


def test_a_padded_sentence_is_translated_as_alone(tokenizer: BytePairs) -> None:
    model = translator(tokenizer)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(3))
    sentences = ["Delete", "Are you sure you want to delete this?", "Yes"]
    together = translate(model, tokenizer, sentences, ["de", "ja", "pt"], longest=6)
    alone = [
        translate(model, tokenizer, [one], tag, longest=6)[0]
        for one, tag in zip(sentences, ["de", "ja", "pt"], strict=True)
    ]
    assert together == alone
