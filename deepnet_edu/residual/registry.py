"""The residual rules by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from deepnet_edu.messages import unknown
from deepnet_edu.residual.base import Residual


class Registry(Mapping[str, type[Residual]]):
    """The rules by name; an unknown name raises a KeyError that names the nearest one."""

    def __init__(self) -> None:
        self._rules: dict[str, type[Residual]] = {}

    def register(self, name: str, *, replace: bool = False) -> Callable[[type[Residual]], type[Residual]]:
        """Class decorator that adds a rule under ``name``. A name can be taken once.

        Args:
            name: what ``residual=`` takes.
            replace: where the name is taken, the new rule takes its place: for a notebook's cell that is run again.

        Raises:
            ValueError: the name is taken.
        """

        def add(rule: type[Residual]) -> type[Residual]:
            if name in self._rules and not replace:
                raise ValueError(
                    f"The residual name {name!r} is taken by {self._rules[name].__name__}: choose another."
                )
            self._rules[name] = rule
            return rule

        return add

    def __getitem__(self, name: str) -> type[Residual]:
        if name not in self._rules:
            raise KeyError(unknown("residual", name, sorted(self._rules)))
        return self._rules[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rules

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)


RESIDUALS = Registry()
#: The rule of a model for which none is named: what this course is about.
DEFAULT = "deepnorm"
