"""Lesson 10: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

import os
import pickle
import shutil
from collections.abc import Callable
from math import cos, inf, isfinite, pi
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch._dynamo  # which the first optimizer of PyTorch's would import while a check counts the seconds
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deepnet_edu.models import Batch

FOLDER = TemporaryDirectory()


class Plain:
    """An optimizer for the tests, much quicker than PyTorch's: plain descent, and a count."""

    def __init__(self, parameters: Any) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(parameters), "lr": 0.3}]
        self.count = torch.zeros(())

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in self.param_groups[0]["params"]:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        self.count += 1
        for p in self.param_groups[0]["params"]:
            p -= self.param_groups[0]["lr"] * p.grad

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
    "cosine_rate": lambda f, g: f(int(g.integers(0, 40)), 40, g.uniform(0.5, 1), int(g.integers(1, 20)), 0.1, 0.2),
    "accumulated_loss": _see_accumulated,
    "scaled_step": _see_scaled,
    "checkpoints": _see_checkpoints,
    "next_scale": lambda f, g: f(2.0 ** int(g.integers(9)), int(g.integers(0, 4)), bool(g.integers(2)), 4),
    "adamw_step": lambda f, g: np.stack(
        f(*map(torch.tensor, g.uniform(0.1, 1, (4, 3))), int(g.integers(1, 9)), 0.1, (0.8, 0.9), 0.01, 0.3)
    ),
}


# A form of tests/checks/forms.py that a right answer cannot have, by exercise, and why.
ASKS_FOR_MORE = {
    "scaled_step": {"as_fraction": "the norm of an overflow is infinite or no number, and a fraction is neither"}
}


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


def accumulated(weight, between=lambda model: None, value=None, before=lambda model: None):
    """Each loss times weight(batch, batches)."""

    def answer(model, batches):
        before(model)
        total = 0.0
        for batch in batches:
            between(model)
            loss = model.loss(batch)
            (loss * weight(batch, batches)).backward()
            total += loss.item() * (value or weight)(batch, batches)
        return float(total)

    return answer


def answers(batch):
    return int((batch.targets != -100).sum())


def by_answers(batch, batches):
    return answers(batch) / sum(map(answers, batches))


def sums_of_answers(model, batches):
    """Each loss as a sum, divided at the end."""
    old = {p: p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in model.parameters()}
    model.zero_grad()
    total, count = 0.0, 0
    for batch in batches:
        n = answers(batch)
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


def scaled(order="zero backward unscale clip", skip=True, says=None):
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
            elif part == "clip":
                norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
        if not skip or torch.isfinite(norm):
            for group in optimizer.param_groups:
                group["lr"] = rate
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
    answer = scaled(skip=not isfinite(loss.item() * scale))
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


PARTS = ("model", "optimizer", "data", "dropout", "step")


def saving(forget="", write="rename", safe=True, stale=False):
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
            run = {**state(), **first, "step": step}
            if write == "rename":
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
    ("cosine_rate", cosine()),
    ("cosine_rate", cosine(lambda y: cos(pi * y / 2) ** 2)),
    ("cosine_rate", lambda n, N, p, w, s, f: float(np.interp(n, [0, w], [s, p])) if n < w else
        (p + f) / 2 + (p - f) / 2 * np.cos(np.pi * (n - w) / (N - w))),
    ("accumulated_loss", accumulated(by_answers)),
    ("accumulated_loss", sums_of_answers),
    ("scaled_step", scaled()),
    ("scaled_step", scaled_by_gradients),
    ("checkpoints", saving()),
    ("checkpoints", in_safetensors),
    ("next_scale", scale_rule),
    ("next_scale", lambda s, g, o, i: (s / 2, 0) if o else (s, g + 1) if g + 1 < i else (s + s, 0)),
    ("adamw_step", adamw()),
    ("adamw_step", adamw_lerp),
    ("adamw_step", by_torch),
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
    ("accumulated_loss", all_at_once, "alive at once"),
    ("scaled_step", scaled("zero backward clip unscale"), "Unscale first, then clip"),
    ("scaled_step", scaled("zero backward clip"), "not divided by the scale"),
    ("scaled_step", scaled("backward unscale clip"), "are still there"),
    ("scaled_step", scaled("zero backward unscale"), "a gradient that was not clipped"),
    ("scaled_step", scaled(skip=False), "the step was taken"),
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
    ("checkpoints", reseeds, "save must only look"),
    ("checkpoints", saving(stale=True), "The optimizer has lost its memory"),
    ("checkpoints", lambda model, optimizer, data: model.state_dict(), "two functions"),
    ("next_scale", lambda s, g, o, i: (s / 2, g + 1) if o else scale_rule(s, g, o, i), "no good step"),
    ("next_scale", lambda s, g, o, i: (s / 2, g) if o else scale_rule(s, g, o, i), "The row of good steps is broken"),
    ("next_scale", lambda s, g, o, i: (s * 2, 0) if o else scale_rule(s, g, o, i), "it must fall"),
    ("next_scale", lambda s, g, o, i: scale_rule(s, g, o, i + 1), "now, not a step later"),
    ("next_scale", lambda s, g, o, i: (s / 2, 0) if o else (2 * s, 0), "Doubled too early"),
    ("adamw_step", adamw(correct=False), "Both means began at 0"),
    ("adamw_step", adamw(lambda v, e: (v + e).sqrt()), "ε stands outside the root"),
    ("adamw_step", adamw(decays=lambda rate, decay: decay), "The decay is times the rate"),
    ("adamw_step", adamw(decays=lambda rate, decay: 0.0), "The weight decay is missing"),
    ("adamw_step", adamw(lambda v, e: v + e), "Divide by the root"),
    ("adamw_step", adamw(mix=lambda b: (1 - b, b)), "β is the share that stays"),
    ("adamw_step", adamw(mix=lambda b: (b, 1.0)), "What is new enters by its share"),
    ("adamw_step", corrected_kept, "Return m and v as they are kept"),
]
