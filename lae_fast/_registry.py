"""Descriptions by name: losses, rules, optimizers and schedules all become objects here."""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, TypeVar

from .validation import ParameterTypeError, listed

T = TypeVar("T")


class Registry(Generic[T]):
    """The classes of one kind of description, by their `name`.

    noun : what they are, such as "loss";  home : the public module that has them;  base : their base class
    """

    def __init__(self, noun: str, home: str, base: type[T], *classes: type[T]) -> None:
        self._noun, self._home, self._base = noun, home, base
        self._classes: dict[str, type[T]] = {cls.name: cls for cls in classes}  # type: ignore[attr-defined]  # all have

    def names(self) -> tuple[str, ...]:
        """All names, in the order of the documentation."""
        return tuple(self._classes)

    def by_name(self, name: str, also: tuple[str, ...] = ()) -> type[T]:
        """The class of this name; ValueError listing the valid ones, ParameterTypeError if it is no string.

        also : further words that the caller takes, for the list
        """
        if not isinstance(name, str):
            raise ParameterTypeError(f"{self._noun}={name!r} must be a string.")
        if name not in self._classes:
            plain = [cls for cls in self._classes if not self._parameters(cls)]
            calls = [f"{self._home}.{cls}({needs})" for cls in self._classes if (needs := self._parameters(cls))]
            choices = ", ".join([listed([*also, *plain]), *calls])
            raise ValueError(f"{self._noun}={name!r} is unknown; choose one of {choices}.")
        return self._classes[name]

    def from_name(self, name: str) -> T:
        """The object of this name; ValueError too where it needs parameters, which a string cannot carry."""
        cls, needs = self.by_name(name), self._parameters(name)
        if needs:
            call = f"lae_fast.{self._home}.{name}({needs})"
            raise ValueError(f"{self._noun} {name!r} needs a parameter: pass {call} instead of the string")
        return cls()

    def checked(self, given: Any) -> T | str:
        """`given` if it is an object of these classes, or a string, which the caller turns into one; else TypeError."""
        if isinstance(given, str) or (isinstance(given, self._base) and type(given) is not self._base):
            return given
        if isinstance(given, self._base):
            raise ParameterTypeError(f"{self._base.__name__} is the base class; use one of {listed(self._classes)}.")
        if isinstance(given, type) and issubclass(given, self._base):
            call = f"{self._home}.{given.__name__}(...)"
            raise ParameterTypeError(f"{self._noun} must be an object, not a class: write {call}.")
        raise ParameterTypeError(f"{self._noun}={given!r} must be a string or an object of lae_fast.{self._home}.")

    def _parameters(self, name: str) -> str:
        """The parameters of a class as they are written in a call; empty where all have defaults."""
        fields = dataclasses.fields(self._classes[name])  # type: ignore[arg-type]  # all are dataclasses
        written, needed = [], False
        for field in fields:
            if field.default is not dataclasses.MISSING:
                written.append(f"{field.name}={field.default!r}")
            elif field.default_factory is not dataclasses.MISSING:
                written.append(f"{field.name}={field.default_factory.__name__}()")  # type: ignore[attr-defined]  # classes
            else:
                written.append(field.name)
                needed = True
        return ", ".join(written) if needed else ""
