"""The ranks of a plan: who belongs together, and what they agree on."""

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from deepnet_edu.files import parse_json
from deepnet_edu.messages import UserError
from deepnet_edu.planning.plan import Plan
from deepnet_edu.training.distributed.objects import only_data

T = TypeVar("T")
#: Key of what stands for a path where ranks tell each other of one.
_PATH, _DTYPE = "path of a file or folder", "dtype of a tensor"
#: The dimensions of the mesh. Neighbours in a share talk most, so they are neighbours on a machine, too.
PIPELINE, SHARE = "pipeline", "share"
#: Environment variable: the private folder where the ranks of one machine meet, which :func:`.launch` makes.
MEETING = "DEEPNET_EDU_MEETING"


class Ranks:
    """One process of a plan, and what it says to the others. All of them make it, at the same time.

    Args:
        plan: for as many ranks as there are.

    Attributes:
        plan: likewise.
        device: of this rank.
        mesh: (pipeline, shares) of ranks.
        rank: of this process; 0 writes logs.
        share: which share of the batch is its.
        held: stages of the pipeline that it holds.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rank = dist.get_rank()
        self.device = torch.device("cpu")
        if "nccl" in dist.get_backend_config():
            self.device = torch.device("cuda", torch.cuda.current_device())
        shape = (plan.pipeline, plan.shares)
        self.mesh: DeviceMesh = init_device_mesh(self.device.type, shape, mesh_dim_names=(PIPELINE, SHARE))
        self.place, self.share = (self.mesh.get_local_rank(name) for name in (PIPELINE, SHARE))
        self.held = list(range(self.place, plan.stages, plan.pipeline))

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def group_of(self, places: list[int]) -> dist.ProcessGroup | None:
        """The ranks at these places of the pipeline that have the same share as this one; None if it is not among
        them. All ranks ask at the same time."""
        mine = None
        for share in range(self.plan.shares):
            members = [int(self.mesh.mesh[place, share]) for place in places]
            group = dist.new_group(members)
            if self.rank in members:
                mine = group
        return mine

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether it is so on one rank at least."""
        return bool(self.sum(torch.tensor([float(flag)], device=self.device)).item())

    def gather(self, value: T) -> list[T]:
        """What each rank has.

        Args:
            value: plain: what JSON can say, and paths. It goes as text, since unpickling would run what is sent.
        """
        mine = _written(value, self.device)
        sizes = [torch.zeros(1, dtype=torch.long, device=self.device) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, torch.tensor([len(mine)], device=self.device))
        found = [mine.new_zeros(int(max(sizes))) for _ in sizes]
        dist.all_gather(found, torch.cat([mine, mine.new_zeros(len(found[0]) - len(mine))]))
        return [_read(text[: int(size)]) for text, size in zip(found, sizes, strict=True)]

    def on_first(self, work: Callable[[], T], answer: Callable[[str], UserError] = UserError) -> T:
        """What ``work`` returns on the first rank, on all; the others wait.

        Args:
            work: what it returns is plain, as for :meth:`gather`.
            answer: makes the sentence of what failed.

        Raises:
            UserError: it failed there; now on all ranks.
        """
        text = _written(_tried(work, answer) if self.first else None, self.device)
        size = torch.tensor([len(text)], device=self.device)
        dist.broadcast(size, src=0)
        if not self.first:
            text = text.new_zeros(int(size))
        dist.broadcast(text, src=0)
        found, failed = _read(text)
        if failed is not None:
            raise UserError(failed)
        return cast(T, found)

    def together(self, work: Callable[[], T], answer: Callable[[str], UserError] = UserError) -> T:
        """What ``work`` returns here, once it has been done on all ranks.

        Raises:
            UserError: it failed on one of them; now on all ranks.
        """
        found, failed = _tried(work, answer)
        for said in self.gather(failed):
            if said is not None:
                raise UserError(said)
        return cast(T, found)

    def agree(self, facts: Mapping[str, Any]) -> None:
        """See that all ranks know the same.

        Args:
            facts: plain values by the name that a sentence gives them.

        Raises:
            UserError: one differs; all ranks raise the same sentence.
        """
        known = self.gather(dict(facts))
        for rank, others in enumerate(known):
            for name, value in known[0].items():
                if others.get(name) != value:
                    raise UserError(
                        f"Rank 0 has {name} {value!r}, rank {rank} has {others.get(name)!r}: "
                        "all ranks need the same; start them with the same installation, files and options."
                    )


