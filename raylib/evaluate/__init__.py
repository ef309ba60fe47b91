"""The evaluate job. `raylib.evaluate` can be called: see `raylib.callable_package`."""

from raylib.callable_package import make_callable

make_callable(__name__)
