"""A model and an encoded corpus behind HTTP, with the encoders, the store and the search of the jobs.

`app` is plain FastAPI over the protocols of `protocol`; `raylib.cluster.serve` runs them on Ray Serve.
"""
