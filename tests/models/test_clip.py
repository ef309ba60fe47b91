"""CLIP, SigLIP and SigLIP 2 against transformers and against MTEB's own wrappers, on tiny random checkpoints."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raylib.errors import ModelError, UnsupportedOptionError, UserError
from raylib.models.loading import rgb
from raylib.models.untrained import build_clip, checkpoint
from raylib.models.weights import weights_digest
from raylib.types import EncodeContext
from tests.models.helpers import TEXTS, assert_same_directions, encoder_for, pictures, save_siglip, vectors

KINDS = {"clip": "clip", "siglip": "siglip", "siglip2": "siglip"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("towers")
    build_clip(root / "clip")
    save_siglip(root / "siglip")
    save_siglip(root / "siglip2", naflex=True)
    return {name: root / name for name in KINDS}


class Loader(list):
    """What MTEB's wrappers ask of a DataLoader: iteration, and the features of its data set."""

    def __init__(self, batches: list[dict[str, Any]]) -> None:
        super().__init__(batches)
        self.dataset = SimpleNamespace(features=dict.fromkeys(batches[0]))


def mteb_vectors(directory: Path, kind: str, **columns: list) -> np.ndarray:
    from mteb.models.model_implementations.clip_models import CLIPModel
    from mteb.models.model_implementations.siglip_models import SiglipModelWrapper

    make: Any = CLIPModel if kind == "clip" else SiglipModelWrapper
    model = make(str(directory), revision=None, device="cpu")
    loader: Any = Loader([columns])
    found = model.encode(loader, task_metadata=None, hf_split="test", hf_subset="default", show_progress_bar=False)
    return found.numpy()


# SigLIP 2 NaFlex's processor pads to 64 tokens whatever its tokenizer says: its texts are compared further down.
CASES = [(kind, columns) for kind in ("clip", "siglip") for columns in (("text",), ("image",), ("text", "image"))]


@pytest.mark.parametrize(("kind", "columns"), [*CASES, ("siglip2", ("image",))])
def test_vectors_are_those_of_mtebs_wrapper(models: dict[str, Path], kind: str, columns: tuple[str, ...]) -> None:
    batch = {name: {"text": TEXTS, "image": pictures()}[name] for name in columns}
    ours = vectors(encoder_for(models[kind], KINDS[kind]), **batch)
    assert_same_directions(ours, mteb_vectors(models[kind], kind, **batch), max_difference=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_fusion_is_the_one_asked_for(models: dict[str, Path], kind: str) -> None:
    batch = {"text": TEXTS, "image": pictures()}
    text, image = (vectors(encoder_for(models[kind], KINDS[kind]), **{name: batch[name]}) for name in batch)
    expected = {"sum": text + image, "mean": (text + image) / 2, "concat": np.concatenate([text, image], axis=1)}
    fingerprints = {}
    for how, wanted in expected.items():
        encoder = encoder_for(models[kind], KINDS[kind], fusion=how)
        assert_same_directions(vectors(encoder, **batch), wanted, max_difference=1e-6)
        fingerprints[how] = encoder.fingerprint
    assert len(set(fingerprints.values())) == 3
    assert fingerprints["sum"] == encoder_for(models[kind], KINDS[kind]).fingerprint
    with pytest.raises(UserError, match="--fusion is 'max'; expected one of sum, mean, concat"):
        encoder_for(models[kind], KINDS[kind], fusion="max")


@pytest.mark.parametrize(("kind", "limit"), [("clip", 77), ("siglip", 64), ("siglip", 16)])
@pytest.mark.parametrize("said", [True, False], ids=["tokenizer says", "tokenizer does not say"])
def test_texts_are_cut_at_the_towers_limit(kind: str, limit: int, said: bool, tmp_path: Path) -> None:
    """77 is CLIP's, 64 SigLIP's and 16 that of siglip-so400m-patch14-224. MTEB's wrapper cuts where the tokenizer says
    so; published tokenizers all do."""
    build_clip(tmp_path) if kind == "clip" else save_siglip(tmp_path, limit=limit)
    long, short = " ".join(["value"] * 100), "a page"
    theirs = mteb_vectors(tmp_path, kind, text=[long, short])
    if not said:
        settings = tmp_path / "tokenizer_config.json"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "model_max_length": 10**30}))
    encoder = encoder_for(tmp_path, kind)
    tokens = encoder.preprocess({"text": [long, short]}, EncodeContext(None))["input_ids"]
    assert tokens.shape == (2, limit) and tokens[0, -1] == encoder.processor.tokenizer.eos_token_id
    assert_same_directions(vectors(encoder, text=[long, short]), theirs, max_difference=1e-6)


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
@pytest.mark.parametrize("prompt", ["", "a photo of ", "x " * 300])
def test_siglip_pads_to_its_full_length_whatever_the_prompt(models: dict[str, Path], kind: str, prompt: str) -> None:
    encoder = encoder_for(models[kind], "siglip", query_prompt=prompt)
    tokens = encoder.preprocess({"text": ["a", "a page of it"]}, encoder.context(None, "query"))["input_ids"]
    assert tokens.shape == (2, 16)


