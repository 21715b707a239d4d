"""What a reading has relied on, and whether it is still as it was."""

from operator import getitem, is_
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deepnet_edu.model.code import Code, Sources, constant

_SIMPLE = {bool, int, float}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Unknown(Exception):
    """The fast path does not know something; the text says what, a clause."""


class Snapshot:
    """Modules as they are now: classes and their code, attributes that the code reads, parts, numbers, hooks.

    A thousand layers have 13,000 modules, so each look is a loop in C.

    Attributes:
        codes: of the classes that were seen.
        numbers: buffers that the code reads, each of one number.
    """

    def __init__(self) -> None:
        self.codes: dict[type, Code] = {}
        self.numbers: list[Tensor] = []
        self._modules: list[nn.Module] = []
        self._sized: list[dict[str, Any]] = []
        self._hooks: list[dict[int, Any]] = []
        self._where: tuple[list[Any], list[str]] = ([], [])
        self._parameters: tuple[list[Any], list[str]] = ([], [])

    def add(self, module: nn.Module) -> tuple[Any, ...]:
        """Take a module in.

        Returns:
            What its code can tell it apart by from another module, but for numbers.

        Raises:
            Unknown: it has something of its own, or its code does more than compute.
        """
        own, cls = vars(module), type(module)
        code = self.codes.get(cls)
        if code is None:
            code = self.codes[cls] = Code(cls)
        hung = [own[name] for name in _HOOKS]
        if any(hung) or not own.keys().isdisjoint(code.methods):
            raise Unknown("a layer or a part of it has a hook, or a method of its own")
        if code.trouble:
            raise Unknown(code.trouble)
        read = tuple(own.keys() & code.names - {"join"})  # what a kernel may do in its place is compared by itself
        values = tuple(own[name] for name in read)
        for name, value in zip(read, values, strict=True):
            if not (value is None or type(value) in _SIMPLE or constant(value) or name == "activation"):
                raise Unknown(f"the code of {cls.__name__} reads {name}, a {type(value).__name__}")
        self._modules.append(module)
        self._sized.append(own)
        self._hooks += hung
        _keep(self._where, own, read)
        buffers, modules, parameters = own["_buffers"], own["_modules"], own["_parameters"]
        for name, buffer in buffers.items():
            if buffer is not None and name in code.names:
                if buffer.numel() != 1:
                    raise Unknown(f"the code of {cls.__name__} reads {name}, a tensor of {buffer.numel()} numbers")
                self.numbers.append(buffer)
        _keep(self._where, buffers, buffers)
        _keep(self._where, modules, modules)
        if modules:
            self._sized.append(modules)
        _keep(self._parameters, parameters, parameters)
        shapes = tuple([(name, type(p), p.shape, p.dtype) for name, p in parameters.items() if p is not None])
        return cls, read, values, tuple(buffers), tuple([n for n, m in modules.items() if m is not None]), shapes

    def close(self, stack: nn.Module, code: Code) -> None:
        """All layers of a stack, which has this code, were added."""
        self._sources = Sources([*self.codes.values(), code])
        for modules in (stack._modules, cast(nn.Module, stack.layers)._modules):
            _keep(self._where, modules, modules)
            self._sized.append(modules)
        self._classes, self._sizes = self._kinds()
        self._values, self._kept = _get(self._where), _get(self._parameters)
        self._are = [number.item() for number in self.numbers]
        self._handles = RemovableHandle.next_id

    def holds(self, parameters: bool = True) -> bool:
        """Whether nothing has changed; ``parameters`` too, unless they have just been checked."""
        if RemovableHandle.next_id != self._handles:  # somewhere a hook was hung up
            if any(self._hooks):
                return False
            self._handles = RemovableHandle.next_id
        try:
            same = all(map(is_, _get(self._where), self._values))
            if parameters:
                same = same and all(map(is_, _get(self._parameters), self._kept))
        except KeyError:  # something was deleted
            return False
        return (
            same
            and self._kinds() == (self._classes, self._sizes)
            and [number.item() for number in self.numbers] == self._are
            and self._sources.hold()
        )

    def _kinds(self) -> tuple[list[type], list[int]]:
        return list(map(type, self._modules)), list(map(len, self._sized))


def hooks(module: nn.Module) -> bool:
    """Whether a module has any."""
    own = vars(module)
    return any(own[name] for name in _HOOKS)


def _keep(where: tuple[list[Any], list[str]], inside: dict[str, Any], names: Any) -> None:
    if names:
        where[0].extend([inside] * len(names))
        where[1].extend(names)


def _get(where: tuple[list[Any], list[str]]) -> list[Any]:
    return list(map(getitem, *where))
