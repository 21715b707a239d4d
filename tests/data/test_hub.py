"""Loading, on small local files in the formats of the hub, which no test reaches."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from deepnet_edu.data import (
    PRESETS,
    BytePairs,
    Images,
    PackedText,
    Pair,
    Translations,
    load_images,
    load_text,
    load_translation,
)
from deepnet_edu.messages import UserError

ROWS = [{"de": f"Satz {i}", "en": f"sentence {i}"} for i in range(30)]
PAIRS = [Pair(row["de"], row["en"]) for row in ROWS]
STREAMING = pytest.mark.parametrize("streaming", [False, True])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The same pairs in every format, and a folder as a hub's repository, with two configurations."""
    nested = [{"translation": row} for row in ROWS]
    (tmp_path / "nested.json").write_text("\n".join(map(json.dumps, nested)))
    (tmp_path / "flat.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "flat.csv").write_text("de,en\n" + "\n".join(f"{row['de']},{row['en']}" for row in ROWS))
    datasets.Dataset.from_list(nested).to_parquet(tmp_path / "nested.parquet")
    (tmp_path / "lines.txt").write_text("\n".join(row["de"] for row in ROWS))
    repository = tmp_path / "opus"
    repository.mkdir()
    listed = []
    for pair in ("de-en", "en-fr"):
        rows = [{"translation": {pair[:2]: row["de"], pair[3:]: row["en"]}} for row in ROWS]
        datasets.Dataset.from_list(rows).to_parquet(repository / f"{pair}.parquet")
        listed.append(f"- config_name: {pair}\n  data_files: {pair}.parquet\n")
    (repository / "README.md").write_text("---\nconfigs:\n" + "".join(listed) + "---\n")
    return tmp_path


@STREAMING
@pytest.mark.parametrize("name", ["nested.json", "flat.jsonl", "flat.csv", "nested.parquet"])
def test_pairs_of_every_format(files: Path, name: str, streaming: bool) -> None:
    rows = load_translation(files / name, "de", "en", streaming=streaming)
    # Once for the tokenizer, once for the batches.
    assert list(rows) == list(rows) == PAIRS


@STREAMING
def test_direction_tag_and_limit(files: Path, streaming: bool) -> None:
    rows = load_translation(files / "flat.csv", "en", "de", tagged=True, streaming=streaming, limit=3)
    assert list(rows) == [Pair(row["en"], row["de"], "de") for row in ROWS[:3]]


@STREAMING
def test_text_of_every_format(files: Path, streaming: bool) -> None:
    assert list(load_text(files / "lines.txt", streaming=streaming)) == [row["de"] for row in ROWS]
    assert list(load_text(files / "flat.csv", column="en", streaming=streaming, limit=2)) == [
        "sentence 0",
        "sentence 1",
    ]


def test_a_folder_in_the_form_of_a_hub_s_repository(files: Path) -> None:
    opus = files / "opus"
    assert list(load_translation(opus, "de", "en", config="de-en")) == PAIRS
    with pytest.raises(UserError, match=r"opus: Unknown configuration 'de-fr': did you mean '(de-en|en-fr)'"):
        load_translation(opus, "de", "fr", config="de-fr")
    with pytest.raises(UserError, match="Unknown split"):
        load_translation(opus, "de", "en", config="de-en", split="trian")


def test_from_the_file_to_the_batch(files: Path) -> None:
    rows = load_translation(files / "nested.json", "de", "en")
    tokenizer = BytePairs.train((text for pair in rows for text in pair[:2]), 300)
    assert len(Translations(rows, tokenizer)) == 30
    assert PackedText(load_text(files / "lines.txt"), tokenizer, length=8).windows >= 10


def test_rows_that_lack_a_text_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "gaps.jsonl"
    path.write_text("\n".join(map(json.dumps, [{"de": None, "en": "a"}, {"de": "b", "en": "c"}, {"de": "d"}])))
    assert list(load_translation(path, "de", "en")) == [Pair("b", "c")]
    assert list(load_text(path, column="en")) == ["a", "c"]


@pytest.mark.parametrize(
    ("preset", "languages", "asked"),
    [
        ("iwslt14-de-en", ("de", "en"), ("bbaaaa/iwslt14-de-en", None)),
        ("wmt17-en-de", ("en", "de"), ("wmt/wmt17", "de-en")),
        ("opus-100", ("en", "de"), ("Helsinki-NLP/opus-100", "de-en")),
        ("opus-100", ("fr", "en"), ("Helsinki-NLP/opus-100", "en-fr")),
    ],
)
def test_presets(
    monkeypatch: pytest.MonkeyPatch, preset: str, languages: tuple[str, str], asked: tuple[str, str | None]
) -> None:
    calls = []

    def load_dataset(*names: str | None, **settings: Any) -> list[dict[str, Any]]:
        calls.append((names, settings))
        return [{"translation": dict.fromkeys(languages, "a")}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(load_translation(preset, *languages, streaming=True)) == [Pair("a", "a")]
    assert calls == [(asked, {"split": "train", "streaming": True})]
    assert asked[0] == PRESETS[preset].path


def test_unknown_names_are_refused(files: Path) -> None:
    with pytest.raises(UserError, match=r"nested.json: Unknown language 'dee': did you mean 'de'"):
        load_translation(files / "nested.json", "dee", "en")
    # A preset knows before anything is downloaded.
    with pytest.raises(UserError, match=r"wmt17-en-de: Unknown language 'fr': expected one of 'de', 'en'"):
        load_translation("wmt17-en-de", "en", "fr")
    with pytest.raises(UserError, match=r"flat.csv: Unknown language 'fr': expected one of 'de', 'en'"):
        load_translation(files / "flat.csv", "de", "fr")
    with pytest.raises(UserError, match=r"lines.txt: Unknown column 'txt': did you mean 'text'"):
        load_text(files / "lines.txt", column="txt")
    with pytest.raises(UserError, match=r"nested.json: column 'translation' holds dict, expected text"):
        load_text(files / "nested.json", column="translation")
    with pytest.raises(UserError, match=r"There is no file missing.json: give its path from here"):
        load_text("missing.json")
    (files / "a.xml").write_text("<a/>")
    with pytest.raises(UserError, match=r"a.xml: Unknown ending '.xml': did you mean '.txt'"):
        load_text(files / "a.xml")
    with pytest.raises(ValueError, match="limit=0: expected a whole number, 1 or more"):
        load_text(files / "lines.txt", limit=0)


@STREAMING
@pytest.mark.parametrize(("name", "content"), [("a.json", b'{"text": "a"}\n{"te'), ("a.parquet", b"PAR1 and no more")])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes, streaming: bool) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} cannot be loaded \(\w+: .+\)\.$") as caught:
        list(load_text(path, streaming=streaming))
    assert "\n" not in str(caught.value)


