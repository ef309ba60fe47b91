"""Nothing is read from or written to the home directory."""

from tests.inspect.conftest import private_caches as private_caches
