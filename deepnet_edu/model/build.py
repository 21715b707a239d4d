"""A whole model, drawn afresh, and a batch for it that has nothing to learn."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from deepnet_edu.fields import Count, Seed, checked
from deepnet_edu.model.base import Batch, Model
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.model.embedding import TokenEmbedding
from deepnet_edu.model.initialization import initialize
from deepnet_edu.model.shape import check_memory
from deepnet_edu.model.sizes import as_device, check_size
from deepnet_edu.model.tasks import Classifier, LanguageModel, Translator
from deepnet_edu.residual import Calibrated

_CLASSES: dict[str, type[Model]] = {
    "lm": LanguageModel,
    "mlm": LanguageModel,
    "translation": Translator,
    "classification": Classifier,
}
#: Sequences and tokens per sequence of the random batch on which a rule measures its constants.
_CALIBRATION = 4, 32


@checked(device=as_device)
def build_model(config: ModelConfig, seed: Seed = 0, device: torch.device | str = "cpu") -> Model:
    """A freshly initialised model.

    A rule that takes constants from the data (Admin) measures them on a random batch; ``model.calibrate(batch)`` does
    it again on yours.

    Args:
        config: its shape.
        seed: the same seed gives the same weights on every device; PyTorch's global random state is left alone.
        device: where the model goes, for example ``"cuda"``; on ``"meta"`` its weights have no numbers.

    Returns:
        A :class:`LanguageModel`, :class:`Translator` or :class:`Classifier`, by ``config.task``.

    Raises:
        ValueError: the machine has no such device, or too little memory.
    """
    check_size(config, torch.device(device))
    if torch.device(device).type == "meta":
        with torch.device("meta"):
            return build_empty(config)
    generator = torch.Generator().manual_seed(seed)
    # On the CPU, whatever PyTorch's default device is, and ready for gradients, whatever mode is on.
    with torch.device("cpu"), torch.inference_mode(False), torch.random.fork_rng(devices=[]), _collected_later():
        model = build_empty(config)
        _draw_ends(model, generator)
        initialize(model, generator)
        model.project()
        if any(isinstance(rule, Calibrated) for rule in model.rules()):
            sequences, length = _CALIBRATION
            model.calibrate(random_batch(config, sequences, min(length, config.max_length), seed))
    # Moving costs a look at each of 13,000 modules.
    return model if torch.device(device) == next(model.parameters()).device else model.to(device)


@contextmanager
def _collected_later() -> Iterator[None]:
    """Python looks through all objects for garbage again and again while thousands of layers are made: not now."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def build_empty(config: ModelConfig) -> Model:
    """The model with whatever PyTorch puts into its weights, for those who count or load them."""
    return _CLASSES[config.task](config)


@torch.no_grad()
def _draw_ends(model: Model, generator: torch.Generator) -> None:
    """Embeddings, positions and head, each from the normal distribution that its docstring states."""
    drawn: set[nn.Parameter] = set()
    for stack, end in zip(model.stacks().values(), model.embeddings(), strict=True):
        weight = cast(nn.Parameter, end.token.weight if isinstance(end, TokenEmbedding) else end.patch.weight)
        if weight not in drawn:
            factor = stack.sublayers()[0].residual.ends_gain("embedding") if stack.layers else 1.0
            nn.init.normal_(weight, std=factor * end.std, generator=generator)
            drawn.add(weight)
        if not isinstance(end, TokenEmbedding):
            nn.init.zeros_(end.patch.bias)
        elif end.segment is not None:
            nn.init.zeros_(end.segment.weight)
        end.position.draw(generator)
    if model.head.weight not in drawn:
        factor = stack.sublayers()[0].residual.ends_gain("head") if stack.layers else 1.0
        nn.init.normal_(model.head.weight, std=factor * model.config.d_model**-0.5, generator=generator)
    if isinstance(model.before_head, nn.Sequential):
        matrix = cast(nn.Linear, model.before_head[0])
        nn.init.normal_(matrix.weight, std=model.config.d_model**-0.5, generator=generator)
        nn.init.zeros_(matrix.bias)
        nn.init.zeros_(model.head.bias)


@checked()
def random_batch(config: ModelConfig, batch_size: Count = 4, length: Count = 32, seed: Seed = 0) -> Batch:
    """A batch of the right form with nothing to learn: uniform tokens, normal pixels.

    Args:
        config: the model that will read it.
        batch_size: B.
        length: T, tokens per sequence; of an image, the largest square of this many patches.
        seed: of the draw.

    Raises:
        ValueError: the machine has too little memory.
    """
    values = config.channels * config.patch_size**2 if config.task == "classification" else 2
    check_memory(8 * values * batch_size * length, f"{batch_size:,} × {length:,} tokens", "take fewer")
    generator = torch.Generator().manual_seed(seed)

    def tokens(size: int) -> torch.Tensor:
        return torch.randint(size, (batch_size, length), generator=generator, device="cpu")

    if config.task == "classification":
        side = config.patch_size * int(length**0.5)
        images = torch.randn(batch_size, config.channels, side, side, generator=generator, device="cpu")
        return Batch(images, torch.randint(config.n_classes, (batch_size,), generator=generator, device="cpu"))
    if config.task == "translation":
        source, target = tokens(config.source_vocab_size or config.vocab_size), tokens(config.vocab_size)
        return Batch(source, target, target_inputs=target.roll(1, dims=1))
    return Batch(tokens(config.vocab_size), tokens(config.vocab_size))
