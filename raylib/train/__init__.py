"""Contrastive fine-tuning: from pairs and planned batches to a retriever that is evaluated as it trains."""
