"""The evaluate job. The package bears the name of the function `raylib.evaluate`, and importing any of its modules
makes Python put the package there; so it can be called, and does what the function does."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **settings: Any) -> Any:
        """See `raylib.api.evaluate`."""
        return import_module("raylib.api").evaluate(*args, **settings)


sys.modules[__name__].__class__ = _CallablePackage
