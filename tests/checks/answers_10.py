"""Lesson 10: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

import copy
import os
import pickle
import shutil
from collections.abc import Callable
from math import cos, inf, isfinite, isinf, isnan, nan, pi
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory, mkstemp
from typing import Any

import numpy as np
import torch
import torch._dynamo  # which the first optimizer of PyTorch's would import while a check counts the seconds
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deepnet_edu.model import Batch

FOLDER = TemporaryDirectory()


class Plain:
    """An optimizer for the tests, much quicker than PyTorch's: plain descent, and a count."""

    def __init__(self, parameters: Any) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(parameters), "lr": 0.3}]
        self.count = torch.zeros(())

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in self.param_groups[0]["params"]:
            p.grad = None

    def step(self, closure: Callable | None = None) -> Any:
        loss = closure() if closure else None
        self.count += 1
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p -= self.param_groups[0]["lr"] * p.grad
        return loss

    def state_dict(self) -> dict[str, Tensor]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.count = state["count"]


class Line(nn.Module):
    """loss = mean((x·w - y)²)."""

    def __init__(self, g: np.random.Generator, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(g.normal(size=3), dtype=dtype))

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (batch[0] @ self.w - batch[1]).square().mean()


class Table(nn.Module):
    def __init__(self, g: np.random.Generator) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(g.normal(size=(4, 4))))

    def loss(self, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(self.table[batch.inputs].flatten(0, 1), batch.targets.flatten())


def _see_step(f: Callable, g: np.random.Generator) -> Any:
    model = Line(g)
    model.w.grad = torch.ones(3).double()
    batch = torch.tensor(g.normal(size=(4, 3))), torch.tensor(g.normal(size=4))
    said = f(model, batch, Plain(model.parameters()), g.uniform(0.01, 0.1), g.uniform(0.5, 9))
    return [*said, *model.w.tolist()]


def _see_scaled(f: Callable, g: np.random.Generator) -> Any:
    model = Line(g, torch.float32)
    model.w.grad = torch.ones(3)
    optimizer = Plain(model.parameters())
    batch = torch.tensor(g.normal(size=(4, 3)) * 10).float(), torch.tensor(g.normal(size=4)).float()
    scale = 2.0 ** int(g.integers(1, 140))
    loss, norm = f(model, batch, optimizer, g.uniform(0.001, 0.01), g.uniform(0.5, 9), scale)
    return [loss, norm if isfinite(norm) else -1.0, optimizer.count.item(), *model.w.tolist()]


def _see_accumulated(f: Callable, g: np.random.Generator) -> Any:
    model, batches = Table(g), []
    for _ in range(int(g.integers(1, 4))):
        inputs, targets = (torch.tensor(g.integers(0, 4, (2, 3))) for _ in range(2))
        targets[torch.tensor(g.uniform(size=(2, 3)) < 0.4)] = -100
        if not batches:
            targets[0, 0] = 1
        batches.append(Batch(inputs, targets))
    model.table.grad = torch.full_like(model.table, 0.5)
    return [f(model, batches), *model.table.grad.flatten().tolist()]


def _see_checkpoints(f: Callable, g: np.random.Generator) -> Any:
    """What comes back of everything, through a file."""

    def made(seed: int) -> tuple[nn.Linear, Plain, torch.Generator]:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also writes down who called it
        model = nn.Linear(2, 1)
        optimizer = Plain(model.parameters())
        optimizer.count += seed
        return model, optimizer, torch.Generator().manual_seed(seed)

    path = Path(FOLDER.name, "x")
    f(*made(int(g.integers(1000))))[0](path, int(g.integers(99)))
    files = len(list(path.parent.iterdir()))
    model, optimizer, data = made(7)
    step = f(model, optimizer, data)[1](path)
    path.unlink()
    random = torch.rand(2).tolist() + torch.rand(2, generator=data).tolist()
    return [step, files, *model.weight.flatten().tolist(), optimizer.count.item(), *random]


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "training_step": _see_step,
    "cosine_rate": lambda f, g: f(int(g.integers(0, 41)), 40, g.uniform(0.5, 1), int(g.integers(1, 20)), 0.1, 0.2),
    "accumulated_loss": _see_accumulated,
    "scaled_step": _see_scaled,
    "checkpoints": _see_checkpoints,
    "next_scale": lambda f, g: f(2.0 ** int(g.integers(9)), int(g.integers(0, 4)), bool(g.integers(2)), 4),
    "adamw_step": lambda f, g: np.stack(
        f(*map(torch.tensor, g.uniform(0.1, 1, (4, 3))), int(g.integers(1, 9)), 0.1, (0.8, 0.9), 0.01, 0.3)
    ),
}


