"""What the serving benchmark compares with: the same model behind a plain FastAPI handler, one call a request."""

import base64
import sys
from typing import Any

import numpy as np
from pydantic import BaseModel


class Asked(BaseModel):
    input: str
    encoding_format: str = "float"


def application(folder: str) -> Any:
    """The encoder of raylib, so that only serving differs; a sync handler, which FastAPI runs in its threads."""
    from fastapi import FastAPI

    from raylib.encode.planned import resolve_encoder
    from raylib.encode.task import context_of
    from raylib.models.protocol import ModelSpec

    encoder = resolve_encoder(ModelSpec(folder))
    encoder.load()
    context = context_of(encoder, None)
    app = FastAPI()

    @app.post("/v1/embeddings")
    def embeddings(asked: Asked) -> dict[str, Any]:
        vector = encoder.encode({"text": [asked.input]}, context).dense()[0].astype(np.float32)
        as_text = base64.b64encode(vector.tobytes()).decode()
        value = as_text if asked.encoding_format == "base64" else vector.tolist()
        return {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": value}], "model": folder}

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(application(sys.argv[1]), port=int(sys.argv[2]), log_level="error")