@STREAMING
@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.json", "", "is empty: give another file"),
        ("a.csv", "text\n", r"(has no rows in 'train'|cannot be loaded \(ValueError: .*no data)"),
    ],
)
def test_empty_files_are_refused(tmp_path: Path, name: str, content: str, why: str, streaming: bool) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError, match=f"{name} {why}"):
        load_text(path, streaming=streaming)


def test_without_the_extra_it_says_what_to_type(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs Hugging Face datasets: pip install 'deepnet-edu\[hub\]'$"):
        load_text(files / "lines.txt")


@STREAMING
def test_without_a_connection(streaming: bool) -> None:
    with pytest.raises(UserError, match=r"Loading wmt17-en-de was interrupted \(.*\): nothing is lost, run the same"):
        load_translation("wmt17-en-de", "en", "de", streaming=streaming)


def test_a_name_that_the_hub_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise datasets.exceptions.DatasetNotFoundError(
            "Dataset 'wmt71' doesn't exist on the Hub or cannot be accessed."
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"The hub has no set wmt71 .* or one of iwslt14-de-en, wmt17-en-de, opus-100"):
        load_translation("wmt71", "en", "de")


class Interrupted:
    """A set whose download breaks off after two rows, once."""

    broken = False

    def __iter__(self) -> Iterator[dict[str, str]]:
        for i in range(5):
            if i == 2 and not self.broken:
                self.broken = True
                raise ConnectionResetError("Connection reset by peer")
            yield {"text": f"text {i}"}


def test_an_interrupted_stream_says_so_and_can_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Interrupted())
    rows = load_text("someone/texts", streaming=True)
    with pytest.raises(UserError, match=r"someone/texts was interrupted \(ConnectionResetError: Connection reset by"):
        list(rows)
    assert list(rows) == [f"text {i}" for i in range(5)]


