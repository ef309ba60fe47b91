"""Packages that bear the name of a function of `raylib`: importing any of their modules makes Python put the package
where the function was; so it can be called, and does what the function does."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **settings: Any) -> Any:
        """See the function of this name in `raylib`."""
        return import_module("raylib").__getattr__(self.__name__.rpartition(".")[2])(*args, **settings)


def make_callable(package: str) -> None:
    """Let `package`, by its full name, be called as the public function of `raylib` that has the last part of it."""
    sys.modules[package].__class__ = _CallablePackage
