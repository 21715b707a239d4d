"""Right DeepNorms in many forms pass every row, and other forms are called by what they are: nothing is taken from
class names."""

from math import sqrt
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu import deepnorm_constants
from deepnet_edu.review import Review, find_sublayers, review

D, HEADS, FF = 32, 4, 64
IDS = torch.randint(0, 20, (3, 10), generator=torch.Generator().manual_seed(0))


def statuses(found: Review) -> dict[str, str]:
    """All rows that do not pass."""
    return {row.name: row.status for row in found.rows if row.status != "PASS"}


class Conv1D(nn.Module):
    """GPT-2's: a matrix stored as (fan_in, fan_out)."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(fan_in, fan_out)), nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Rms(nn.Module):
    """Gemma's: the factor is 1 + g."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * x.square().mean(-1, keepdim=True).add(1e-6).rsqrt() * (1 + self.g)


class Join(nn.Module):
    """x-transformers': the sum is a module's output."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, f: Tensor, x: Tensor) -> Tensor:
        return self.alpha * x + f


class Attention(nn.Module):
    """``packing``: separate, packed, heads (query, key, value in turn, head by head), pair (query; key and value)."""

    def __init__(self, packing: str, causal: bool, beta: float, matrix: Any) -> None:
        super().__init__()
        self.packing, self.causal = packing, causal
        sizes = {
            "separate": {"query": D, "key": D, "value": D},
            "packed": {"mixer": 3 * D},
            "heads": {"mixer": 3 * D},
            "pair": {"to_q": D, "to_kv": 2 * D},
        }[packing]
        self.inputs = nn.ModuleDict({name: matrix(D, size) for name, size in sizes.items()})
        self.last = matrix(D, D)
        pieces: list[Tensor] = []
        for module in self.inputs.values():
            weight: Any = module.weight.detach()  # type: ignore[operator, union-attr]
            rows = weight if isinstance(module, nn.Linear) else weight.T
            pieces += rows.chunk(3 * HEADS if packing == "heads" else len(rows) // D)
        for i, piece in enumerate(pieces):  # Xavier's, for a matrix of D × D
            nn.init.normal_(piece, std=(1.0, 1.0, beta)[i % 3] * sqrt(1 / D))
        nn.init.xavier_normal_(self.last.weight, gain=beta)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        B, T, _ = x.shape
        source = x if memory is None else memory
        if self.packing == "separate":
            q, k, v = self.inputs["query"](x), self.inputs["key"](source), self.inputs["value"](source)
        elif self.packing == "pair":
            q, (k, v) = self.inputs["to_q"](x), self.inputs["to_kv"](source).chunk(2, dim=-1)
        elif self.packing == "packed":
            q, k, v = self.inputs["mixer"](x).chunk(3, dim=-1)
        else:
            q, k, v = (one.flatten(2) for one in self.inputs["mixer"](x).view(B, T, HEADS, -1).chunk(3, dim=-1))
        heads = [one.reshape(B, -1, HEADS, D // HEADS).transpose(1, 2) for one in (q, k, v)]
        mixed = F.scaled_dot_product_attention(*heads, is_causal=self.causal)
        return self.last(mixed.transpose(1, 2).reshape(B, T, D))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """``gate``: none, separate, or fused (both in one matrix). ``flat``: on one row of tokens."""

    def __init__(self, gate: str, beta: float, matrix: Any, flat: bool) -> None:
        super().__init__()
        self.gate, self.flat = gate, flat
        self.one, self.two = matrix(D, 2 * FF if gate == "fused" else FF), matrix(FF, D)
        self.other = matrix(D, FF) if gate == "separate" else None
        for module in (self.one, self.two, self.other):
            if module is not None:
                nn.init.normal_(module.weight, std=beta * sqrt(2 / (D + FF)))

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        x = x.reshape(-1, D) if self.flat else x
        hidden = self.one(x)
        if self.gate == "fused":
            hidden, other = hidden.chunk(2, dim=-1)
            hidden = F.silu(hidden) * other
        else:
            hidden = F.gelu(hidden) if self.other is None else F.silu(hidden) * self.other(x)
        return self.two(hidden).view(shape)  # type: ignore[no-any-return]


class Block(nn.Module):
    """``form``: deepnorm, pre, parallel, around (a norm of the branch alone), in_place, joined (a module's sum)."""

    def __init__(
        self,
        alpha: float,
        beta: float,
        causal: bool,
        cross: bool = False,
        form: str = "deepnorm",
        matrix: Any = nn.Linear,
        norm: Any = nn.LayerNorm,
        packing: str = "separate",
        gate: str = "none",
        flat: bool = False,
    ) -> None:
        super().__init__()
        self.form, self.alpha, self.join = form, alpha, Join(alpha)
        self.branches = nn.ModuleList([Attention(packing, causal, beta, matrix)])
        if cross:
            self.branches.append(Attention("separate", False, beta, matrix))
        self.branches.append(Mlp(gate, beta, matrix, flat))
        self.norms = nn.ModuleList(norm(D) for _ in self.branches)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        both = list(zip(self.branches, self.norms, strict=True))
        if self.form == "parallel":
            return self.alpha * x + sum(branch(norm(x)) for branch, norm in both)
        for i, (branch, norm) in enumerate(both):
            given = (memory,) if memory is not None and i == 1 else ()
            if self.form == "pre":
                x = self.alpha * x + branch(norm(x), *given)
            elif self.form == "around":
                x = self.alpha * x + norm(branch(x, *given))
            elif self.form == "in_place":
                f = branch(x, *given)
                f += self.alpha * x
                x = norm(f)
            elif self.form == "joined":
                x = norm(self.join(branch(x, *given), x))
            else:
                x = norm(self.alpha * x + branch(x, *given))
        return x


class Stack(nn.Module):
    def __init__(self, layers: int, causal: bool = False, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        constants = deepnorm_constants(encoder_layers=layers).encoder
        assert constants is not None
        self.embedding, self.head = nn.Embedding(20, D), nn.Linear(D, 20)
        self.blocks = nn.ModuleList(Block(constants.alpha, constants.beta, causal, **options) for _ in range(layers))

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(x)}


RIGHT: dict[str, dict[str, Any]] = {
    "Linear": {},
    "Conv1D, packed": {"matrix": Conv1D, "packing": "packed"},
    "packed head by head": {"packing": "heads"},
    "query, and key with value": {"packing": "pair"},
    "gate": {"gate": "separate", "norm": Rms},
    "gate in one matrix": {"gate": "fused", "norm": nn.RMSNorm},
    "flat feed-forward": {"flat": True},
    "sum in place": {"form": "in_place"},
    "sum in a module": {"form": "joined"},
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", list(RIGHT))
def test_a_right_one_of_each_form_passes(name: str, causal: bool) -> None:
    found = review(Stack(4, causal, **RIGHT[name]), IDS)
    assert statuses(found) == {}
    assert found["α on the skip"].expected == f"α = 1.682 ({'decoder' if causal else 'encoder'})"
    assert "query" in found["gain of query and key"].found
    gains = found["gain of value, output and FFN"].found
    assert all(role in gains for role in ("value", "output", "ffn_in", "ffn_out"))
    assert ("ffn_gate" in gains) == ("gate" in RIGHT[name])


class Translator(nn.Module):
    def __init__(self, N: int, M: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        both = deepnorm_constants(N, M)
        assert both.encoder is not None
        assert both.decoder is not None
        self.embedding = nn.Embedding(20, D)
        self.lower = nn.ModuleList(Block(both.encoder.alpha, both.encoder.beta, False) for _ in range(N))
        self.upper = nn.ModuleList(Block(both.decoder.alpha, both.decoder.beta, True, cross=True) for _ in range(M))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, y = self.embedding(source), self.embedding(target)
        for block in self.lower:
            memory = block(memory)
        for block in self.upper:
            y = block(y, memory)
        return y


def test_encoder_and_decoder_are_told_apart_by_what_their_tokens_see() -> None:
    found = review(Translator(2, 5), (IDS, IDS[:, :7]))
    assert statuses(found) == {}
    # (N⁴M)^(1/16)·0.81 and (3M)^¼, the paper's Figure 2
    assert found["α on the skip"].expected == "α = 1.065 (encoder) and α = 1.968 (decoder)"
    kinds = [view.stack for view in find_sublayers(Translator(2, 5), (IDS, IDS[:, :7]))]
    assert kinds == ["encoder"] * 4 + ["decoder"] * 15


def test_inputs_by_keyword() -> None:
    assert statuses(review(Translator(2, 2), {"source": IDS, "target": IDS[:, :7]})) == {}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ("pre", "in 8 of 8 sub-layers F reads the norm's output: Pre-LN"),
        ("parallel", "in 8 of 8 sub-layers F reads the norm's output: Pre-LN"),
        ("around", "in 8 of 8 sub-layers no norm sees the sum, only the branch's output"),
    ],
)
def test_other_forms_are_called_by_their_name(form: str, sentence: str, flat: bool) -> None:
    """Also where the feed-forward part works on one row of tokens, as OPT's does."""
    found = review(Stack(4, True, form=form, flat=flat), IDS)
    assert found["norm outside"].found == sentence
    assert found["norm outside"].status == "FAIL"
    assert found["α on the skip"].status == ("FAIL" if form == "parallel" else "PASS")
    assert ("Branches share one sum" in found["α on the skip"].mend) == (form == "parallel")
    assert "could not" not in str(found)


@pytest.mark.parametrize("packing", ["packed", "heads"])
def test_packed_matrices_are_judged_by_their_parts(packing: str) -> None:
    """Drawn as one matrix, each part is too small by √2, wherever it is."""
    model = Stack(4, packing=packing)
    for block in model.blocks:
        nn.init.xavier_normal_(block.branches[0].inputs["mixer"].weight)  # type: ignore[index, union-attr, arg-type]
    found = review(model, IDS)
    query = float(found["gain of query and key"].found.split()[1].rstrip(","))
    assert query == pytest.approx(sqrt(0.5), rel=0.05)
    assert found["gain of value, output and FFN"].status == "FAIL"


@pytest.mark.parametrize("sequences", [1, 2, 3, 4])
def test_packed_matrices_are_found_whatever_the_batch(sequences: int) -> None:
    """In two or four sequences the middle row is a first token, whose query a mask leaves without a gradient."""
    ids = torch.randint(20, (sequences, 8), generator=torch.Generator().manual_seed(0))
    assert review(Stack(4, True, packing="packed"), ids)["gain of query and key"].status == "PASS"


class Row(nn.Module):
    """One sequence as (T, d)."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block(1.0, 1.0, False)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x[None])[0]  # type: ignore[no-any-return]


def test_a_single_sequence_without_a_batch() -> None:
    torch.manual_seed(0)
    found = review(nn.Sequential(*(Row() for _ in range(3))), torch.randn(9, D), depth=(3, 0))
    assert "There is no α" in found["α on the skip"].mend
    assert "token similarity" in found["signal at depth"].found
