"""Lesson 00's first figure once more, by code that shares nothing with the library: plain PyTorch, read off the papers.

    python benchmarks/own_code.py [--jobs 2] [--layers 1000] [--seeds 0,1,2]

Nothing of deepnet_edu is imported; its record is opened at the end, as a file, and laid beside. The result is written
after every run, so that an interrupted recording resumes where it was. A run that is already there is skipped; to
record afresh, delete benchmarks/results/own_code.json.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn

FILE = Path(__file__).parent / "results" / "own_code.json"
RECORD = Path(__file__).parents[1] / "deepnet_edu" / "course" / "records" / "lesson_00.json"
ARMS = ("deepnorm", "post_ln", "pre_ln")
VOCABULARY, WIDTH, HEADS, HIDDEN, POSITIONS = 16, 32, 2, 128, 32
TOKENS, SEQUENCES, STEPS, RATE, WARMUP = 16, 16, 60, 3e-4, 20


class Layer(nn.Module):
    """Causal self-attention and a feed-forward branch; each ends as its arm says."""

    def __init__(self, arm: str, layers: int, draws: torch.Generator) -> None:
        super().__init__()
        self.arm = arm
        # Section 3.3 of arXiv 2203.00555, decoder-only.
        self.alpha, beta = ((2 * layers) ** 0.25, (8 * layers) ** -0.25) if arm == "deepnorm" else (1.0, 1.0)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        for linear in (self.q, self.k, self.v, self.o, self.up, self.down):
            nn.init.xavier_normal_(linear.weight, 1.0 if linear in (self.q, self.k) else beta, generator=draws)
            nn.init.zeros_(linear.bias)

    def attention(self, x: Tensor) -> Tensor:
        """softmax(QKᵀ/√(width of a head)) V, each token seeing itself and those before it."""
        q, k, v = (part(x).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2) for part in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ v
        return self.o(mixed.transpose(1, 2).flatten(2))

    def feed_forward(self, x: Tensor) -> Tensor:
        """W₂ GELU(W₁x + b₁) + b₂."""
        return self.down(nn.functional.gelu(self.up(x)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, WIDTH) → (B, T, WIDTH)."""
        for branch, norm in zip((self.attention, self.feed_forward), self.norms, strict=True):
            x = x + branch(norm(x)) if self.arm == "pre_ln" else norm(self.alpha * x + branch(x))
        return x


class Decoder(nn.Module):
    """Token and position embedding of variance ½ each, layers, Pre-LN's norm at the end, a head."""

    def __init__(self, arm: str, layers: int, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(POSITIONS, WIDTH)
        self.layers = nn.ModuleList(Layer(arm, layers, draws) for _ in range(layers))
        self.end = nn.LayerNorm(WIDTH) if arm == "pre_ln" else nn.Identity()
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        for table in (self.token, self.position):
            nn.init.normal_(table.weight, std=0.5**0.5, generator=draws)
        nn.init.normal_(self.head.weight, std=WIDTH**-0.5, generator=draws)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) → logits, (B, T, VOCABULARY)."""
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.end(x))


def learn(model: Decoder, draws: torch.Generator, steps: int = STEPS) -> list[float]:
    """Train the stack alone on y = (5x + 3) mod 16 at each position; the loss before each update, in nats."""
    for ends in (model.token, model.position, model.head):
        ends.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0), []
    for step in range(steps):
        x = torch.randint(VOCABULARY, (SEQUENCES, TOKENS), generator=draws)
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), ((5 * x + 3) % VOCABULARY).flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / WARMUP)
        optimizer.step()
        losses.append(loss.item())
    return losses


def train(arm: str, layers: int, seed: int) -> dict[str, Any]:
    """One run, on one thread."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    begin = time.perf_counter()
    losses = learn(Decoder(arm, layers, seed), torch.Generator().manual_seed(1000 + seed))
    seconds = round((time.perf_counter() - begin) / STEPS, 3)
    rounded = [round(loss, 4) for loss in losses]
    return {"arm": arm, "layers": layers, "seed": seed, "loss": rounded, "seconds_per_step": seconds}


def last_five(loss: list[float]) -> float:
    """The mean of the last five steps, in nats."""
    return round(statistics.mean(loss[-5:]), 4)


def beside(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each arm the loss of the last five steps by seed: of this code, and of the lesson's record."""
    rows: list[dict[str, Any]] = []
    record = [
        run
        for run in json.loads(RECORD.read_text(encoding="utf-8"))["runs"]
        if (run["task"], run["parameters"], run["learning_rate"], run["warmup"]) == ("token_map", "stack", RATE, WARMUP)
    ]
    for arm in ARMS:
        own = [last_five(run["loss"]) for run in runs if (run["arm"], run["layers"]) == (arm, 1000)]
        theirs = [last_five(run["loss"]) for run in record if run["residual"] == arm]
        if own:
            rows.append({"arm": arm, "own": own, "record": theirs})
            rows[-1] |= {"difference": round(statistics.mean(own) - statistics.mean(theirs), 4)}
            if len(own) > 1:
                # Of the difference of the two means, from the spread of the seeds.
                error = math.sqrt(sum(statistics.variance(some) / len(some) for some in (own, theirs)))
                rows[-1] |= {"standard_error": round(error, 4)}
    return rows


def save(runs: list[dict[str, Any]]) -> None:
    """The whole record, under a temporary name first."""
    runs.sort(key=lambda run: (run["seed"], ARMS.index(run["arm"]), run["layers"]))
    head = {
        "what": "Lesson 00's runs by code that imports nothing of deepnet_edu; "
        "nats per token, mean of the last 5 steps",
        "command": "python benchmarks/own_code.py",
        "date": date.today().isoformat(),
        "device": "CPU, one thread a run",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "beside": beside(runs),
    }
    lines = ",\n".join(json.dumps(run) for run in runs)
    temporary = FILE.with_suffix(".tmp")
    temporary.write_text(
        json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}") + f',\n "runs": [\n{lines}\n]\n}}\n',
        encoding="utf-8",
    )
    os.replace(temporary, FILE)


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; one per core")
    parser.add_argument("--layers", type=int, default=1000)
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    runs = json.loads(FILE.read_text(encoding="utf-8"))["runs"] if FILE.exists() else []
    done = {(run["arm"], run["layers"], run["seed"]) for run in runs}
    asked = [(arm, given.layers, int(seed)) for seed in given.seeds.split(",") for arm in ARMS]
    missing = [run for run in asked if run not in done]
    print(f"{len(runs)} runs recorded, {len(missing)} to go", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.jobs, mp_context=context, max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(train, *run) for run in missing]):
            run = future.result()
            runs.append(run)
            print(run["arm"], run["layers"], run["seed"], f"loss {last_five(run['loss']):.3f}", flush=True)
            save(runs)


if __name__ == "__main__":
    main()
