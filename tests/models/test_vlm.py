"""GME, VLM2Vec and B3 against MTEB's own wrappers of them, called on one content at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.models.families_vlm import VLM
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.models.vlm import GmeEncoder, Vlm2VecEncoder, VlmEncoder, gme_size
from raylib.types import EncodeContext

from . import tiny_qwen, vlm_reference
from .helpers import assert_same_directions, encoder_for, vectors
from .tiny_vlm import QUERIES, mixed_pages, page

MAX_DIFFERENCE = 5e-6
"""Of a component of a unit vector in float32, between a batch of several and a batch of one."""

TEXTS = [*QUERIES, "a", "x " * 300, "  led by spaces and ended by one ", "date"]
"""Eight; MTEB strips VLM2Vec's whole prompt, so that one text differs there."""
PAGES = [*mixed_pages(), page(10, 10, 5), page(20, 90, 6), page(300, 28, 7), page(29, 29, 8)]

Build = Callable[[str], Path]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Version of Qwen → folder with a tiny checkpoint, built once."""
    return cache(lambda version: tiny_qwen.build(version, tmp_path_factory.mktemp(f"qwen{version}")))


@pytest.fixture(scope="session")
def pages_task() -> Any:
    """The metadata of a ViDoRe task."""
    import mteb

    return mteb.get_task("Vidore2ESGReportsRetrieval").metadata


def gme(folder: Build, **options: Any) -> GmeEncoder:
    encoder = resolve(ModelSpec(str(folder("2")), family="gme-qwen2-vl", **options))
    assert isinstance(encoder, GmeEncoder)
    return encoder


def vlm2vec(folder: Build, version: str = "2", **options: Any) -> Vlm2VecEncoder:
    encoder = resolve(ModelSpec(str(folder(version)), **options))
    assert isinstance(encoder, Vlm2VecEncoder) and encoder.family.name == "vlm2vec"
    return encoder


# Parity.


def test_gme_matches_mteb(folder: Build, pages_task: Any) -> None:
    """Instructed queries, one of them cut at 1,800 tokens; images of all sizes; both at once."""
    encoder, path, nothing = gme(folder), folder("2"), [None] * 8
    prompt = encoder.context(pages_task, "query").prompt
    assert prompt == "Find a screenshot that relevant to the user's question."
    long = [*TEXTS[:7], "word " * 2000]
    got = vectors(encoder, "query", prompt, text=long)
    assert_same_directions(got, vlm_reference.gme(path, long, nothing, prompt), MAX_DIFFERENCE)
    assert encoder.context(pages_task, "document").prompt == ""
    got = vectors(encoder, "document", image=PAGES)
    assert_same_directions(got, vlm_reference.gme(path, nothing, PAGES), MAX_DIFFERENCE)
    got = vectors(encoder, "document", text=TEXTS, image=PAGES)
    assert_same_directions(got, vlm_reference.gme(path, TEXTS, PAGES), MAX_DIFFERENCE)


@pytest.mark.parametrize("version", ["2", "2.5"])
def test_vlm2vec_matches_mteb(version: str, folder: Build, pages_task: Any) -> None:
    encoder, path = vlm2vec(folder, version), folder(version)
    texts = [text.strip() for text in TEXTS]
    shown = [image.convert("RGB") for image in PAGES]  # as transformers 4 did, which showed what alpha hides
    small = [image.resize((56, 56)) if min(image.size) < 28 else image for image in shown]
    for role, ours, theirs in (
        ("query", {"text": texts}, {"text": texts}),
        ("document", {"image": PAGES}, {"image": small}),
        ("document", {"text": texts, "image": PAGES}, {"text": texts, "image": small}),
    ):
        prompt = encoder.context(pages_task, role).prompt  # pyright: ignore[reportArgumentType]
        expected = vlm_reference.vlm2vec(path, pages_task, role, **theirs)
        assert_same_directions(vectors(encoder, role, prompt, **ours), expected, MAX_DIFFERENCE)


def test_the_positions_of_an_image_are_those_of_training(folder: Build) -> None:
    """Those that transformers 5 would compute give another vector."""
    import torch

    model, processor = vlm_reference.load(folder("2"))
    inputs = processor(text=["<|image_pad|> Look."], images=[PAGES[0]], return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1].numpy()
    ours = vectors(vlm2vec(folder), prompt="Look.", image=PAGES[:1])[0]
    assert (ours * hidden).sum() / np.linalg.norm(hidden) < 0.99


def test_checkpoints_as_published(folder: Build, tmp_path: Path) -> None:
    old = shutil.copytree(folder("2"), tmp_path / "old")
    tiny_qwen.flatten_config(old)
    batch = {"text": TEXTS, "image": PAGES}
    np.testing.assert_array_equal(vectors(encoder_for(old, "vlm2vec"), **batch), vectors(vlm2vec(folder), **batch))


# Batches.


@pytest.fixture(params=["gme", "vlm2vec", "vlm2vec 2.5"])
def encoder(request: pytest.FixtureRequest, folder: Build) -> VlmEncoder:
    return gme(folder) if request.param == "gme" else vlm2vec(folder, request.param[8:] or "2")


def test_a_batch_of_one_is_a_batch_of_eight(encoder: VlmEncoder) -> None:
    """Contents with and without a page or a text in one batch; and what came before leaves nothing behind."""
    texts = [None if i in (1, 6) else text for i, text in enumerate(TEXTS)]
    images = [None if i in (0, 4, 5) else image for i, image in enumerate(PAGES)]
    together = vectors(encoder, prompt="Look.", text=texts, image=images)
    alone = [vectors(encoder, prompt="Look.", text=[t], image=[i]) for t, i in zip(texts, images, strict=True)]
    assert_same_directions(together, np.concatenate(alone), MAX_DIFFERENCE)
    only = [i for i in range(8) if images[i] is None]
    got = vectors(encoder, prompt="Look.", text=[texts[i] for i in only])
    assert_same_directions(got, together[only], MAX_DIFFERENCE)
    np.testing.assert_array_equal(vectors(encoder, prompt="Look.", text=texts, image=images), together)


def test_a_batch_can_be_halved(encoder: VlmEncoder) -> None:
    texts, images = TEXTS[:4], [None, None, *PAGES[2:4]]
    tensors = encoder.preprocess({"text": texts, "image": images}, EncodeContext("document"))
    assert all(len(array) == 4 for array in tensors.values())
    halves = [
        encoder.forward({name: array[half] for name, array in tensors.items()}) for half in (slice(2), slice(2, 4))
    ]
    got = np.concatenate([half.dense() for half in halves])
    assert_same_directions(got, encoder.forward(tensors).dense(), MAX_DIFFERENCE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_padding_side_does_not_matter(side: str, folder: Build) -> None:
    encoder = vlm2vec(folder)
    encoder.processor.tokenizer.padding_side = side
    mask = encoder.preprocess({"text": TEXTS, "image": PAGES}, EncodeContext(None))["attention_mask"]
    assert mask[:, 0].all() == (side == "right") and mask[:, -1].all() == (side == "left")
    alone = [vectors(encoder, text=[t], image=[i]) for t, i in zip(TEXTS, PAGES, strict=True)]
    assert_same_directions(vectors(encoder, text=TEXTS, image=PAGES), np.concatenate(alone), MAX_DIFFERENCE)


# What the model reads.


def read(encoder: VlmEncoder, prompt: str, **columns: list) -> list[str]:
    """What the tokens of each content say, with one token for a whole image."""
    tensors = encoder.preprocess(dict(columns), EncodeContext(None, prompt))
    rows = zip(tensors["input_ids"], tensors["attention_mask"].astype(bool), strict=True)
    said = [encoder.processor.tokenizer.decode(ids[mask]) for ids, mask in rows]
    for text in said:
        while "<|image_pad|>" * 2 in text:
            said[said.index(text)] = text = text.replace("<|image_pad|>" * 2, "<|image_pad|>")
    return said


IMAGE = "<|image_pad|>"


@pytest.mark.parametrize(
    ("prompt", "text", "image", "expected"),
    [
        ("Find it:", "a tree", False, "Find it: a tree"),
        ("Represent the answer: ", "yes", False, "Represent the answer: yes"),
        ("Look.", None, True, f"{IMAGE} Look."),
        ("Look.", "A tree\n", True, f"{IMAGE} Look. A tree\n"),
        ("", "A tree ", True, f"{IMAGE} A tree "),
        ("", "", True, IMAGE),
        ("", "", False, "  "),
        ("", "<|image_1|>\nWhat is it?", True, f"{IMAGE}\nWhat is it?"),
        ("Look.", f"This {IMAGE} is it", True, f"Look. This {IMAGE} is it"),
        ("", f"no {IMAGE} here", False, "no  here"),
    ],
)
def test_vlm2vec_writes(prompt: str, text: str | None, image: bool, expected: str, folder: Build) -> None:
    columns: dict[str, list] = {"text": [text], "image": [PAGES[0] if image else None]}
    assert read(vlm2vec(folder), prompt, **columns) == [expected]


def test_gme_writes(folder: Build) -> None:
    encoder = gme(folder)
    frame = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
    image = f"<|vision_start|>{IMAGE}<|vision_end|>"
    assert read(encoder, "Find it.", text=["a tree"]) == [frame.format("Find it.", "a tree")]
    assert read(encoder, "", text=["<|image_1|>\na tree"], image=[PAGES[0]]) == [
        frame.format("You are a helpful assistant.", image + "a tree")
    ]


@pytest.mark.parametrize("which", ["gme", "vlm2vec"])
def test_pixels_are_bounded(which: str, folder: Build) -> None:
    def tokens(**options: Any) -> list[int]:
        found = (gme if which == "gme" else vlm2vec)(folder, **options)
        images = [page(1500, 1400), page(10, 10), page(560, 28)]
        return (found.preprocess({"image": images}, EncodeContext(None))["image_grid_thw"].prod(1) // 4).tolist()

    # 1258 = 37 × 34, the largest grid of this shape in 1280; 56 × 56 pixels are 4 tokens; 560 × 28 are 20.
    assert tokens() == [37 * 34, 4, 20]
    assert tokens(max_pixels=12 * 784)[0] <= 12
    assert tokens(max_pixels=784)[1] == 1


def test_the_size_that_gme_gives_an_image() -> None:
    """Four by hand: rounded, grown to 4 tiles, held to 16,384 and to 200 times the other side. Others by MTEB."""
    import warnings

    from mteb.models.model_implementations.gme_v_models import smart_resize

    by_hand = {(100, 100): (112, 112), (30, 15): (84, 56), (8000, 4000): (5068, 2520), (28, 8400): (28, 5600)}
    assert {size: gme_size(*size) for size in by_hand} == by_hand
    random = np.random.default_rng(0)
    for width, height in np.exp(random.uniform(0, 9, (300, 2))).astype(int).tolist():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert gme_size(width, height) == smart_resize(height, width)[::-1], (width, height)


# Prompts.


def test_prompts_for_pages_are_those_of_mteb_s_wrapper(folder: Build) -> None:
    from mteb.get_tasks import _TASKS_REGISTRY
    from mteb.models.model_implementations.vlm2vec_models import _VLM2VEC2_TASK_PROMPTS

    encoder, checked = vlm2vec(folder), 0
    for name, expected in _VLM2VEC2_TASK_PROMPTS.items():
        task = _TASKS_REGISTRY[name].metadata if name in _TASKS_REGISTRY else None
        if task is not None and "video" not in task.modalities:
            assert {role: encoder.context(task, role).prompt for role in ("query", "document")} == expected, name
            checked += 1
    assert checked > 40


def test_other_tasks_bring_their_own(folder: Build) -> None:
    encoder = vlm2vec(folder)
    task: Any = SimpleNamespace(name="T", type="Any2AnyRetrieval", category="it2i", prompt={"query": "Find a photo."})
    assert [encoder.context(task, role).prompt for role in ("query", "document", None)] == ["Find a photo.", "", ""]
    task.prompt = "Find a photo."
    assert [encoder.context(task, role).prompt for role in ("query", "document")] == ["Find a photo.", ""]
    assert encoder.context(None, "query").prompt == ""
    asked = vlm2vec(folder, query_prompt="Find:", document_prompt="")
    assert [asked.context(task, role).prompt for role in ("query", "document")] == ["Find:", ""]


# Options.


def test_options_change_the_fingerprint(folder: Build) -> None:
    options: list[dict[str, Any]] = [{}, {"dtype": "bfloat16"}, {"max_pixels": 20 * 784}, {"max_pixels": 784}]
    assert len({vlm2vec(folder, **option).fingerprint for option in options}) == len(options)
    assert gme(folder).fingerprint != vlm2vec(folder).fingerprint
    equal: list[dict[str, Any]] = [{"pooling": "eos"}, {"pooling": "last"}, {"max_pixels": 1280 * 784}]
    for same in [*equal, {"query_prompt": "Find:"}]:
        assert vlm2vec(folder, **same).fingerprint == vlm2vec(folder).fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "mean"}, "--pooling is 'mean'; .* has last and eos"),
        ({"pooling": "cls"}, "--pooling is 'cls'"),
        ({"embedding_dim": 16}, "no option --embedding-dim"),
        ({"max_pixels": 100}, r"--max-pixels is 100; gme-qwen2-vl takes 784 \(one visual token\) to 1210496"),
        ({"max_pixels": 1800 * 784}, "--max-pixels is 1411200"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str, folder: Build) -> None:
    with pytest.raises(UserError, match=message):
        gme(folder, **options)


def test_contents_that_cannot_be_read(folder: Build) -> None:
    with pytest.raises(UserError, match="1 of 2 contents have no text and no image"):
        vectors(vlm2vec(folder), text=["a", None])
    with pytest.raises(UserError, match="no text and no image"):
        vectors(vlm2vec(folder), audio=["a"])
    with pytest.raises(UserError, match="longer than 1800; shorten the prompt or lower --max-pixels"):
        vectors(gme(folder), prompt="word " * 2000, image=PAGES[:1])


def test_half_precision_is_near(folder: Build) -> None:
    batch = {"text": TEXTS, "image": PAGES}
    half = vectors(vlm2vec(folder, dtype="bfloat16"), **batch)
    assert half.dtype == np.float16
    assert (half.astype(np.float32) * vectors(vlm2vec(folder), **batch)).sum(1).min() > 0.98


# Which family.


def test_a_file_beside_the_config_tells_gme(folder: Build, tmp_path: Path) -> None:
    for mark in ("gme_inference.py", "modeling_gme_qwen2vl.py"):
        copy = tmp_path / mark
        copy.mkdir()
        shutil.copy(folder("2") / "config.json", copy)
        (copy / "modules.json").write_text("[]")  # it is published for sentence-transformers too
        (copy / mark).write_text("")
        assert isinstance(resolve(ModelSpec(str(copy))), GmeEncoder)
        assert isinstance(resolve(ModelSpec(str(copy), family="vlm2vec")), Vlm2VecEncoder)


def test_the_code_that_a_config_names_tells_gme(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "qwen2_vl", "auto_map": {"AutoModel": "modeling_gme_qwen2vl.GmeQwen2VL"}}'
    )
    assert isinstance(resolve(ModelSpec(str(tmp_path))), GmeEncoder)


def test_members_are_known_without_their_weights() -> None:
    from mteb.models.model_implementations import MODEL_REGISTRY

    checked = 0
    for entry in VLM:
        for name, member in entry.members.items():
            if entry.name != "vlm2vec-phi3v":
                found = resolve(ModelSpec(name))
                assert isinstance(found, VlmEncoder) and found.family is entry
            meta = MODEL_REGISTRY.get(name)
            if meta is not None:
                assert (member.dim, member.max_tokens) == (meta.embed_dim, meta.max_tokens)
                assert member.revision in (None, meta.revision)
                checked += 1
    assert checked == 5
