"""What autograd, or the fast path in its place, saves of each layer for the backward pass."""

from dataclasses import dataclass

from deepnet_edu.model.config import NO_RESIDUAL, ModelConfig
from deepnet_edu.planning.workload import Workload
from deepnet_edu.residual import RESIDUALS, Saved


def saved_by(config: ModelConfig) -> Saved:
    """What autograd keeps of a layer, as the rule says; where a subclass of it changed what it computes, as Post-LN."""
    rule = RESIDUALS.get(config.residual)
    said = rule is not None and rule.says("saved")
    return rule.saved if rule is not None and said else Saved()


@dataclass(frozen=True)
class SavedNumbers:
    """Numbers that are saved, layer by layer; under autocast in units of two bytes, half a float32.

    Attributes:
        work: what is computed.
        fast: by the fast path, or the plain one.
        compiled: the fast path's functions.
    """

    work: Workload
    fast: bool = False
    compiled: bool = False

    def held(
        self, stack: str, n: int, every: int, moved: bool = False, first: int = 0, keep_attention: bool = False
    ) -> int:
        """Numbers of n layers of a stack, from ``first`` on, until the backward pass comes to them: all, or the states
        between groups of them; but one state where these are moved away. What attention gave comes on top."""
        if not every or every >= n:
            return self._layers(stack, first, n)
        saved = saved_by(self.work.config)
        d, rows = self.work.config.d_model, self.work.B * (self.work.S if stack == "encoder" else self.work.T)
        groups, last = -(-n // every), first + n
        below = saved.below(last, max(self._depth(stack), last))
        states = saved.state * (1 if moved else groups) + saved.growth * below
        # What attention keeps: its output, and log-sum-exps in float32.
        looks = n * (2 if stack == "decoder" and self.work.config.encoder_layers else 1)
        kept = keep_attention * looks * (d + self.work.number // self.work.narrow * self.work.config.n_heads)
        return (self.work.stream // self.work.narrow * states * d + kept) * rows

    def again(self, stack: str, n: int, every: int, first: int = 0) -> int:
        """Numbers of the highest group of layers that is computed again; 0 where all is held."""
        if not every or every >= n:
            return 0
        return self._layers(stack, first + n - every, every)

    def kept(self, stack: str, n: int, first: int) -> int:
        """Numbers of all that n layers from ``first`` on keep."""
        return self._layers(stack, first, n) if n else 0

    def _layers(self, stack: str, first: int, n: int) -> int:
        """Numbers of n layers together, in closed form: from each to the next they grow by the same number."""
        return n * (self.layer(stack, first) + self.layer(stack, first + n - 1)) // 2

    def _depth(self, stack: str) -> int:
        return self.work.config.encoder_layers if stack == "encoder" else self.work.config.decoder_layers

    def layer(self, stack: str, i: int) -> int:
        """Numbers of layer i."""
        c, d, H, ff = self.work.config, self.work.config.d_model, self.work.config.n_heads, self.work.config.d_ff
        T = self.work.S if stack == "encoder" else self.work.T
        rows, looks_up, kv = self.work.B * T, stack == "decoder" and bool(c.encoder_layers), c.kv_width
        if self.fast:
            weights = H if self.compiled else H * T
            numbers = rows * (6 * d + ff + weights)
            return numbers + looks_up * (
                rows * (3 * d + (H if self.compiled else H * self.work.S)) + 2 * kv * self.work.B * self.work.S
            )
        saved = saved_by(c)
        per_norm = d - 1 if c.norm == "rms" else 0  # RMSNorm keeps one d_model more than LayerNorm, and one number less
        dropped = d if c.dropout else 0
        inside = {"gelu": 0, "relu": -ff, "swiglu": 2 * ff, "geglu": 2 * ff}[c.activation] - 2 * (d - kv)
        inside += d + kv if c.position == "rotary" else 0
        numbers = saved.d * d + saved.ff * ff + saved.more + H + inside + 2 * dropped
        numbers += saved.weights * saved.below(i, max(self._depth(stack), i + 1))
        numbers += saved.more // 2 * per_norm + saved.by_head * H
        if c.norm == "rms":
            numbers += saved.by_head // 2 * (d - H)
        # What matrices and attention read is narrow, what norms and sums read is not.
        narrow = 6 * d + saved.ff * ff + inside + 2 * dropped
        narrow -= saved.cast[0] * d + saved.cast[1]  # the streams in both widths
        if not looks_up:
            return rows * (2 * numbers - narrow if self.work.autocast else numbers)
        cross = saved.d_cross * d + saved.more_cross + H + saved.more_cross // 2 * per_norm + dropped
        if not self.work.autocast:
            return rows * (numbers + cross) + 2 * kv * self.work.B * self.work.S
        # Each layer makes its own narrow copy of the memory.
        return rows * (2 * (numbers + cross) - narrow - 3 * d - dropped) + (2 * kv + d) * self.work.B * self.work.S

    def temporaries(self) -> int:
        """Numbers of the layer that is at work in the backward pass."""
        if self.work.config.residual == NO_RESIDUAL:
            return 0
        c, rows = self.work.config, self.work.B * max(self.work.T, self.work.S)
        if self.fast:
            scores = 0 if self.compiled else c.n_heads * rows * max(self.work.T, self.work.S)
            return rows * (2 * c.d_ff + 16 * c.d_model) + scores
        return rows * max(3 * c.d_ff, 8 * c.d_model)