# A form of tests/checks/forms.py that a right answer cannot have, by exercise, and why.
def step(order="zero forward backward clip rate step", cut=nn.utils.clip_grad_norm_, after=False, groups=slice(None)):
    """A step whose parts stand in another order."""

    def answer(model, batch, optimizer, rate, clip):
        loss = model.loss(batch)
        norm = torch.zeros(())
        for part in order.split():
            if part == "zero":
                optimizer.zero_grad()
            elif part == "backward":
                loss.backward()
            elif part == "clip":
                norm = cut(model.parameters(), clip)
            elif part == "rate":
                for group in optimizer.param_groups[groups]:
                    group["lr"] = rate
            elif part == "step":
                optimizer.step()
        if norm is None or "clip" not in order:
            norm = torch.zeros(())
        return (model.loss(batch) if after else loss).item(), float(norm)

    return answer


def step_by_hand(model, batch, optimizer, rate, clip):
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = model.loss(batch)
    gradients = torch.autograd.grad(loss, parameters)
    norm = sum(g.square().sum() for g in gradients) ** 0.5
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g * torch.clamp(clip / (norm + 1e-6), max=1.0)
    for i in range(len(optimizer.param_groups)):
        optimizer.param_groups[i].update(lr=rate)
    optimizer.step()
    return loss.item(), norm.item()


def step_by_closure(model, batch, optimizer, rate, clip):
    """As optimizers want it that look at a loss more than once."""
    norms = []

    def closure():
        optimizer.zero_grad()
        loss = model.loss(batch)
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), clip))
        return loss

    for group in optimizer.param_groups:
        group["lr"] = rate
    return optimizer.step(closure).item(), norms[0].item()


def step_in_tensors(model, batch, optimizer, rate, clip):
    """Gradients by hand, and none of them asked whether it is there."""
    model.zero_grad()
    loss = model.loss(batch)
    loss.backward()
    norm = torch.sqrt(sum(p.grad.square().sum() for p in model.parameters()))
    if norm > clip:
        for p in model.parameters():
            p.grad.mul_(clip / norm)
    for group in optimizer.param_groups:
        group.update(lr=rate)
    optimizer.step()
    return [loss.detach(), norm]


def step_sometimes(when):
    """No step where the norm is too long."""

    def answer(model, batch, optimizer, rate, clip):
        optimizer.zero_grad()
        loss = model.loss(batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip).item()
        for group in optimizer.param_groups:
            group["lr"] = rate
        if when(norm, clip):
            optimizer.step()
        return loss.item(), norm

    return answer


def rate_on_loss(model, batch, optimizer, rate, clip):
    optimizer.zero_grad()
    loss = model.loss(batch)
    (rate * loss).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    optimizer.step()
    return loss.item(), norm.item() / rate


def rate_in_defaults(model, batch, optimizer, rate, clip):
    optimizer.defaults["lr"] = rate
    return step("zero backward clip step")(model, batch, optimizer, rate, clip)


def no_optimizer(model, batch, optimizer, rate, clip):
    optimizer.zero_grad()
    loss = model.loss(batch)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    with torch.no_grad():
        for p in model.parameters():
            p -= rate * p.grad
    return loss.item(), norm.item()