def _written(value: Any, device: torch.device) -> Tensor:
    """A plain value as text, in bytes."""

    def plain(one: Any) -> dict[str, str]:
        if isinstance(one, torch.dtype):
            return {_DTYPE: str(one).removeprefix("torch.")}
        if isinstance(one, Path):
            return {_PATH: str(one)}
        raise TypeError(f"{type(one).__name__} is not plain: ranks tell each other what JSON can say, paths and dtypes")

    text = json.dumps(value, default=plain)
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).to(device)


def _read(text: Tensor) -> Any:
    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        if not isinstance(value, dict):
            return value
        if isinstance(dtype := getattr(torch, str(value.get(_DTYPE)), None), torch.dtype):
            return dtype
        return Path(value[_PATH]) if _PATH in value else {key: plain(one) for key, one in value.items()}

    return plain(parse_json(bytes(text.tolist()).decode()))


def _tried(work: Callable[[], T], answer: Callable[[str], UserError]) -> tuple[T | None, str | None]:
    """What it returns, or the sentence about what failed."""
    try:
        return work(), None
    except UserError as error:
        return None, str(error)
    except OSError as error:
        return None, str(answer(error.strerror or str(error)))
    except ValueError as error:
        return None, str(answer(str(error)))


@contextmanager
def init_ranks(plan: Plan, device: str = "cpu") -> Iterator[Ranks]:
    """The ranks of ``plan``: of the process group that there is, or of one that torchrun's environment describes, which
    is then left again. What ranks send each other meanwhile is data (:mod:`.objects`).

    Args:
        plan: for all of them.
        device: ``"cpu"`` (gloo) or ``"cuda"`` (NCCL, one GPU a rank), where there is no process group yet.

    Raises:
        UserError: no other ranks were started, or they are more or fewer than the plan has.
    """
    own = not dist.is_initialized()
    if own:
        if "RANK" not in os.environ:
            raise UserError(
                f"The plan {plan.title} needs {plan.ranks} processes that know each other: start them by "
                f"deepnet-edu train … --gpus {plan.ranks}, or torchrun --nproc-per-node {plan.ranks}."
            )
        initialise(device)
    if (ranks := dist.get_world_size()) != plan.ranks:
        raise UserError(f"The plan {plan.title} is for {plan.ranks} ranks, and there are {ranks}.")
    with only_data():
        yield Ranks(plan)
    if own:
        dist.destroy_process_group()


def meet() -> tuple[dist.Store, int, int]:
    """Where all ranks find each other: in the folder of :func:`.launch`, or as torchrun's environment says.

    Returns:
        The store that they share, the number of this rank, and how many there are.

    Raises:
        UserError: another user can write in that folder.
        ValueError: the environment does not say it.
        RuntimeError: the first rank cannot be reached.
    """
    if MEETING not in os.environ:  # at rank 0's own port, or at that of the process that started the ranks
        return next(iter(dist.rendezvous("env://")))
    folder = Path(os.environ[MEETING])
    try:
        found = folder.lstat()
    except OSError as error:
        raise UserError(f"{folder}, where ranks meet: {error.strerror}.") from None
    if not stat.S_ISDIR(found.st_mode) or (os.name != "nt" and (found.st_uid != os.geteuid() or found.st_mode & 0o077)):
        raise UserError(f"{folder} is where ranks meet, but another user can write there: it must be yours, mode 0700.")
    size = _number("WORLD_SIZE")
    return dist.FileStore(str(folder / "store"), size), _number("RANK"), size


def initialise(device: str, store: dist.Store | None = None) -> None:
    """Make the process group, gloo on CPUs and NCCL on GPUs, each rank on the GPU of its own number.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        store: of :func:`meet`, where the ranks have met already.

    Raises:
        UserError: this machine has fewer GPUs than ranks.
    """
    if device == "cuda":
        mine, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if mine >= there:
            raise UserError(
                f"Rank {os.environ['RANK']} is number {mine} here, and there are {there} GPUs: one for each."
            )
        torch.cuda.set_device(mine)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    shared = store or meet()[0]
    dist.init_process_group(backend, store=shared, rank=_number("RANK"), world_size=_number("WORLD_SIZE"))


def _number(name: str) -> int:
    return int(os.environ[name])
