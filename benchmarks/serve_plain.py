"""What the serving benchmark compares with: the same model behind a plain FastAPI handler, one call a request.

`python serve_plain.py FOLDER PORT threads|loop`: a sync handler, which FastAPI runs in its threads, or an async one,
which keeps the event loop for itself while the model runs.
"""

import base64
import sys
from typing import Any

import numpy as np
from pydantic import BaseModel


class Asked(BaseModel):
    input: str
    encoding_format: str = "float"


def application(folder: str, kind: str) -> Any:
    """The encoder of raylib, so that only serving differs."""
    import torch
    from fastapi import FastAPI

    from raylib.encode.planned import resolve_encoder
    from raylib.encode.task import context_of
    from raylib.models.protocol import ModelSpec

    torch.set_num_threads(1)
    encoder = resolve_encoder(ModelSpec(folder))
    encoder.load()
    context = context_of(encoder, None)
    app = FastAPI()

    def embeddings(asked: Asked) -> dict[str, Any]:
        vector = encoder.encode({"text": [asked.input]}, context).dense()[0].astype(np.float32)
        as_text = base64.b64encode(vector.tobytes()).decode()
        value = as_text if asked.encoding_format == "base64" else vector.tolist()
        return {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": value}], "model": folder}

    async def in_the_loop(asked: Asked) -> dict[str, Any]:
        return embeddings(asked)

    app.post("/v1/embeddings")(embeddings if kind == "threads" else in_the_loop)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(application(sys.argv[1], sys.argv[3]), port=int(sys.argv[2]), log_level="error")