def test_siglip_2_texts_are_those_of_transformers(models: dict[str, Path]) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models["siglip2"])
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(models["siglip2"]).get_text_features(**tokens).pooler_output.numpy()
    assert_same_directions(vectors(encoder_for(models["siglip2"], "siglip"), text=TEXTS), theirs, max_difference=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_what_single_contents_give(models: dict[str, Path], kind: str) -> None:
    encoder = encoder_for(models[kind], KINDS[kind])
    images = pictures()
    together = vectors(encoder, text=TEXTS, image=images)
    alone = [vectors(encoder, text=[text], image=[image]) for text, image in zip(TEXTS, images, strict=True)]
    assert np.abs(np.concatenate(alone) - together).max() <= 5e-6


def test_images_of_any_mode(models: dict[str, Path]) -> None:
    """The same picture in seven modes: the same vector where the mode loses nothing."""
    encoder = encoder_for(models["clip"], "clip")
    colour = pictures(1)[0]
    grey = colour.convert("L")
    deep = Image.fromarray(np.asarray(grey, dtype=np.uint16) * 257)
    palette = Image.fromarray(np.asarray(grey) // 64 * 64).convert("P")
    images = [colour, colour.convert("RGBA"), grey, deep, grey.convert("LA"), palette, colour.convert("CMYK")]
    found = vectors(encoder, image=images)
    assert deep.mode == "I;16"
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[2], found[3]) and np.array_equal(found[2], found[4])
    assert np.isfinite(found).all() and found.shape == (7, 64)


def test_what_a_transparent_pixel_shows() -> None:
    hidden_red = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    assert rgb(hidden_red).getpixel((0, 0)) == (255, 255, 255)
    assert rgb(hidden_red, over_white=False).getpixel((0, 0)) == (255, 0, 0)
    assert rgb(Image.new("I;16", (1, 1), 128 * 257)).getpixel((0, 0)) == (128, 128, 128)
    assert rgb(Image.new("L", (1, 1), 7)).getpixel((0, 0)) == (7, 7, 7)


def test_half_precision_gives_float16(models: dict[str, Path]) -> None:
    exact = encoder_for(models["clip"], "clip").encode({"image": pictures()}, EncodeContext("document"))
    half = encoder_for(models["clip"], "clip", dtype="bfloat16").encode({"image": pictures()}, EncodeContext(None))
    assert (exact.values.dtype, half.values.dtype) == (np.float32, np.float16)
    a, b = exact.values, half.values.astype(np.float32)
    assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() >= 0.999


def test_an_adapter_is_that_of_peft(models: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModel, AutoProcessor

    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    trained: Any = get_peft_model(AutoModel.from_pretrained(models["clip"]), config)
    trained.save_pretrained(tmp_path / "lora")
    theirs: Any = PeftModel.from_pretrained(AutoModel.from_pretrained(models["clip"]), str(tmp_path / "lora")).eval()
    inputs = AutoProcessor.from_pretrained(models["clip"])(images=pictures(), return_tensors="pt")
    with torch.no_grad():
        expected = theirs.get_image_features(**inputs).pooler_output.numpy()
    adapted = encoder_for(models["clip"], "clip", adapter=str(tmp_path / "lora"))
    assert_same_directions(vectors(adapted, image=pictures()), expected, max_difference=2e-6)
    plain = encoder_for(models["clip"], "clip")
    assert np.abs(vectors(plain, image=pictures()) - expected).max() > 1e-2
    assert plain.fingerprint != adapted.fingerprint
    with pytest.raises(UserError, match="no adapter_config"):
        encoder_for(models["clip"], "clip", adapter=str(tmp_path)).load()


def test_the_fingerprint_follows_weights_and_dtype(models: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(models["clip"], tmp_path / "copy")
    here = encoder_for(models["clip"], "clip").fingerprint
    assert encoder_for(tmp_path / "copy", "clip", device="cpu").fingerprint == here
    assert encoder_for(tmp_path / "copy", "clip", dtype="float16").fingerprint != here
    build_clip(tmp_path / "other", seed=1)
    assert encoder_for(tmp_path / "other", "clip").fingerprint != here
    config = tmp_path / "copy" / "processor_config.json"
    config.write_text(config.read_text().replace("96", "80"))
    assert encoder_for(tmp_path / "copy", "clip").fingerprint != here


@pytest.mark.parametrize(
    "option", [{"embedding_dim": 8}, {"pooling": "mean"}, {"max_pixels": 1000}, {"mode": "sparse"}]
)
def test_options_that_it_does_not_have_are_refused(models: dict[str, Path], option: dict[str, Any]) -> None:
    flag = "--" + next(iter(option)).replace("_", "-")
    with pytest.raises(UnsupportedOptionError, match=f"has no option {flag}; it has: --adapter, "):
        encoder_for(models["clip"], "clip", **option)


def test_failures_are_one_clear_line(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="device 'cuda' was asked for and this process sees no GPU"):
        encoder_for(models["clip"], "clip", device="cuda").load()
    with pytest.raises(UserError, match="encodes text and images; this content has \\['audio'\\]"):
        vectors(encoder_for(models["clip"], "clip"), audio=[1])
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ModelError, match="its weights cannot be loaded: OSError"):
        encoder_for(tmp_path, "clip").load()


def test_it_pickles_before_and_after_loading(models: dict[str, Path]) -> None:
    encoder = encoder_for(models["clip"], "clip")
    fresh = pickle.dumps(encoder)
    before, fingerprint = vectors(encoder, image=pictures()), encoder.fingerprint
    loaded = pickle.dumps(encoder)
    assert len(loaded) < len(fresh) + 2_000, "weights stay behind"
    for data in (fresh, loaded):
        again = pickle.loads(data)
        assert np.array_equal(vectors(again, image=pictures()), before)
        assert again.fingerprint == fingerprint


def test_the_untrained_checkpoint_is_the_same_wherever_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path / "cache"))
    here = checkpoint("raylib/untrained-clip")
    assert here == checkpoint("raylib/untrained-clip"), "built once"
    program = "import sys; from raylib.models.untrained import build_clip; build_clip(sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "there")], check=True, capture_output=True)
    assert weights_digest(here) == weights_digest(tmp_path / "there")
    assert list(here.parent.iterdir()) == [here], "nothing half-built is left"
    encoder = encoder_for("raylib/untrained-clip", "clip")
    assert vectors(encoder, text=["a page"]).shape == (1, 64)
    assert encoder.identity["weights"] == weights_digest(here)


def test_the_digest_is_over_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("not counted")
    inside = hashlib.sha256(b"{}").hexdigest()
    assert weights_digest(tmp_path) == hashlib.sha256(f"config.json\0{inside}\n".encode()).hexdigest()
    with pytest.raises(UserError, match="does not exist"):
        weights_digest(tmp_path / "none")