def no_number_at_infinity(model, batch, optimizer, rate, clip):
    optimizer.zero_grad()
    loss = model.loss(batch)
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    for p in model.parameters():
        p.grad *= clip / max(norm, clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return loss.item(), norm


def sleeping(model, *rest):
    model.eval()
    return step()(model, *rest)


def step_without_graph(model, batch, optimizer, rate, clip):
    with torch.no_grad():
        loss = model.loss(batch)
    loss.backward()
    optimizer.step()
    return loss.item(), 0.0


def each_alone(parameters, clip):
    return torch.stack([nn.utils.clip_grad_norm_([p], clip) for p in parameters]).norm()


def norm_after(parameters, clip):
    parameters = [p for p in parameters if p.grad is not None]
    nn.utils.clip_grad_norm_(parameters, clip)
    return torch.cat([p.grad.flatten() for p in parameters]).norm()


def always(parameters, clip):
    parameters = [p for p in parameters if p.grad is not None]
    norm = torch.cat([p.grad.flatten() for p in parameters]).norm()
    for p in parameters:
        p.grad *= clip / (norm + 1e-6)
    return norm


def graph_kept(model, batch, optimizer, rate, clip):
    _, norm = step()(model, batch, optimizer, rate, clip)
    return model.loss(batch), norm


def cosine(fall=lambda y: (1 + cos(pi * y)) / 2, done=lambda n, w, N: (n - w) / (N - w), rise=None):
    def answer(n, steps, peak, warmup, start, final):
        if n <= warmup:
            return (rise or (lambda n, p, w, s: s + (p - s) * n / w))(n, peak, warmup, start)
        return final + (peak - final) * fall(done(n, warmup, steps))

    return answer


def accumulated(weight, between=lambda model: None, value=None, before=lambda model: None, skip=True):
    """Each loss times weight(batch, batches), of the batches that have answers."""

    def answer(model, batches):
        before(model)
        total = 0.0
        for batch in batches:
            if skip and not answers(batch):
                continue
            between(model)
            loss = model.loss(batch)
            (loss * weight(batch, batches)).backward()
            total += loss.item() * (value or weight)(batch, batches)
        return float(total)

    return answer


def answers(batch):
    return int((batch.targets != -100).sum())


def shares_in_single(model, batches):
    """Counts as tensors, whose ratio is a float32."""
    counts = torch.stack([(batch.targets != -100).sum() for batch in batches])
    total = 0.0
    for batch, count in zip(batches, counts, strict=True):
        if not count:
            continue
        loss = model.loss(batch) * (count / counts.sum())
        loss.backward()
        total += loss.item()
    return total


def by_recursion(model, batches, total=None):
    total = total or sum(map(answers, batches))
    if not batches:
        return 0.0
    if not answers(batches[0]):
        return by_recursion(model, batches[1:], total)
    loss = model.loss(batches[0])
    loss.backward(torch.tensor(answers(batches[0]) / total).to(loss.dtype))
    return loss.item() * answers(batches[0]) / total + by_recursion(model, batches[1:], total)


def forward_without_graph(model, batches):
    with torch.no_grad():
        loss = sum(by_answers(batch, batches) * model.loss(batch) for batch in batches)
    loss.backward()
    return loss.item()


def overwrites(model, batches):
    """The gradients are set, not added."""
    old = {p: p.grad for p in model.parameters()}
    for p in old:
        p.grad = None
    return accumulated(by_answers)(model, batches)


def fills_targets(model, batches):
    loss = accumulated(by_answers)(model, batches)
    for batch in batches:
        batch.targets.clamp_(min=0)
    return loss


def by_answers(batch, batches):
    return answers(batch) / sum(map(answers, batches))


def sums_of_answers(model, batches):
    """Each loss as a sum, divided at the end."""
    old = {p: p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in model.parameters()}
    model.zero_grad()
    total, count = 0.0, 0
    for batch in batches:
        n = answers(batch)
        if n == 0:
            continue
        loss = n * model.loss(batch)
        loss.backward()
        total, count = total + loss.item(), count + n
    for p in model.parameters():
        p.grad = old[p] + p.grad / count
    return total / count


def all_at_once(model, batches):
    loss = sum(by_answers(batch, batches) * model.loss(batch) for batch in batches)
    loss.backward()
    return loss.item()


def unhealthy(norm):
    return not isfinite(norm)


def scaled(order="zero backward unscale clip", skip=unhealthy, says=None, rates=lambda rate, scale: rate):
    def answer(model, batch, optimizer, rate, clip, scale):
        loss = model.loss(batch)
        norm = torch.zeros(())
        for part in order.split():
            if part == "zero":
                optimizer.zero_grad(set_to_none=False)
            elif part == "backward":
                (scale * loss).backward()
            elif part == "unscale":
                for p in model.parameters():
                    p.grad.mul_(1 / scale)
            elif part == "plain":
                loss.backward()
            elif part == "less":
                (loss / scale).backward()
            elif part == "more":
                for p in model.parameters():
                    p.grad.mul_(scale)
            elif part == "clip":
                norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
            elif part == "clip_scaled":
                norm = nn.utils.clip_grad_norm_(model.parameters(), clip * scale) / scale
        if not skip(norm.item()):
            for group in optimizer.param_groups:
                group["lr"] = rates(rate, scale)
            optimizer.step()
        return (says or (lambda loss, norm, scale: (loss, norm)))(loss.item(), norm.item(), scale)

    return answer


def scaled_by_gradients(model, batch, optimizer, rate, clip, scale):
    loss, parameters = model.loss(batch), list(model.parameters())
    gradients = [g / scale for g in torch.autograd.grad(loss * scale, parameters)]
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    if not torch.isfinite(norm):
        return loss.item(), norm.item()
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g * min(1.0, clip / (norm.item() + 1e-6))
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return loss.item(), norm.item()


def finite_loss(model, batch, optimizer, rate, clip, scale):
    loss = model.loss(batch)
    answer = scaled(skip=lambda norm: not isfinite(loss.item() * scale))
    return answer(model, batch, optimizer, rate, clip, scale)


def holes_filled(model, batch, optimizer, rate, clip, scale):
    loss, parameters = model.loss(batch), list(model.parameters())
    optimizer.zero_grad()
    (loss * scale).backward()
    finite = all(bool(torch.isfinite(p.grad).all()) for p in parameters)
    for p in parameters:
        p.grad = torch.nan_to_num(p.grad, 0.0, 0.0, 0.0) / scale
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return loss.item(), norm.item() if finite else inf


def steps_back(model, batch, optimizer, rate, clip, scale):
    """The weights are put back, the optimizer's memory is not."""
    before = {p: p.detach().clone() for p in model.parameters()}
    loss, norm = scaled(skip=lambda norm: False)(model, batch, optimizer, rate, clip, scale)
    if not isfinite(norm):
        with torch.no_grad():
            for p, value in before.items():
                p.copy_(value)
    return loss, norm


PARTS = ("model", "optimizer", "data", "dropout", "step")


def beside(path, ending=".new"):
    return path.with_suffix(ending)


def named(run, path):
    """A name that nobody else has, beside the path."""
    with NamedTemporaryFile(dir=path.parent, delete=False) as file:
        torch.save(run, file)
        os.fsync(file.fileno())
    os.replace(file.name, path)


def in_strings(run, path):
    torch.save(run, f"{path}.part")
    os.rename(f"{path}.part", str(path))


def removed_first(run, path):
    torch.save(run, beside(path))
    path.unlink(missing_ok=True)
    beside(path).rename(path)


def put_aside(run, path):
    torch.save(run, beside(path))
    if path.exists():
        os.rename(path, beside(path, ".old"))
    os.rename(beside(path), path)
    beside(path, ".old").unlink(missing_ok=True)


def in_another_folder(run, path):
    handle, name = mkstemp()
    os.close(handle)
    torch.save(run, name)
    shutil.move(name, path)


def at_first_in_place(run, path):
    if path.exists():
        torch.save(run, beside(path))
        beside(path).replace(path)
    else:
        torch.save(run, path)


def copied_over(run, path):
    torch.save(run, beside(path))
    path.write_bytes(beside(path).read_bytes())
    beside(path).unlink()


WRITERS = {
    "named": named,
    "strings": in_strings,
    "removed first": removed_first,
    "put aside": put_aside,
    "another folder": in_another_folder,
    "at first in place": at_first_in_place,
    "copied over": copied_over,
}


def saving(forget="", write="rename", safe=True, stale=False, counts=int, whole=False):
    """Five things to a file, but for what is forgotten."""

    def answer(model, optimizer, data):
        def state():
            return {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "data": data.get_state(),
                "dropout": torch.get_rng_state(),
            }

        first = {name: value for name, value in state().items() if stale}

        def save(path, step):
            run = {**state(), **first, "step": counts(step)}
            if whole:
                run["model"] = model
            if write in WRITERS:
                WRITERS[write](run, path)
            elif write == "rename":
                torch.save(run, path.with_suffix(".new"))
                path.with_suffix(".new").replace(path)
            elif write == "copy":
                torch.save(run, path.with_suffix(".new"))
                shutil.copy(path.with_suffix(".new"), path)
            elif write == "elsewhere":
                torch.save(run, path.with_suffix(f".{step}"))
            else:
                torch.save(run, path)

        def load(path):
            run = torch.load(path, weights_only=safe)
            if forget == "buffers":
                names = dict(model.named_parameters())
                model.load_state_dict({k: v for k, v in run["model"].items() if k in names}, strict=False)
            elif forget != "model":
                model.load_state_dict(run["model"])
            if forget != "optimizer":
                optimizer.load_state_dict(run["optimizer"])
            if forget != "data":
                data.set_state(run["data"])
            if forget != "dropout":
                torch.set_rng_state(run["dropout"])
            return 0 if forget == "step" else run["step"]

        return save, load

    return answer


def in_safetensors(model, optimizer, data):
    """The same without any pickle: names and tensors."""

    def save(path, step):
        run = {f"model/{name}": value for name, value in model.state_dict().items()}
        for i, moments in optimizer.state_dict()["state"].items():
            run |= {f"optimizer/{i}/{kind}": value for kind, value in moments.items()}
        run |= {"data": data.get_state(), "dropout": torch.get_rng_state(), "step": torch.tensor(step)}
        temporary = path.with_name(f".{path.name}.part")
        save_file(run, temporary)
        os.replace(temporary, path)

    def load(path):
        run = load_file(path)
        model.load_state_dict({k[6:]: v for k, v in run.items() if k.startswith("model/")})
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in run.items():
            if name.startswith("optimizer/"):
                _, i, kind = name.split("/")
                states.setdefault(int(i), {})[kind] = value
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
        data.set_state(run["data"])
        torch.set_rng_state(run["dropout"])
        return run["step"].item()

    return save, load


def pickled(model, optimizer, data):
    def save(path, step):
        run = model.state_dict(), optimizer.state_dict(), data.get_state(), torch.get_rng_state(), step
        Path(f"{path}.part").write_bytes(pickle.dumps(run))
        Path(f"{path}.part").rename(path)

    def load(path):
        weights, moments, where, random, step = pickle.loads(path.read_bytes())
        model.load_state_dict(weights)
        optimizer.load_state_dict(moments)
        data.set_state(where)
        torch.set_rng_state(random)
        return step

    return save, load


def new_parameters(model, optimizer, data):
    """The optimizer is left with the old ones."""
    save, load = saving()(model, optimizer, data)

    def assigned(path):
        step = load(path)
        model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
        return step

    return save, assigned


LAST: list[Any] = []


def in_memory(model, optimizer, data):
    """What was saved last, whatever the file."""

    def save(path, step):
        LAST.append(
            copy.deepcopy((model.state_dict(), optimizer.state_dict(), data.get_state(), torch.get_rng_state(), step))
        )
        path.with_suffix(".new").write_text("nothing")
        path.with_suffix(".new").replace(path)

    def load(path):
        weights, moments, where, random, step = LAST[-1]
        model.load_state_dict(weights)
        optimizer.load_state_dict(moments)
        data.set_state(where)
        torch.set_rng_state(random)
        return step

    return save, load


def reseeds(model, optimizer, data):
    save, load = saving()(model, optimizer, data)

    def seeded(path, step):
        torch.manual_seed(step)
        save(path, step)

    return seeded, load


def adamw(
    eps=lambda v, e: v.sqrt() + e, correct=True, decays=lambda rate, decay: rate * decay, mix=lambda b: (b, 1 - b)
):
    def answer(w, g, m, v, n, rate, betas, e, decay):
        (a, b), (c, d) = mix(betas[0]), mix(betas[1])
        m, v = a * m + b * g, c * v + d * g.square()
        first, second = (1 - betas[0] ** n, 1 - betas[1] ** n) if correct else (1.0, 1.0)
        return w - rate * (m / first) / eps(v / second, e) - decays(rate, decay) * w, m, v

    return answer


def adamw_lerp(w, g, m, v, n, rate, betas, eps, decay):
    m, v = torch.lerp(m, g, 1 - betas[0]), torch.lerp(v, g**2, 1 - betas[1])
    w = (1 - rate * decay) * w
    root = (1 - betas[1] ** n) ** 0.5
    return w - rate / (1 - betas[0] ** n) * m / (v.sqrt() / root + eps), m, v


def by_torch(w, g, m, v, n, rate, betas, eps, decay):
    parameter = nn.Parameter(w.clone())
    parameter.grad = g.clone()
    optimizer = torch.optim.AdamW([parameter], lr=rate, betas=betas, eps=eps, weight_decay=decay)
    optimizer.state[parameter] = {"step": torch.tensor(n - 1.0), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    optimizer.step()
    state = optimizer.state[parameter]
    return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]


def corrected_kept(w, g, m, v, n, rate, betas, eps, decay):
    w, m, v = adamw()(w, g, m, v, n, rate, betas, eps, decay)
    return w, m / (1 - betas[0] ** n), v / (1 - betas[1] ** n)


def scale_rule(scale, good, overflow, interval):
    good = 0 if overflow else good + 1
    full = good == interval
    return scale * (0.5 if overflow else 2 if full else 1), 0 if full else good


RIGHT = [
    ("training_step", step("backward rate clip step zero")),
    ("training_step", step("zero backward clip rate step")),
    ("training_step", step_by_hand),
    ("training_step", step_by_closure),
    ("training_step", step_in_tensors),
    ("cosine_rate", cosine()),
    ("cosine_rate", cosine(lambda y: cos(pi * y / 2) ** 2)),
    ("cosine_rate", cosine(lambda y: (1 + torch.cos(torch.tensor(pi * y))) / 2)),
    ("cosine_rate", cosine(lambda y: (1 + np.exp(1j * pi * y).real) / 2)),
    ("cosine_rate", lambda n, N, p, w, s, f: float(np.interp(n, [0, w], [s, p])) if n < w else
        (p + f) / 2 + (p - f) / 2 * np.cos(np.pi * (n - w) / (N - w))),
    ("accumulated_loss", accumulated(by_answers)),
    ("accumulated_loss", sums_of_answers),
    ("accumulated_loss", shares_in_single),
    ("accumulated_loss", by_recursion),
    ("scaled_step", scaled()),
    ("scaled_step", scaled_by_gradients),
    ("scaled_step", scaled("zero backward clip_scaled unscale")),
    ("scaled_step", scaled(says=lambda loss, norm, scale: (np.float32(loss), torch.tensor(norm)))),
    ("checkpoints", saving()),
    ("checkpoints", in_safetensors),
    ("checkpoints", saving(write="named")),
    ("checkpoints", saving(write="strings")),
    ("checkpoints", saving(counts=torch.tensor)),
    ("next_scale", scale_rule),
    ("next_scale", lambda s, g, o, i: np.array(scale_rule(s, g, o, i))),
    ("next_scale", lambda s, g, o, i: (s * 2.0 ** (-1 if o else (g + 1) // i), 0 if o else (g + 1) % i)),
    ("next_scale", lambda s, g, o, i: (s / 2, 0) if o else (s, g + 1) if g + 1 < i else (s + s, 0)),
    ("adamw_step", adamw()),
    ("adamw_step", adamw_lerp),
    ("adamw_step", by_torch),
    ("adamw_step", lambda *a: torch.stack(adamw()(*a)).unbind()),
]  # fmt: skip

WRONG = [
    ("training_step", step("backward clip rate step"), "The gradients of the last step are still there"),
    ("training_step", step("backward zero clip rate step"), "Nothing moved"),
    ("training_step", step("zero rate step backward clip"), "Nothing moved"),
    ("training_step", step("zero backward rate step clip"), "a gradient that was not clipped"),
    ("training_step", step("zero backward clip step rate"), "with another rate"),
    ("training_step", step("zero backward clip step"), "with another rate"),
    ("training_step", step(groups=slice(1)), "Only the first group"),
    ("training_step", step(cut=lambda p, c: nn.utils.clip_grad_value_(p, c)), "Entry by entry"),
    ("training_step", step(cut=each_alone), "not one for each"),
    ("training_step", step(cut=always), "clip only shortens"),
    ("training_step", step(cut=norm_after), "That is the norm after clipping"),
    ("training_step", step(after=True), "That is the loss after the step"),
    ("training_step", step("zero backward clip rate"), "optimizer.step() was not called"),
    ("training_step", step("zero backward clip rate step step"), "stepped twice"),
    ("training_step", step_sometimes(lambda norm, clip: norm <= clip), "the step is taken all the same"),
    ("training_step", step_sometimes(lambda norm, clip: norm < 50), "After step 3"),
    ("training_step", rate_on_loss, "The rate belongs into the optimizer"),
    ("training_step", rate_in_defaults, "with another rate"),
    ("training_step", no_optimizer, "moved without the optimizer"),
    ("training_step", no_number_at_infinity, "inf/inf is not a number"),
    ("training_step", sleeping, "in another mode"),
    ("training_step", step_without_graph, "ran without gradients"),
    ("training_step", step(cut=lambda p, c: nn.utils.clip_grad_norm_(p, c, inf)), "by the largest entry"),
    ("training_step", lambda *a: step()(*a)[::-1], "the other way round"),
    ("training_step", graph_kept, "holds the whole graph"),
    ("training_step", lambda *a: step()(*a)[::-1], "the other way round"),
    ("cosine_rate", cosine(done=lambda n, w, N: n / N), "begins where the warm-up ends"),
    ("cosine_rate", cosine(done=lambda n, w, N: (n - w) / N), "The cosine must end at n = steps"),
    ("cosine_rate", cosine(lambda y: (1 + cos(2 * pi * y)) / 2), "a whole one brings the peak back"),
    ("cosine_rate", cosine(lambda y: (1 + cos(180 * y)) / 2), "cos counts in radians"),
    ("cosine_rate", cosine(lambda y: cos(pi * y)), "A cosine falls from 1 to -1"),
    ("cosine_rate", cosine(lambda y: 1 - y), "a straight line"),
    ("cosine_rate", cosine(rise=lambda n, p, w, s: p * n / w), "begins at start"),
    ("cosine_rate", lambda n, N, p, w, s, f: cosine()(n, N, p, w, s, 0.0), "It ends at final"),
    ("cosine_rate", cosine(done=lambda n, w, N: (n - w) / (N - w - 1)), "ends one update early"),
    ("cosine_rate", cosine(rise=lambda n, p, w, s: s + (p - s) * (n + 1) / w), "one update early: at n = 0"),
    (
        "cosine_rate",
        cosine(rise=lambda n, p, w, s: s + (p - s) * (1 - cos(pi * n / w)) / 2),
        "a straight line: the cosine",
    ),
    ("cosine_rate", lambda n, N, p, w, s, f: cosine()(n, N, p, w, s, s), "not at start"),
    ("cosine_rate", lambda n, N, p, w, s, f: cosine()(n, N, p, w, s, f * p), "not a share of peak"),
    ("cosine_rate", lambda n, N, p, w, s, f: cosine()(n, N, p, w, s, f) if n < N else 0.0, "the rate is final"),
    ("cosine_rate", lambda n, N, p, w, s, f: s + (p - s) * n / w, "then the rate falls"),
    ("cosine_rate", lambda n, N, p, w, s, f: cosine()(n, N, p, w, s, f) if n <= w else p * (w / n) ** 0.5, "inverse"),
    ("accumulated_loss", accumulated(lambda b, all: 1 / len(all)), "The mean of the batches' means"),
    ("accumulated_loss", accumulated(lambda b, all: 1 / len(all), value=by_answers), "The mean of the batches' means"),
    ("accumulated_loss", accumulated(lambda b, all: 1.0), "The losses were added up"),
    ("accumulated_loss", accumulated(lambda b, all: 1.0, value=by_answers), "The losses were added up"),
    (
        "accumulated_loss",
        accumulated(lambda b, all: b.targets.numel() / sum(x.targets.numel() for x in all), value=by_answers),
        "Each batch counts by its tokens",
    ),
    ("accumulated_loss", accumulated(by_answers, between=lambda m: m.zero_grad()), "nothing is zeroed between"),
    ("accumulated_loss", accumulated(by_answers, before=lambda m: m.zero_grad()), "zeroing is the step's work"),
    ("accumulated_loss", accumulated(by_answers, skip=False), "0 · NaN is NaN"),
    ("accumulated_loss", all_at_once, "alive at once"),
    ("accumulated_loss", forward_without_graph, "ran without gradients"),
    ("accumulated_loss", overwrites, "zeroing is the step's work"),
    ("accumulated_loss", fills_targets, "changed the targets"),
    (
        "accumulated_loss",
        lambda model, batches: accumulated(by_answers)(model, batches[-1:]),
        "last batch's loss alone",
    ),
    ("scaled_step", scaled("zero backward clip unscale"), "Unscale first, then clip"),
    ("scaled_step", scaled("zero backward clip"), "not divided by the scale"),
    ("scaled_step", scaled("backward unscale clip"), "are still there"),
    ("scaled_step", scaled("zero backward unscale"), "a gradient that was not clipped"),
    ("scaled_step", scaled(skip=lambda norm: False), "the step was taken"),
    ("scaled_step", scaled(skip=isnan), "the step was taken"),
    ("scaled_step", scaled(skip=lambda norm: norm != norm), "the step was taken"),
    ("scaled_step", scaled(skip=isinf), "the step was taken"),
    ("scaled_step", scaled(skip=lambda norm: not norm < 100), "After step 2"),
    ("scaled_step", scaled(skip=lambda norm: True), "optimizer.step() was not called"),
    ("scaled_step", scaled("zero plain clip"), "did not start from scale times the loss"),
    ("scaled_step", scaled("zero less more clip"), "did not start from scale times the loss"),
    ("scaled_step", scaled("zero plain unscale clip"), "once too often"),
    (
        "scaled_step",
        scaled("zero backward clip_scaled", rates=lambda rate, scale: rate / scale),
        "The rate was divided",
    ),
    ("scaled_step", scaled(says=lambda loss, norm, scale: (loss if isfinite(norm) else nan, norm)), "the loss did not"),
    ("scaled_step", steps_back, "the optimizer's memory changed"),
    ("scaled_step", finite_loss, "the step was taken"),
    ("scaled_step", holes_filled, "must change nothing"),
    ("scaled_step", scaled(says=lambda loss, norm, scale: (loss * scale, norm)), "That is the scaled loss"),
    ("scaled_step", scaled(says=lambda loss, norm, scale: (loss, norm * scale)), "norm of the scaled gradient"),
    (
        "scaled_step",
        scaled(says=lambda loss, norm, scale: (loss, norm if isfinite(norm) else 0.0)),
        "return its norm as it is",
    ),
    ("checkpoints", saving("optimizer"), "The optimizer has lost its memory"),
    ("checkpoints", saving("dropout"), "Dropout draws other masks"),
    ("checkpoints", saving("data"), "The data begin elsewhere"),
    ("checkpoints", saving("step"), "The count of steps"),
    ("checkpoints", saving("model"), "is not the saved one"),
    ("checkpoints", saving("buffers"), "is no parameter"),
    ("checkpoints", saving(write="final name"), "written under its own name"),
    ("checkpoints", saving(write="copy"), "Something was left"),
    ("checkpoints", saving(write="elsewhere"), "There is no file at the path"),
    ("checkpoints", saving(safe=False), "ran a program"),
    ("checkpoints", pickled, "ran a program"),
    ("checkpoints", saving(write="removed first"), "For a moment there was no file"),
    ("checkpoints", saving(write="put aside"), "For a moment there was no file"),
    ("checkpoints", saving(write="another folder"), "in another folder"),
    ("checkpoints", saving(write="at first in place"), "written under its own name"),
    ("checkpoints", saving(write="copied over"), "written under its own name"),
    ("checkpoints", saving(whole=True), "save the state_dict()"),
    ("checkpoints", saving(counts=float), "load returns a whole number"),
    ("checkpoints", saving(counts=lambda step: step + 1), "The count of steps"),
    ("checkpoints", new_parameters, "the model's own parameters"),
    ("checkpoints", in_memory, "load has to read what is in the file"),
    ("checkpoints", reseeds, "save must only look"),
    ("checkpoints", saving(stale=True), "The optimizer has lost its memory"),
    ("checkpoints", lambda model, optimizer, data: model.state_dict(), "two functions"),
    ("next_scale", lambda s, g, o, i: (s / 2, g + 1) if o else scale_rule(s, g, o, i), "no good step"),
    ("next_scale", lambda s, g, o, i: (s / 2, g) if o else scale_rule(s, g, o, i), "The row of good steps is broken"),
    ("next_scale", lambda s, g, o, i: (s * 2, 0) if o else scale_rule(s, g, o, i), "it must fall"),
    ("next_scale", lambda s, g, o, i: scale_rule(s, g, o, i + 1), "now, not a step later"),
    ("next_scale", lambda s, g, o, i: (s / 2, 0) if o else (2 * s, 0), "Doubled too early"),
    ("next_scale", lambda s, g, o, i: scale_rule(s, g, o and g > 0, i), "After this overflow"),
    ("next_scale", lambda s, g, o, i: (s // 2, 0) if o else scale_rule(s, g, o, i), "no whole number"),
    ("next_scale", lambda s, g, o, i: (int(s / 2), 0) if o else scale_rule(s, g, o, i), "no whole number"),
    ("next_scale", lambda s, g, o, i: (max(s / 2, 1.0), 0) if o else scale_rule(s, g, o, i), "however small"),
    (
        "next_scale",
        lambda s, g, o, i: (min(scale_rule(s, g, o, i)[0], max(s, 2.0**16)), scale_rule(s, g, o, i)[1]),
        "however large",
    ),
    ("adamw_step", adamw(correct=False), "Both means began at 0"),
    ("adamw_step", adamw(lambda v, e: (v + e).sqrt()), "ε stands outside the root"),
    ("adamw_step", adamw(decays=lambda rate, decay: decay), "The decay is times the rate"),
    ("adamw_step", adamw(decays=lambda rate, decay: 0.0), "The weight decay is missing"),
    ("adamw_step", adamw(lambda v, e: v + e), "Divide by the root"),
    ("adamw_step", adamw(mix=lambda b: (1 - b, b)), "β is the share that stays"),
    ("adamw_step", adamw(mix=lambda b: (b, 1.0)), "What is new enters by its share"),
    ("adamw_step", corrected_kept, "Return m and v as they are kept"),
    (
        "adamw_step",
        lambda w, g, m, v, n, r, b, e, d: adamw()(w, g + d * w, m, v, n, r, b, e, 0.0),
        "Adam with the decay in",
    ),
    ("adamw_step", lambda *a: adamw()(*a)[1:] + adamw()(*a)[:1], "The order is (w, m, v)"),
    ("adamw_step", lambda *a: adamw(correct=a[4] > 1)(*a), "The new w is another one"),
    ("adamw_step", lambda w, g, m, v, n, *a: adamw()(w, g, m, v, n + 1, *a), "counted from 1"),
    ("adamw_step", lambda w, g, m, v, *a: (adamw()(w, g, m, v, *a)[0], m, v), "not the old ones"),
]
