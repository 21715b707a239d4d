"""Shapes that have a name, and shapes in a file."""

from dataclasses import fields
from pathlib import Path

from deepnet_edu.config import ModelConfig
from deepnet_edu.fields import checked
from deepnet_edu.files import read_json
from deepnet_edu.messages import UserError, shown, unknown

#: The benchmark's decoder, and the paper's models (arXiv 2203.00555, Sections 5 and 6), whose vocabulary of about
#: 250,000 is inferred from their size.
SHAPES: dict[str, ModelConfig] = {
    "small_1000": ModelConfig(
        "decoder", "lm", 1000, d_model=64, n_heads=4, d_ff=256, vocab_size=128, max_length=64
    ),
    "deepnet_200_opus": ModelConfig(
        "encoder_decoder", "translation", 100, 100,
        d_model=512, n_heads=8, d_ff=2048, vocab_size=250_000, shared_embeddings=True, activation="relu",
    ),
    "deepnet_1000": ModelConfig(
        "encoder_decoder", "translation", 500, 500,
        d_model=512, n_heads=8, d_ff=2048, vocab_size=250_000, shared_embeddings=True, activation="relu",
    ),
    "deepnet_200": ModelConfig(
        "encoder_decoder", "translation", 100, 100,
        d_model=1024, n_heads=16, d_ff=4096, vocab_size=250_000, shared_embeddings=True, activation="relu",
    ),
}  # fmt: skip


@checked()
def find_shape(given: str) -> ModelConfig:
    """The shape of this name, or the one in this JSON file: the fields of :class:`~deepnet_edu.config.ModelConfig`.

    Raises:
        UserError: there is no such name or file, or the file holds no such fields.
    """
    if not given.endswith(".json"):
        if given not in SHAPES:
            raise UserError(
                f"{unknown('shape', given, SHAPES)} A shape of your own: a file, for example my_model.json."
            )
        return SHAPES[given]
    example = (
        '{"architecture": "decoder", "task": "lm", "decoder_layers": 12, "d_model": 64, "n_heads": 4, "d_ff": 256, …}'
    )
    try:
        content = read_json(Path(given))
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
        known = [field.name for field in fields(ModelConfig)]
        for name in content:
            if name not in known:
                raise ValueError(unknown("field", name, known))
        return ModelConfig(**content)
    except (OSError, ValueError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise UserError(f"{shown(given)} holds no shape: {why}. Expected, for example: {example}") from None
