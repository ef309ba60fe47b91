"""The bench job: one model on several runtimes, proved equal first, then timed. `raylib.bench` can be called: see
`raylib.callable_package`."""

from raylib.callable_package import make_callable

make_callable(__name__)
