"""The encode job: your own files to vectors. `raylib.encode` can be called: see `raylib.callable_package`."""

from raylib.callable_package import make_callable

make_callable(__name__)