def test_an_interrupted_download_goes_on_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise datasets.exceptions.DatasetGenerationError("An error occurred") from TimeoutError("timed out\nafter 10 s")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError) as caught:
        load_text("someone/texts")
    assert str(caught.value) == (
        "Loading someone/texts was interrupted (TimeoutError: timed out after 10 s): "
        "nothing is lost, run the same again and it continues with what is in the cache."
    )


@STREAMING
def test_words_that_look_like_nothing_are_text(tmp_path: Path, streaming: bool) -> None:
    words = ["hello", "NA", "null", "None", "nan", "N/A", "world"]
    (tmp_path / "words.csv").write_text("text\n" + "\n".join(words) + "\n")
    assert list(load_text(tmp_path / "words.csv", streaming=streaming)) == words


@STREAMING
def test_rows_that_lack_a_text_are_counted(tmp_path: Path, streaming: bool) -> None:
    (tmp_path / "gaps.csv").write_text('text,more\na,1\n"",2\nb,3\n')
    rows = load_text(tmp_path / "gaps.csv", streaming=streaming)
    with pytest.warns(UserWarning, match="1 of 3 rows lack a text and were left out"):
        assert list(rows) == ["a", "b"]


@STREAMING
@pytest.mark.parametrize(
    "name", ["corpus [v1].jsonl", "a*b?.jsonl", "a [1]/b.jsonl", "it's, ü.jsonl", "UPPER.JSONL", "x.jsonl.gz"]
)
def test_names_that_others_take_for_patterns(tmp_path: Path, name: str, streaming: bool) -> None:
    content = b'{"text": "hello"}\n'
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (tmp_path / "corpus v.jsonl").write_text('{"text": "another"}\n')
    assert list(load_text(path, streaming=streaming)) == ["hello"]


@pytest.mark.parametrize("ending", [".txt", ".csv"])
def test_other_encodings_are_named_with_what_to_type(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"old{ending}"
    for encoding, advice in (
        ("utf-16", "in UTF-16, expected UTF-8: .*iconv -f UTF-16"),
        ("latin-1", "iconv -f LATIN1"),
    ):
        path.write_bytes("text\nGrüße\n".encode(encoding))
        with pytest.raises(
            UserError, match=rf"old{ending} is .*{advice} -t UTF-8 '.*old{ending}' > 'old.utf8{ending}'"
        ):
            list(load_text(path))
    path.write_bytes("text\nGrüße\n".encode("utf-8-sig"))
    assert list(load_text(path))[-1] == "Grüße"
    assert "\ufeff" not in "".join(load_text(path))


# --- images


def drawn(folder: Path, *sizes: tuple[int, int], mode: str = "L", label: type = int) -> Path:
    from PIL import Image

    draw = np.random.default_rng(0)
    images = []
    for i in range(60):
        width, height = sizes[min(i, len(sizes) - 1)]
        shape = (height, width) if mode == "L" else (height, width, 3)
        images.append(Image.fromarray(draw.integers(0, 255, shape, dtype=np.uint8), mode))
    rows = {"image": images, "label": [label(i % 3) for i in range(60)]}
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64" if label is int else "string"))
    path = folder / f"{mode}{len(sizes)}{label.__name__}.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return path


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_images_of_a_hub_s_form(tmp_path: Path, mode: str, channels: int) -> None:
    pixels, labels = load_images(drawn(tmp_path, (6, 4), mode=mode))
    assert pixels.shape == (60, channels, 4, 6)
    assert labels.tolist() == [i % 3 for i in range(60)]
    task = Images(pixels, labels)
    assert (task.shape, task.n_classes) == ((channels, 4, 6), 3)
    assert len(load_images(drawn(tmp_path, (6, 4), mode=mode), limit=7)[0]) == 7


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    path = drawn(tmp_path, (6, 4))
    with pytest.raises(UserError, match="Unknown column 'images': did you mean 'image'"):
        load_images(path, image="images")
    with pytest.raises(UserError, match="column 'label' holds int, expected Image"):
        load_images(path, image="label")
    with pytest.raises(UserError, match="column 'label' holds str, expected int"):
        load_images(drawn(tmp_path, (6, 4), label=str))
    with pytest.raises(UserError, match=r"image 1 is of shape \(1, 5, 6\), the first of \(1, 4, 6\)"):
        load_images(drawn(tmp_path, (6, 4), (6, 5)))
