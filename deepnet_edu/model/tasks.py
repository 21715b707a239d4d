"""One class per task: language models, causal or masked; translators; classifiers of images."""

from typing import cast

import torch
from torch import Tensor, nn

from deepnet_edu.model.attention import Cache, Context
from deepnet_edu.model.base import Batch, Model, norm_of
from deepnet_edu.model.config import NO_RESIDUAL, ModelConfig
from deepnet_edu.model.embedding import PatchEmbedding, Positions, TokenEmbedding
from deepnet_edu.model.stack import Stack, calibrate
from deepnet_edu.residual import DEFAULT, StackName


def _stack(config: ModelConfig, name: StackName) -> Stack:
    return Stack(
        name,
        DEFAULT if config.residual == NO_RESIDUAL else config.residual,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        shape=config.shape,
    )


def _token_embedding(config: ModelConfig, table: nn.Embedding) -> TokenEmbedding:
    positions = Positions(config.position, config.max_length, config.d_model)
    norm = norm_of(config) if config.embedding == "bert" else None
    return TokenEmbedding(table, positions, config.shared_embeddings, config.dropout, norm)


def _stream(stack: Stack, x: Tensor, context: Context) -> Tensor:
    """The stack's output. A stack of another author needs to know of padding only."""
    plain = context.cache is context.memory is context.rotary is None
    return cast(Tensor, stack(x, context.padding) if plain else stack(x, context=context))


