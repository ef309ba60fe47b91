"""Contrastive fine-tuning: from pairs and planned batches to a retriever that is evaluated as it trains."""

from raylib.callable_package import make_callable

make_callable(__name__)
