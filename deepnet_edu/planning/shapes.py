"""Shapes that have a name, and shapes in a file."""

from dataclasses import fields
from pathlib import Path

from deepnet_edu.fields import checked, from_dict, without_former
from deepnet_edu.files import parse_toml, read_json, read_text
from deepnet_edu.messages import UserError, unknown
from deepnet_edu.model.config import FORMER, ModelConfig
from deepnet_edu.planning.published import PUBLISHED

#: The benchmark's decoder, and the paper's models (arXiv 2203.00555, Sections 5 and 6).
SHAPES: dict[str, ModelConfig] = {
    "small_1000": ModelConfig(
        "decoder", "lm", 1000, d_model=64, n_heads=4, d_ff=256, vocab_size=128, max_length=64
    ),
    **{name: PUBLISHED[name.replace("_", "-")].config for name in ("deepnet_200_opus", "deepnet_1000", "deepnet_200")},
}  # fmt: skip


@checked()
def find_shape(given: str) -> ModelConfig:
    """The shape of this name, or the one in this file.

    Args:
        given: a name in ``SHAPES`` or ``PUBLISHED``, or a TOML or JSON file with the fields of
            :class:`~deepnet_edu.model.config.ModelConfig`.

    Raises:
        UserError: there is no such name or file, or the file holds no such fields.
    """
    if given in SHAPES:
        return SHAPES[given]
    if given in PUBLISHED:
        return PUBLISHED[given].config
    path = Path(given)
    if path.suffix not in (".json", ".toml"):
        raise UserError(
            f"{unknown('shape', given, [*SHAPES, *PUBLISHED])} A shape of your own: a file, for example my_model.toml."
        )
    try:
        content = parse_toml(read_text(path)) if path.suffix == ".toml" else read_json(path)
        if not isinstance(content, dict):
            raise ValueError("expected an object")
        known = [field.name for field in fields(ModelConfig)]
        content = without_former(content, FORMER)
        for name in content:
            if name not in known:
                raise ValueError(unknown("field", name, known))
        return from_dict(ModelConfig, content)
    except (OSError, ValueError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise UserError(f"{given} holds no shape: {why}. Expected, for example: {_EXAMPLE[path.suffix]}") from None


_EXAMPLE = {
    ".json": '{"architecture": "decoder", "task": "lm", "decoder_layers": 12, "d_model": 64, "n_heads": 4, …}',
    ".toml": 'lines such as architecture = "decoder", task = "lm", decoder_layers = 12, d_model = 64, n_heads = 4, …',
}
