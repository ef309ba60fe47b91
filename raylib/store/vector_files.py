"""The folder of vectors that `raylib encode` writes and `raylib score` reads.

embeddings.parquet | embeddings.npy or .npz with ids.txt | embeddings.h5
errors.parquet     what could not be encoded
manifest.json      what all this is; it comes last, so where it is, the vectors are complete
"""

from __future__ import annotations

ENCODE_JOB = "raylib encode"
IDS = "ids.txt"
