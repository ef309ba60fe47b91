"""Candle, Hugging Face's tensors in Rust, through embed_anything (https://github.com/StarlightSearch/EmbedAnything).

`embed` is what a Python user of it calls: a text goes in and a vector comes out, with its tokenizer, pooling and
normalisation in Rust. An image goes in as a file: embed_anything takes nothing else. Before that the model's own
processor brings it to size here, as embed_anything's way is none of the models'. Both are in the time of a call.

Two of its defects are worked around, at their price: a text padded past the window of Gemma 3 comes back as NaN, and is
embedded once more by itself; a text longer than CLIP's is a panic, so that its tokenizer.json is told where to cut.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raylib.bench.protocol import Runner, Runtime, Target, folder_bytes, unit_vectors
from raylib.bench.runtimes.candle_models import Plan, plan_of
from raylib.bench.runtimes.checkpoints import Checkpoint, Unsupported, checkpoint
from raylib.bench.runtimes.hub_layout import NAME, Layout, embed_texts, hub_home, panics_told
from raylib.errors import ModelError
from raylib.store.manifests import versions
from raylib.types import Batch

LAYOUT_VERSION = 1
"""Raised when the same checkpoint would be written otherwise than before."""

TOKENIZER, POOLING = "tokenizer.json", "raylib_pooling.json"

MISSING = 'embed_anything is not installed; pip install "raylib-cluster[candle]"'


class CandleRuntime(Runtime):
    name: ClassVar[str] = "candle"
    language: ClassVar[str] = "rust"

    def hole(self, target: Target) -> str | None:
        if find_spec("embed_anything") is None:
            return MISSING
        if target.precision != "fp32":
            return f"embed_anything computes these models in fp32; {target.precision} is not offered"
        try:
            found = checkpoint(target)
            plan_of(found, target)
            if target.tower == "text":
                check_tokenizer(found)
        except Unsupported as reason:
            return str(reason)
        return None

    def max_tokens(self, target: Target) -> int | None:
        return plan_of(checkpoint(target), target).max_tokens

    def build(self, target: Target) -> None:
        found = checkpoint(target)
        plan = plan_of(found, target)
        _layout(target).fill(lambda folder: _write(folder, found, plan))

    def load(self, target: Target) -> Runner:
        layout = _layout(target)
        folder = layout.built(target.spec.name, "Candle")
        set_threads(target)
        with hub_home(layout.home), panics_told(target.spec.name, "Candle cannot load it"):
            import embed_anything

            ea: Any = embed_anything  # its own type stubs forget that these are static
            pooling = json.loads((folder / POOLING).read_text())
            model = ea.EmbeddingModel.from_pretrained_hf(
                model_id=NAME,
                revision=layout.commit,
                dtype=ea.Dtype.F32,
                pooling=getattr(ea.Pooling, pooling) if pooling else None,
            )
        return CandleRunner(target, model, folder_bytes(folder))

    def versions(self) -> Mapping[str, str]:
        """Candle's own version is not told by the package."""
        return versions(("raylib-cluster", "embed_anything"))


