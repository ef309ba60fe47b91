"""One embedding model on several runtimes: proved equal first, then timed."""
