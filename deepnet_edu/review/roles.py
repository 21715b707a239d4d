"""Which matrix of a branch is query, key, value, output, ffn_in, ffn_gate or ffn_out, by flow and by name."""

import re

import torch
from torch import Tensor, nn

from deepnet_edu.review.dependence import dependence
from deepnet_edu.review.forms import SubLayer, reads
from deepnet_edu.review.trace import Call

#: Words by which query, key and value are known, in the last part of a module's name that says more than linear.
WORDS = {
    "query": {"q", "query", "queries", "wq"},
    "key": {"k", "key", "keys", "wk"},
    "value": {"v", "value", "values", "wv"},
}
PAIRS = {"kv", "wkv"}


def assign(sub: SubLayer) -> None:
    """Find a sub-layer's kind and the roles of its matrices; roles that cannot be told stay open."""
    view = sub.view
    calls = [call for call in sub.window if call.matrices]
    given = set(view.weights)
    by_name = {role: call for call in calls for role in WORDS if _words(call.name) & WORDS[role]}
    packed = any(isinstance(call.module, nn.MultiheadAttention) for call in calls)
    if given & {"ffn_in", "ffn_gate", "ffn_out"}:
        sub.kind = "ffn"
    elif _reads_memory(sub, calls) and not _mixes(sub):
        sub.kind = "cross"
    elif given or packed or by_name or _mixes(sub):
        sub.kind = "attention"
    else:
        sub.kind = "ffn"
    if given or not calls:
        return
    view.weights = _of_ffn(calls) if sub.kind == "ffn" else _of_attention(sub, calls, by_name)


def _words(name: str) -> set[str]:
    parts = [part for part in name.split(".") if not part.isdigit() and part != "linear"]
    return set(re.split(r"[^a-z]+", parts[-1].lower())) if parts else set()


def _mixes(sub: SubLayer) -> bool:
    """Whether a token's output depends on other tokens of the stream."""
    rows = len(sub.x.value)
    if rows < 2 or not sub.x.fits(sub.f):
        return False
    for row in (rows // 2, rows - 1):
        gradient = dependence(sub.f, sub.x, row)
        if gradient is not None and (gradient != 0).any(-1).sum() > 1:
            return True
    return False


def _reads_memory(sub: SubLayer, calls: list[Call]) -> bool:
    """Whether a matrix of the branch reads what was there before the stream came to this sub-layer."""
    return any(one.origin.time < sub.x.origin.time for call in calls for one in call.inputs)


def _matrix(call: Call) -> Tensor | None:
    """The call's matrix as (fan_out, fan_in), whichever way it is stored; None if it has several, or is none."""
    if len(call.matrices) != 1 or call.output is None:
        return None
    weight: Tensor = call.matrices[0]
    if weight.ndim > 2 and weight[0, 0].numel() == 1:
        weight = weight.flatten(1)
    size = (call.output.value.shape[1], call.inputs[0].value.shape[1])
    if weight.shape == size:
        return weight
    return weight.T if weight.T.shape == size else None


def _of_ffn(calls: list[Call]) -> dict[str, Tensor]:
    matrices = [_matrix(call) for call in calls]
    if any(matrix is None for matrix in matrices) or len(calls) not in (2, 3):
        return {}
    first, last = matrices[0], matrices[-1]
    assert first is not None
    assert last is not None
    if len(calls) == 3:
        if not (matrices[1] is not None and matrices[1].shape == first.shape and reads(calls[1], calls[0].inputs[0])):
            return {}
        return {"ffn_in": first, "ffn_gate": matrices[1], "ffn_out": last}
    if first.shape[0] == 2 * last.shape[1]:  # gate and value in one
        one, other = first.chunk(2)
        return {"ffn_in": one, "ffn_gate": other, "ffn_out": last}
    return {"ffn_in": first, "ffn_out": last}


def _of_attention(sub: SubLayer, calls: list[Call], by_name: dict[str, Call]) -> dict[str, Tensor]:
    for call in calls:
        if isinstance(call.module, nn.MultiheadAttention):
            return _of_torch(call.module)
    output = _matrix(calls[-1])
    before = calls[:-1]
    if output is None or not before:
        return {}
    found: dict[str, Tensor | None] = {"output": output}
    if set(by_name) == set(WORDS):
        found |= {role: _matrix(call) for role, call in by_name.items()}
    elif len(before) == 2 and "query" in by_name and _words(before[1].name) & PAIRS:
        pair = _matrix(before[1])
        key, value = (None, None) if pair is None or len(pair) % 2 else pair.chunk(2)
        found |= {"query": _matrix(by_name["query"]), "key": key, "value": value}
    elif len(before) == 1:
        found |= _of_packed(sub, before[0])
    return {role: weight for role, weight in found.items() if weight is not None}


def _of_torch(attention: nn.MultiheadAttention) -> dict[str, Tensor]:
    if attention.in_proj_weight is not None:
        query, key, value = attention.in_proj_weight.chunk(3)
    else:
        query, key, value = attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight
    return {"query": query, "key": key, "value": value, "output": attention.out_proj.weight}


def _of_packed(sub: SubLayer, call: Call) -> dict[str, Tensor | None]:
    """Query, key and value of one matrix. The query's rows are found: a token's output depends on its own query alone.

    Behind each run of query rows come its keys and values, half and half: for all heads together or head by head.
    """
    weight, packed = _matrix(call), call.output
    if weight is None or packed is None or len(packed.value) != len(sub.f.value):
        return {}
    row = len(packed.value) - 1  # with a mask, the first token of a sequence has no choice, and its query no gradient
    gradient = dependence(sub.f, packed, row)
    if gradient is None:
        return {}
    others = gradient.clone()
    others[row] = 0
    own = (gradient[row] != 0) & ~(others != 0).any(0)
    if not own.any() or own.all() or not own[0]:
        return {}
    starts = [i for i in range(len(own)) if own[i] and (i == 0 or not own[i - 1])]
    rows: dict[str, list[int]] = {"query": [], "key": [], "value": []}
    for begin, end in zip(starts, [*starts[1:], len(own)], strict=True):
        queries = int(own[begin:end].sum())
        rest = end - begin - queries
        if rest % 2 or not rest:
            return {}
        rows["query"] += range(begin, begin + queries)
        rows["key"] += range(begin + queries, begin + queries + rest // 2)
        rows["value"] += range(begin + queries + rest // 2, end)
    return {role: weight[torch.tensor(chosen)] for role, chosen in rows.items()}
