"""Text, translations and images from the Hugging Face hub, or from files of the same format (the extra ``[hub]``)."""

import glob
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepnet_edu.data.epochs import check_numbers
from deepnet_edu.data.left_out import leave_out
from deepnet_edu.data.translation import Pair
from deepnet_edu.fields import checked
from deepnet_edu.messages import UserError, unknown

Item = TypeVar("Item", str, Pair)
Row = dict[str, Any]

#: How Hugging Face datasets calls what a file of this ending holds.
_FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
#: How it should read them: a byte-order mark at the start is not text, and a document may be the word "null" or "NA".
_SETTINGS: dict[str, dict[str, Any]] = {
    "csv": {"keep_default_na": False, "na_values": [""], "encoding": "utf-8-sig"},
    "text": {"encoding": "utf-8-sig"},
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class HubPreset(NamedTuple):
    """Where on the hub a set is.

    Attributes:
        path: its name there.
        config: the part of it; ``{pair}`` stands for both languages in the order of the alphabet.
        languages: the two that it has; None for many.
    """

    path: str
    config: str | None
    languages: tuple[str, str] | None


#: The translations that the paper trains on. The names are those of the hub; no test reaches it.
PRESETS = {
    "iwslt14-de-en": HubPreset("bbaaaa/iwslt14-de-en", None, ("de", "en")),
    "wmt17-en-de": HubPreset("wmt/wmt17", "de-en", ("de", "en")),
    "opus-100": HubPreset("Helsinki-NLP/opus-100", "{pair}", None),
}


@dataclass(frozen=True)
class HubRows(Generic[Item]):
    """What was loaded, item by item, from the start each time it is asked.

    Rows that lack a text are left out; a warning at the end says how many.

    Attributes:
        name: what it was asked for by.
        dataset: of Hugging Face.
        read: makes an item of a row, or None.
        streaming: whether rows are downloaded when they are asked for.
        limit: most rows; None for all.
    """

    name: str
    dataset: Any
    read: Callable[[Row], Item | None]
    streaming: bool
    limit: int | None

    def __iter__(self) -> Iterator[Item]:
        count = lacking = 0
        with _loading(self.name, self.streaming):
            for row in islice(self.dataset, self.limit):
                item = self.read(row)
                count, lacking = count + 1, lacking + (item is None)
                if item is not None:
                    yield item
        if lacking:
            leave_out(f"{self.name}: {lacking} of {count} rows lack a text and were left out.")


@checked()
def load_text(
    name: str | Path,
    *,
    column: str = "text",
    config: str | None = None,
    split: str = "train",
    streaming: bool = False,
    limit: int | None = None,
) -> HubRows[str]:
    """Documents, one a row.

    Args:
        name: of a set on the hub, or a folder or file: .json, .jsonl, .csv, .parquet, .txt, in UTF-8, or such a file
            compressed, .gz.
        column: where the text is.
        config: the part of the set, where it has several.
        split: ``"train"``, ``"validation"`` or ``"test"``, as far as the set has them.
        streaming: read while it downloads, and keep nothing.
        limit: only this many rows from the start.

    Raises:
        UserError: the extra is missing, the name, configuration, split or column is unknown, the file is damaged, or
            the download was interrupted (when streaming, also while the rows are read).
        ValueError: ``limit`` is not 1 or more.
    """
    dataset, first = _load(str(name), config, split, streaming, limit)
    _check(str(name), "column", column, first)
    return HubRows(str(name), dataset, lambda row: row[column], streaming, limit)


@checked()
def load_translation(
    name: str | Path,
    source_language: str,
    target_language: str,
    *,
    tagged: bool = False,
    config: str | None = None,
    split: str = "train",
    streaming: bool = False,
    limit: int | None = None,
) -> HubRows[Pair]:
    """Sentences and their translations, one pair a row.

    A row holds them in a column ``translation``, as in ``{"de": "…", "en": "…"}``, or in a column per language.

    Args:
        name: one of :data:`PRESETS`, a set on the hub, or a folder or file: .json, .jsonl, .csv, .parquet.
        source_language: as the set calls it, for example ``"de"``.
        target_language: likewise.
        tagged: name the target's language in each pair, for a translator into many.
        config: the part of the set, where it has several; a preset knows its own.
        split: ``"train"``, ``"validation"`` or ``"test"``, as far as the set has them.
        streaming: read while it downloads, and keep nothing.
        limit: only this many rows from the start.

    Raises:
        UserError: as :func:`load_text`; a language is unknown.
        ValueError: ``limit`` is not 1 or more.
    """
    wanted = [source_language, target_language]
    if preset := PRESETS.get(str(name)):
        for language in wanted:
            if preset.languages and language not in preset.languages:
                raise UserError(f"{name}: {unknown('language', language, preset.languages)}")
        if config is None and preset.config:
            config = preset.config.format(pair="-".join(sorted(wanted)))
    dataset, first = _load(str(name), config, split, streaming, limit)
    nested = isinstance(first.get("translation"), dict)
    for language in wanted:
        _check(str(name), "language", language, first["translation"] if nested else first)

    def read(row: Row) -> Pair | None:
        texts = row["translation"] if nested else row
        source, target = texts[source_language], texts[target_language]
        return None if source is None or target is None else Pair(source, target, target_language if tagged else None)

    return HubRows(str(name), dataset, read, streaming, limit)


@checked()
def load_images(
    name: str | Path,
    *,
    image: str = "image",
    label: str = "label",
    config: str | None = None,
    split: str = "train",
    limit: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images, all of one size, and their classes, for :class:`~deepnet_edu.data.images.Images`.

    Args:
        name: of a set on the hub, or a folder or .parquet file of such a form.
        image: column of the images.
        label: column of the classes, whole numbers from 0.
        config, split, limit: as :func:`load_text` has them.

    Returns:
        (N, channels, height, width) and (N,).

    Raises:
        UserError: as :func:`load_text`, or an image is of another size than the first.
        ValueError: ``limit`` is not 1 or more.
    """
    from PIL import Image

    dataset, first = _load(str(name), config, split, False, limit)
    for column, kind in ((image, Image.Image), (label, int)):
        if column not in first:
            raise UserError(f"{name}: {unknown('column', column, first)}")
        if not isinstance(first[column], kind):
            raise UserError(
                f"{name}: column {column!r} holds {type(first[column]).__name__}, expected {kind.__name__}."
            )
    pixels, classes = [], []
    with _loading(str(name), False):
        for i, row in enumerate(islice(dataset, limit)):
            found = np.asarray(row[image], np.float32)
            pixels.append(found[None] if found.ndim == 2 else found.transpose(2, 0, 1))
            classes.append(row[label])
            if pixels[i].shape != pixels[0].shape:
                raise UserError(f"{name}: image {i} is of shape {pixels[i].shape}, the first of {pixels[0].shape}.")
    return np.stack(pixels), np.array(classes, np.int64)


def _load(name: str, config: str | None, split: str, streaming: bool, limit: int | None) -> tuple[Any, Row]:
    """The set and its first row."""
    if limit is not None:
        check_numbers(1, limit=limit)
    path, settings = Path(name), {"split": split, "streaming": streaming}
    if _ending(path) in _FORMATS and not path.is_file():
        raise UserError(f"There is no file {name}: give its path from here, or the name of a set on the hub.")
    datasets = _datasets(name)
    with _loading(name, streaming):
        dataset = _dataset(datasets, name, config, settings)
        first = next(iter(dataset), None)
    if first is None:
        raise UserError(f"{name} has no rows in {split!r}: give another file or split.")
    return dataset, first


def _dataset(datasets: ModuleType, name: str, config: str | None, settings: dict[str, Any]) -> Any:
    path = Path(name)
    if path.is_file():
        if _ending(path) not in _FORMATS:
            raise UserError(f"{name}: {unknown('ending', path.suffix, _FORMATS)}")
        if not path.stat().st_size:
            raise UserError(f"{name} is empty: give another file.")
        with path.open("rb") as file:
            if file.read(2) in _UTF_16:
                raise UserError(f"{name} is in UTF-16, expected UTF-8: {_converted(path, 'UTF-16')}")
        kind = _FORMATS[_ending(path)]
        # Brackets in a name would be a pattern.
        return datasets.load_dataset(kind, data_files=glob.escape(name), **_SETTINGS.get(kind, {}), **settings)
    place = PRESETS[name].path if name in PRESETS and not path.exists() else name
    try:
        return datasets.load_dataset(place, config, **settings)
    except ValueError:
        if config is None or config in (names := datasets.get_dataset_config_names(place)):
            raise
        raise UserError(f"{place}: {unknown('configuration', config, names)}") from None


def _ending(path: Path) -> str:
    """The ending that says what is in a file, in small letters, of a compressed one that before ``.gz``."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path).suffix.lower()


def _converted(path: Path, encoding: str) -> str:
    """What to type for a file in UTF-8."""
    return f"convert it, iconv -f {encoding} -t UTF-8 '{path}' > '{path.stem}.utf8{path.suffix}'"


def _check(name: str, kind: str, wanted: str, row: Row) -> None:
    if wanted not in row:
        raise UserError(f"{name}: {unknown(kind, wanted, row)}")
    if not isinstance(row[wanted], str | None):
        raise UserError(f"{name}: {kind} {wanted!r} holds {type(row[wanted]).__name__}, expected text.")


def _datasets(name: str) -> ModuleType:
    try:
        import datasets
    except ImportError:
        raise UserError(f"Loading {name} needs Hugging Face datasets: pip install 'deepnet-edu[hub]'") from None
    return datasets


@contextmanager
def _loading(name: str, streaming: bool) -> Iterator[None]:
    """One sentence for whatever the library, the network under it or a damaged file raises."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # The library wraps what went wrong; that it did so says nothing.
        cause = error.__cause__ or error
        why = " ".join(f"{type(cause).__name__}: {cause}".split()).rstrip(".: ")
        if isinstance(cause, UnicodeDecodeError) and Path(name).exists():
            raise UserError(
                f"{name} is not in UTF-8 ({why}). If it is in Latin-1, {_converted(Path(name), 'LATIN1')}"
            ) from error
        if Path(name).exists() or isinstance(error, ValueError):
            raise UserError(f"{name} cannot be loaded ({why}).") from error
        if isinstance(error, FileNotFoundError):
            raise UserError(
                f"The hub has no set {name} that is open to all ({why}): give its whole name there, or one of "
                f"{', '.join(PRESETS)}."
            ) from error
        again = "from the start" if streaming else "and it continues with what is in the cache"
        raise UserError(
            f"Loading {name} was interrupted ({why}): nothing is lost, run the same again {again}."
        ) from error