class CandleRunner(Runner):
    """See the module."""

    def __init__(self, target: Target, model: Any, disk_bytes: int) -> None:
        self.name, self.tower, self.dim = target.spec.name, target.tower, target.spec.embedding_dim
        self.model, self.disk_bytes = model, disk_bytes
        # Only images need it: with it PyTorch comes into the process.
        self.encoder = checkpoint(target).encoder if target.tower == "image" else None

    def embed(self, contents: Batch) -> np.ndarray:
        with panics_told(self.name, "Candle cannot embed it"):
            vectors = self._of_images(contents["image"]) if self.tower == "image" else self._of_texts(contents["text"])
        return unit_vectors(vectors, self.dim)

    def _of_texts(self, texts: list[str]) -> np.ndarray:
        vectors = embed_texts(self.model, texts)
        padded = np.isnan(vectors).any(axis=1)
        for row in np.flatnonzero(padded) if len(texts) > 1 else ():
            vectors[row] = embed_texts(self.model, [texts[row]])[0]
        return vectors

    def _of_images(self, images: list[Any]) -> np.ndarray:
        with tempfile.TemporaryDirectory(prefix="raylib-bench-") as folder:
            names = [str(Path(folder, f"{n}.bmp")) for n in range(len(images))]
            for name, picture in zip(names, self._scaled(images), strict=True):
                picture.save(name)
            found = {
                Path(one.metadata["file_name"]).name: one.embedding
                for one in self.model.embed_image_directory(folder)  # by 32: its settings are not to be had
            }
        # A batch that fails inside is printed and left out.
        missing = [name for name in names if Path(name).name not in found]
        if missing:
            raise ModelError(f"{self.name}: Candle gave no vectors for {len(missing)} of {len(names)} images")
        return np.array([found[Path(name).name] for name in names], dtype=np.float32)

    def _scaled(self, images: list[Any]) -> list[Any]:
        """PIL images as the model's processor cuts and scales them, before their values are normalised."""
        from PIL import Image

        from raylib.models.loading import rgb

        assert self.encoder is not None, "of an image tower"
        over_white = self.encoder.family.settings["over_white"]
        pixels = self.encoder.processor.image_processor(
            [rgb(image, over_white=over_white) for image in images],
            do_convert_rgb=False,
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
        )["pixel_values"].numpy()
        assert pixels.shape[1] == 3, "a model of images in colour"
        return [Image.fromarray(one.round().astype(np.uint8).transpose(1, 2, 0)) for one in pixels]


def _layout(target: Target) -> Layout:
    return Layout.of(target, CandleRuntime.name, LAYOUT_VERSION)


def set_threads(target: Target) -> None:
    """Candle's threads and MKL's are counted from the environment when they are first used, once a process."""
    for name in ("RAYON_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(target.threads)


def _write(folder: Path, found: Checkpoint, plan: Plan) -> None:
    """What Candle reads, into a snapshot's folder; weights as links where they stay as they are."""
    (folder / "config.json").write_text(json.dumps(plan.config, indent=1, default=str))
    (folder / TOKENIZER).write_text(tokenizer_json(found, plan.cut))
    (folder / POOLING).write_text(json.dumps(plan.pooling))
    for name, source in plan.heads.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(source.resolve())
    source = found.trunk / "model.safetensors"
    if plan.rewrite is None and found.encoder.spec.adapter is None and _named_plainly(source):
        (folder / "model.safetensors").symlink_to(source.resolve())
        return
    from safetensors.torch import save_file

    weights = _weights(found)
    if plan.rewrite is not None:
        weights = plan.rewrite(weights)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")


def check_tokenizer(found: Checkpoint) -> None:
    """Raises Unsupported for a model without a tokenizer that Rust can read."""
    if not hasattr(found.encoder.processor.tokenizer, "backend_tokenizer") and not (found.trunk / TOKENIZER).is_file():
        raise Unsupported(f"{found.folder} has no {TOKENIZER}, and its tokenizer is one that Rust cannot run")


def tokenizer_json(found: Checkpoint, cut: int | None) -> str:
    """The tokenizer that the encoder uses, which cuts at `cut` tokens, special ones among them, and pads not at all.
    Where it is one in Python (SigLIP's), the file beside the weights, which says the same in another notation."""
    from tokenizers import Tokenizer

    backend = getattr(found.encoder.processor.tokenizer, "backend_tokenizer", None)
    tokenizer = Tokenizer.from_str(backend.to_str() if backend else (found.trunk / TOKENIZER).read_text("utf-8"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if cut is not None:
        tokenizer.enable_truncation(cut)
    return tokenizer.to_str()


def _named_plainly(path: Path) -> bool:
    """Whether these are weights in one file, by the names that Candle looks for."""
    from safetensors import safe_open

    if not path.is_file():
        return False
    with safe_open(path, framework="numpy") as stream:
        return not any(name.startswith("model.") for name in stream.keys())  # noqa: SIM118 - no mapping


def _weights(found: Checkpoint) -> dict[str, Any]:
    """Of the transformer, an adapter merged, in float32."""
    model = found.encoder.load_model()
    trunk = model[0].model if found.modules else model
    return {name: tensor.detach().clone() for name, tensor in trunk.float().state_dict().items()}
