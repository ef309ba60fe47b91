"""Training data: queries with the documents that answer them, mined negatives and plans of batches, as files."""