class LanguageModel(Model):
    """Tokens in, a token at each position out: the next one (decoder, ``"lm"``) or the hidden one (encoder, ``"mlm"``).

    Token and position embedding, a stack, and a linear head, its own or the embedding's.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        table = nn.Embedding(config.vocab_size, config.d_model)
        self.embed = _token_embedding(config, table)
        self.name: StackName = "decoder" if config.architecture == "decoder" else "encoder"
        self.stack = _stack(config, self.name)
        self.make_head(config.vocab_size, self.stack, table if config.shared_embeddings else None)

    def stacks(self) -> dict[StackName, Stack]:
        """The one stack."""
        return {self.name: self.stack}

    def embeddings(self) -> list[TokenEmbedding | PatchEmbedding]:
        """The one embedding."""
        return [self.embed]

    def forward(self, tokens: Tensor, padding: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """(B, T) tokens → logits (B, T, vocab_size).

        Args:
            tokens: (B, T) int64; with a cache, only those that it does not know yet.
            padding: (B, T) bool, True where a token is padding, cached ones included.
            cache: of earlier tokens; it learns these. Decoder only.
        """
        past = 0 if cache is None else cache.length
        x = self.embed(tokens, padding, past)
        x = _stream(self.stack, x, self.context(padding, cache, tokens.shape[1], tokens.device))
        if cache is not None:
            cache.length += tokens.shape[1]
        return self.answer(x)

    def logits(self, batch: Batch) -> Tensor:
        """(B, T, vocab_size)."""
        return cast(Tensor, self(batch.inputs, batch.padding))

    @torch.no_grad()
    def _calibrate(self, batch: Batch) -> None:
        x = self.embed(batch.inputs, batch.padding)
        calibrate(self.stack, x, self.context(batch.padding, None, x.shape[1], x.device))


class Translator(Model):
    """A source sequence in, a target sequence out: an encoder, and a decoder that looks at its output."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        target = nn.Embedding(config.vocab_size, config.d_model)
        source = target
        if not config.shared_embeddings:
            source = nn.Embedding(config.source_vocab_size or config.vocab_size, config.d_model)
        self.embed_source = _token_embedding(config, source)
        self.embed_target = _token_embedding(config, target)
        self.encoder, self.decoder = _stack(config, "encoder"), _stack(config, "decoder")
        self.make_head(config.vocab_size, self.decoder, target if config.shared_embeddings else None)

    def stacks(self) -> dict[StackName, Stack]:
        """Encoder, then decoder."""
        return {"encoder": self.encoder, "decoder": self.decoder}

    def embeddings(self) -> list[TokenEmbedding | PatchEmbedding]:
        """Embeddings of the source and of the target."""
        return [self.embed_source, self.embed_target]

    def encode(self, source: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, S) tokens → the encoder's output, (B, S, d_model)."""
        x = self.embed_source(source, padding)
        return _stream(self.encoder, x, self.context(padding, None, x.shape[1], x.device))

    def decode(
        self,
        target: Tensor,
        memory: Tensor,
        padding: Tensor | None = None,
        memory_padding: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """(B, T) tokens and the encoder's output → logits (B, T, vocab_size).

        Args:
            target: (B, T) int64; with a cache, only those that it does not know yet.
            memory: (B, S, d_model).
            padding: (B, T) bool of the target, cached ones included.
            memory_padding: (B, S) bool of the source.
            cache: of earlier tokens; it learns these.

        Raises:
            ValueError: the memory is of another number of sequences, or as the embedding.
        """
        x = self.embed_target(target, padding, 0 if cache is None else cache.length)
        x = self.decoder(x, context=self._decoder_context(x, memory, padding, memory_padding, cache))
        if cache is not None:
            cache.length += target.shape[1]
        return self.answer(x)

    def _decoder_context(
        self,
        x: Tensor,
        memory: Tensor,
        padding: Tensor | None,
        memory_padding: Tensor | None,
        cache: Cache | None = None,
    ) -> Context:
        if len(memory) != len(x):
            raise ValueError(f"{len(memory)} sources and {len(x)} targets: expected a target for each source.")
        own = self.context(padding, cache, x.shape[1], x.device)
        return Context(padding, memory, memory_padding, cache, own.rotary)

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        source_padding: Tensor | None = None,
        target_padding: Tensor | None = None,
    ) -> Tensor:
        """(B, S) and (B, T) tokens → logits (B, T, vocab_size): at each position the target token after it."""
        return self.decode(target, self.encode(source, source_padding), target_padding, source_padding)

    def logits(self, batch: Batch) -> Tensor:
        """(B, T', vocab_size)."""
        return cast(Tensor, self(batch.inputs, self._read(batch), batch.padding, batch.target_padding))

    @torch.no_grad()
    def _calibrate(self, batch: Batch) -> None:
        """The encoder first, since the decoder looks at its output."""
        x = self.embed_source(batch.inputs, batch.padding)
        memory = calibrate(self.encoder, x, self.context(batch.padding, None, x.shape[1], x.device))
        y = self.embed_target(self._read(batch), batch.target_padding)
        calibrate(self.decoder, y, self._decoder_context(y, memory, batch.target_padding, batch.padding))

    def _read(self, batch: Batch) -> Tensor:
        if batch.target_inputs is None:
            raise ValueError(
                "A translation's batch needs target_inputs, what the decoder reads: "
                "the targets one step later, with a start token before them."
            )
        return batch.target_inputs


class Classifier(Model):
    """An image in, a class out: patches, an encoder, the mean over patches, and a linear head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        positions = Positions(config.position, config.max_length, config.d_model)
        self.embed = PatchEmbedding(config.channels, config.patch_size, config.d_model, positions, config.dropout)
        self.stack = _stack(config, "encoder")
        self.make_head(config.n_classes, self.stack, None)

    def stacks(self) -> dict[StackName, Stack]:
        """The one stack."""
        return {"encoder": self.stack}

    def embeddings(self) -> list[TokenEmbedding | PatchEmbedding]:
        """The one embedding."""
        return [self.embed]

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, height, width) → logits (B, n_classes)."""
        x = self.embed(images)
        return self.answer(_stream(self.stack, x, self.context(None, None, x.shape[1], x.device)).mean(1))

    def logits(self, batch: Batch) -> Tensor:
        """(B, n_classes)."""
        return cast(Tensor, self(batch.inputs))

    @torch.no_grad()
    def _calibrate(self, batch: Batch) -> None:
        x = self.embed(batch.inputs)
        calibrate(self.stack, x, self.context(None, None, x.shape[1], x.device))
