"""Mining: hard negatives and B3 batches for contrastive training."""
