"""ColIntern against the published procedure, written out with transformers' classes for one content at a time."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raylib.errors import ModelError, UnsupportedOptionError, UserError
from raylib.models.intern import InternEncoder
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.types import EncodeContext

from . import tiny_intern
from .colpali_helpers import assert_same
from .test_token_grid import with_dark_cell
from .tiny_vlm import QUERIES, mixed_pages, page

DOCUMENT, QUERY = EncodeContext("document"), EncodeContext("query")

MAX_DIFFERENCE = 2e-6
"""Of a component of a unit vector in float32, between a batch and a batch of one."""

MERGED_DIFFERENCE = 5e-5
"""The same, between a merged LoRA and one beside the weights."""

TEXTS = [*QUERIES, "x " * 300, "a", "naïve café 漢字 🙂", "date"]
"""Eight texts of 1 to 256 tokens; the fifth is cut."""


def eight_pages() -> list[Image.Image]:
    """One tile to four, in several shapes and modes."""
    small = [page(40, 44, 5), page(56, 56, 6, "L"), page(150, 50, 7), page(300, 310, 8)]
    return [small[0], *mixed_pages(), *small[1:]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_intern.build(tmp_path_factory.mktemp("internvl"))


@pytest.fixture(scope="module")
def lora(base: Path) -> tuple[Any, Any]:
    return tiny_intern.with_random_lora(tiny_intern.causal_lm(base))


@pytest.fixture(scope="module")
def file(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads without a LoRA, in a folder of their own."""
    return tiny_intern.save(tmp_path_factory.mktemp("heads"), tiny_intern.heads(base))


@pytest.fixture(scope="module")
def encoder(file: Path) -> InternEncoder:
    """Loaded once for the tests that only encode."""
    return ours(file)


def ours(name: Path | str, **options: Any) -> InternEncoder:
    found = resolve(ModelSpec(str(name), **options))
    assert isinstance(found, InternEncoder)
    return found


def test_texts_and_pages_match_the_published_procedure(base: Path, encoder: InternEncoder) -> None:
    language = tiny_intern.causal_lm(base)
    texts = [tiny_intern.text_by_hand(base, text, language) for text in TEXTS]
    assert [len(text) for text in texts][4] == 256
    assert_same(encoder.encode({"text": TEXTS}, QUERY), texts, MAX_DIFFERENCE)
    pages = [tiny_intern.page_by_hand(base, page) for page in eight_pages()]
    assert [len(page) for page in pages] == [4, 12, 16, 20, 16, 4, 16, 20]  # 4 a tile: 1, 2 + 1, 3 + 1, 4 + 1, …
    assert_same(encoder.encode({"image": eight_pages()}, DOCUMENT), pages, MAX_DIFFERENCE)
    both = [np.concatenate(pair) for pair in zip(texts, pages, strict=True)]
    assert_same(encoder.encode({"text": TEXTS, "image": eight_pages()}, DOCUMENT), both, MAX_DIFFERENCE)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_lora_is_merged(compiled: bool, base: Path, lora: tuple[Any, Any], tmp_path: Path) -> None:
    """Against the trainer's own arrangement: peft around the language model with its head."""
    saved = tiny_intern.heads(base, lora=lora, compiled=compiled)
    if compiled:
        saved["lora_state"] = {
            name.replace(".layers", "._orig_mod.layers"): t for name, t in saved["lora_state"].items()
        }
    encoder = ours(tiny_intern.save(tmp_path, saved))
    assert not any("lora" in name for name, _ in encoder.model.named_parameters())
    expected = [tiny_intern.text_by_hand(base, text, lora[0]) for text in QUERIES]
    assert_same(encoder.encode({"text": QUERIES}, QUERY), expected, MERGED_DIFFERENCE)
    plain = tiny_intern.text_by_hand(base, "socket", tiny_intern.causal_lm(base))
    assert np.abs(plain - expected[2]).max() > 0.1
    assert_same(
        encoder.encode({"image": mixed_pages()[:1]}, DOCUMENT), [tiny_intern.page_by_hand(base, mixed_pages()[0])]
    )


def test_a_lora_beside_the_weights_gives_what_a_merged_one_gives(
    base: Path, lora: tuple[Any, Any], tmp_path: Path
) -> None:
    file = tiny_intern.save(tmp_path, tiny_intern.heads(base, lora=lora))
    merged, beside = ours(file), ours(file, merge=False)
    assert "lora_A" in str(beside.model) and "lora_A" not in str(merged.model)
    expected = [*merged.encode({"text": QUERIES}, QUERY)]
    assert_same(beside.encode({"text": QUERIES}, QUERY), expected, MERGED_DIFFERENCE)
    assert merged.fingerprint == beside.fingerprint


def test_a_lora_is_merged_in_float32_before_the_model_is_cast(
    base: Path, lora: tuple[Any, Any], tmp_path: Path
) -> None:
    file = tiny_intern.save(tmp_path, tiny_intern.heads(base, lora=lora))
    full, half = ours(file).model.state_dict(), ours(file, dtype="bfloat16").model.state_dict()
    assert all(torch.equal(half[name], full[name].to(torch.bfloat16)) for name in full)


def test_a_lora_may_have_been_trained_without_the_head(base: Path, lora: tuple[Any, Any], tmp_path: Path) -> None:
    saved = tiny_intern.heads(base, lora=lora)
    with_head = ours(tiny_intern.save(tmp_path / "with", saved)).encode({"text": QUERIES}, QUERY)
    saved["lora_state"] = {n.replace(".model.model.", ".model."): t for n, t in saved["lora_state"].items()}
    without = ours(tiny_intern.save(tmp_path / "without", saved)).encode({"text": QUERIES}, QUERY)
    np.testing.assert_array_equal(with_head.values, without.values)


def test_compiled_heads_are_the_same_heads(base: Path, encoder: InternEncoder, tmp_path: Path) -> None:
    compiled = ours(tiny_intern.save(tmp_path, tiny_intern.heads(base, compiled=True)))
    for name, weight in encoder.projections.items():
        assert torch.equal(weight, compiled.projections[name])


@pytest.mark.parametrize(
    "columns", [{"text": TEXTS}, {"image": eight_pages()}, {"text": TEXTS, "image": eight_pages()}]
)
def test_neighbours_do_not_show(columns: dict[str, list[Any]], encoder: InternEncoder) -> None:
    together = encoder.encode(columns, DOCUMENT)
    alone = [encoder.encode({name: [values[i]] for name, values in columns.items()}, DOCUMENT)[0] for i in range(8)]
    assert_same(together, alone, MAX_DIFFERENCE)


def test_a_batch_can_be_halved(encoder: InternEncoder) -> None:
    tensors = encoder.preprocess({"text": TEXTS, "image": eight_pages()}, DOCUMENT)
    assert {len(array) for array in tensors.values()} == {8}
    whole = encoder.forward(tensors)
    halves = [
        encoder.forward({name: array[part] for name, array in tensors.items()}) for part in (np.s_[:3], np.s_[3:])
    ]
    assert_same(whole, [*halves[0], *halves[1]], MAX_DIFFERENCE)


@pytest.mark.parametrize(
    "columns", [{"text": TEXTS}, {"image": eight_pages()}, {"text": TEXTS, "image": eight_pages()}]
)
def test_tokens_are_counted_before_the_forward(columns: dict[str, list[Any]], encoder: InternEncoder) -> None:
    tensors = encoder.preprocess(columns, DOCUMENT)
    counts = encoder.token_counts(tensors)
    assert counts is not None and counts.tolist() == encoder.forward(tensors).token_counts.tolist()


def test_the_padding_side_does_not_matter(base: Path, encoder: InternEncoder, file: Path, tmp_path: Path) -> None:
    right = ours(tiny_intern.build(tmp_path, padding_side="right"), adapter=str(file))
    sides = {e.processor.tokenizer.padding_side for e in (encoder, right)}
    assert sides == {"left", "right"}
    np.testing.assert_array_equal(
        encoder.encode({"text": TEXTS}, QUERY).values, right.encode({"text": TEXTS}, QUERY).values
    )


def test_the_prompt_comes_before_the_text_and_counts_as_text(base: Path, encoder: InternEncoder) -> None:
    language = tiny_intern.causal_lm(base)
    expected = [tiny_intern.text_by_hand(base, "find: " + text, language) for text in QUERIES]
    assert_same(encoder.encode({"text": QUERIES}, EncodeContext("query", "find: ")), expected, MAX_DIFFERENCE)
    assert encoder.context(None, "query").prompt == encoder.context(None, "document").prompt == ""


def test_the_user_s_prompts(file: Path, encoder: InternEncoder) -> None:
    asked = ours(file, query_prompt="find: ", document_prompt="page: ")
    assert asked.context(None, "query").prompt == "find: " and asked.context(None, "document").prompt == "page: "
    assert asked.fingerprint == encoder.fingerprint, "a prompt is part of the context"
    assert "".join(asked.token_texts({"text": ["socket"]})[0] or []) == "find: socket"
    batch = {"text": ["socket"], "image": [page(60, 60)]}
    (grid,) = asked.token_grid(batch)
    counts = asked.encode({"text": ["socket"]}, asked.context(None, "document")).token_counts
    assert grid is not None and grid.tokens[0, 0] == counts[0] > 1


def test_an_empty_text_is_refused_but_beside_a_page(encoder: InternEncoder) -> None:
    with pytest.raises(UserError, match="a text is empty"):
        encoder.preprocess({"text": ["a", ""]}, QUERY)
    pages = mixed_pages()[:2]
    alone = encoder.encode({"image": pages}, DOCUMENT)
    both = encoder.encode({"text": ["", ""], "image": pages}, DOCUMENT)
    np.testing.assert_array_equal(both.values, alone.values)
    one = encoder.encode({"text": ["a", ""], "image": pages}, DOCUMENT)
    assert (one.token_counts - alone.token_counts).tolist() == [1, 0]


def test_half_precision_keeps_the_projections_in_float32(file: Path, encoder: InternEncoder) -> None:
    half = ours(file, dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16 and {w.dtype for w in half.projections.values()} == {torch.float32}
    for columns in ({"text": TEXTS}, {"image": eight_pages()}):
        exact, rounded = encoder.encode(columns, DOCUMENT), half.encode(columns, DOCUMENT)
        assert rounded.values.dtype == np.float16
        assert (exact.values * rounded.values).sum(axis=1).min() > 0.99


# The budget of pixels.


@pytest.mark.parametrize(("budget", "counts"), [(1, [4, 4, 4]), (2, [12, 12, 12]), (6, [28, 16, 28])])
def test_max_pixels_is_a_budget_of_tiles(budget: int, counts: list[int], base: Path, file: Path) -> None:
    """At most as many tiles, and where it is more than one the page in one tile besides: 2 × 3, 3 × 1, 3 × 2 of 6."""
    encoder = ours(file, max_pixels=budget * 56 * 56 + 17)
    pages = [page(90, 130, 1), page(170, 60, 2), page(300, 200, 3)]
    expected = [tiny_intern.page_by_hand(base, one, max_patches=budget) for one in pages]
    assert [len(vectors) for vectors in expected] == counts
    assert_same(encoder.encode({"image": pages}, DOCUMENT), expected, MAX_DIFFERENCE)


def test_one_tile_is_the_page_as_the_trainer_saw_it(base: Path, file: Path) -> None:
    """Over a base in transformers' format, it called the image processor without tiles."""
    found = ours(file, max_pixels=56 * 56).encode({"image": eight_pages()}, DOCUMENT)
    expected = [tiny_intern.page_by_hand(base, one.convert("RGB"), crop_to_patches=False) for one in eight_pages()[3:5]]
    assert_same(found.take([3, 4]), expected, MAX_DIFFERENCE)


def test_a_budget_below_one_tile_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match=r"--max-pixels is 3135; .* needs 3136, one tile"):
        ours(file, max_pixels=56 * 56 - 1)


# How a user names it.


def test_ways_to_name_it(base: Path, file: Path, tmp_path: Path) -> None:
    beside = shutil.copytree(base, tmp_path / "beside")
    shutil.copy(file, beside)
    away = tiny_intern.save(tmp_path / "away", tiny_intern.heads(Path("somewhere/else/entirely")))
    expected = ours(file).encode({"text": QUERIES}, QUERY).values
    named: list[tuple[Path, dict[str, Any]]] = [
        (file, {}),
        (file.parent, {}),
        (file.parent, {"family": "colintern"}),
        (base, {"adapter": str(file)}),
        (base, {"adapter": str(file.parent)}),
        (base, {"adapter": str(away)}),
        (beside, {}),
        (beside / file.name, {}),
    ]
    for name, options in named:
        encoder = ours(name, **options)
        assert encoder.family.name == "colintern" and encoder.similarity == "maxsim" and encoder.fuses
        np.testing.assert_array_equal(encoder.encode({"text": QUERIES}, QUERY).values, expected)
    assert len({ours(name, **options).fingerprint for name, options in named[:5]}) == 1


def test_the_highest_step_of_a_folder_wins(base: Path, tmp_path: Path) -> None:
    for tag, step in (("step900", 900), ("epoch1", 1000), ("step99", 99)):
        tiny_intern.save(tmp_path, tiny_intern.heads(base, step=step), tag)
    encoder = ours(tmp_path)
    assert encoder.spec.adapter == str(tmp_path / "colintern_heads_epoch1.pt")
    tiny_intern.save(tmp_path, tiny_intern.heads(base, step=1200), "step1200")
    assert pickle.loads(pickle.dumps(encoder)).spec == encoder.spec, "what was chosen stays"
    assert str(ours(base, adapter=str(tmp_path)).spec.adapter).endswith("_step1200.pt")
    tiny_intern.save(tmp_path, tiny_intern.heads(base) | {"step": None}, "latest")
    with pytest.raises(UserError, match=r"latest.pt does not tell its step; name one of the files"):
        ours(tmp_path)


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("OpenGVLab/InternVL3_5-4B", "OpenGVLab/InternVL3_5-4B-HF"),
        ("OpenGVLab/InternVL3_5-1B-Instruct", "OpenGVLab/InternVL3_5-1B-Instruct-HF"),
        ("OpenGVLab/InternVL3_5-4B-HF", "OpenGVLab/InternVL3_5-4B-HF"),
        ("OpenGVLab/InternVL3-1B", "OpenGVLab/InternVL3-1B-hf"),
        ("me/InternVL3_5-4B", "me/InternVL3_5-4B"),
    ],
)
def test_the_base_of_published_heads_is_in_the_format_of_transformers(
    name: str, twin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    file = tiny_intern.save(tmp_path, tiny_intern.heads(Path(name)))
    with pytest.raises(UserError, match=rf"is an adapter of '{twin}', which is not here"):
        resolve(ModelSpec(str(file)))


def test_the_base_may_lie_in_the_hub_cache(
    base: Path, encoder: InternEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder, commit = tmp_path / "models--OpenGVLab--InternVL3_5-4B-HF", "0123456789abcdef0123456789abcdef01234567"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    shutil.copytree(base, folder / "snapshots" / commit)
    found = ours(tiny_intern.save(tmp_path / "heads", tiny_intern.heads(Path("OpenGVLab/InternVL3_5-4B"))))
    assert found.spec.name == "OpenGVLab/InternVL3_5-4B-HF" and found.identity["commit"] == commit
    assert found._base_config()["model_type"] == "internvl"


def test_what_cannot_be_run_says_why(base: Path, file: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    gone = tiny_intern.save(tmp_path / "gone", tiny_intern.heads(tmp_path / "no-such-model"))
    nameless = tiny_intern.save(tmp_path / "nameless", tiny_intern.heads(base) | {"model_id": None})
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"architectures": ["InternVLChatModel"], "model_type": "internvl_chat"}')
    refused: list[tuple[ModelSpec, str]] = [
        (ModelSpec(str(base)), r"InternVL without the projections .* as --adapter"),
        (ModelSpec(str(base), adapter=str(empty)), r"holds no colintern_heads_\*\.pt"),
        (ModelSpec(str(base), adapter=str(tmp_path / "none.pt")), "none.pt does not exist"),
        (ModelSpec(str(file), adapter=str(file)), "is an adapter itself; name its base as --model"),
        (ModelSpec(str(gone)), r"is an adapter of '.*no-such-model', which is not here"),
        (ModelSpec(str(nameless)), "names no base model; pass the base as --model"),
        (ModelSpec(str(other), adapter=str(file)), "the format of InternVL's own code; expected transformers'.*-HF"),
        (ModelSpec(str(empty)), r"expected config\.json, .* or colintern_heads_\*\.pt in it"),
    ]
    for spec, message in refused:
        with pytest.raises(UserError, match=message):
            resolve(spec)
    with pytest.raises(UnsupportedOptionError, match="no option --pooling"):
        ours(file, pooling="mean")


# What a file may hold.


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_a_file_that_could_run_code_is_not_opened(base: Path, tmp_path: Path) -> None:
    fired = tmp_path / "fired"
    file = tiny_intern.save(tmp_path, tiny_intern.heads(base) | {"model_id": Bomb(fired)})
    for use in (lambda: ours(file), lambda: ours(base, adapter=str(file)).load_model()):
        with pytest.raises(UserError, match=r"cannot be read as weights alone .* could run code and is not opened"):
            use()
    assert not fired.exists()
    torch.load(file, weights_only=False)
    assert fired.exists(), "it would have"


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", pickle.dumps({"proj_img": 1}, protocol=2), b"PK\x03\x04broken"]
)
def test_a_file_that_is_no_checkpoint(content: bytes, base: Path, tmp_path: Path) -> None:
    (tmp_path / "heads.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"heads\.pt cannot be read as weights alone|heads\.pt has no proj_txt"):
        ours(base, adapter=str(tmp_path / "heads.pt")).load_model()


def changed(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def run(saved: dict[str, Any]) -> dict[str, Any]:
        saved = {name: dict(value) if isinstance(value, Mapping) else value for name, value in saved.items()}
        change(saved)
        return saved

    return run


A_TENSOR = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("proj_txt"), "has no proj_txt; it has proj_img, proj_dim"),
        (lambda s: s["proj_txt"].clear(), "has nothing; expected proj_txt.weight alone"),
        (lambda s: s["proj_img"].update(bias=torch.zeros(8)), "has proj_img.bias, proj_img.weight; expected"),
        (lambda s: s["proj_img"].update(weight=torch.zeros(8)), "proj_img.weight is no matrix"),
        (lambda s: s.update(proj_dim=16), r"proj_img.weight is \[8, 32\]; expected \[16, 32\]"),
        (
            lambda s: s["proj_txt"].update(weight=torch.zeros(8, 48)),
            r"proj_txt.weight is \[8, 48\]; expected \[8, 32\]",
        ),
        (lambda s: s.pop("lora_state"), "trained with a LoRA and has no lora_state"),
        (lambda s: s["lora_config"].pop("alpha"), "lora_config has no alpha"),
        (
            lambda s: s["lora_state"].pop(A_TENSOR),
            r"1 tensors of its LoRA .*\(layers.1.mlp.up_proj.lora_A.weight is miss",
        ),
        (lambda s: s["lora_state"].update(extra=torch.zeros(1)), r"\(extra has no place in it\)"),
        (lambda s: s["lora_state"].update({A_TENSOR: torch.zeros(3, 32)}), r"is \[3, 32\], expected \[4, 32\]"),
        (lambda s: s["lora_config"].update(targets={"wqkv"}), "its LoRA does not fit Qwen3Model"),
    ],
)
def test_tensors_that_are_missing_or_do_not_fit_are_named(
    change: Callable[[dict[str, Any]], None], message: str, base: Path, lora: tuple[Any, Any], tmp_path: Path
) -> None:
    file = tiny_intern.save(tmp_path, changed(change)(tiny_intern.heads(base, lora=lora)))
    with pytest.raises(UserError, match=message):
        ours(base, adapter=str(file)).load_model()


def test_heads_of_another_base_are_refused(base: Path, tmp_path: Path) -> None:
    saved = tiny_intern.heads(Path("OpenGVLab/InternVL3_5-4B"))
    wide = {"weight": torch.zeros(8, 2560)}
    file = tiny_intern.save(tmp_path, saved | {"proj_img": wide, "proj_txt": wide})
    with pytest.raises(
        UserError, match=r"is \[8, 2560\]; .* hidden size of 32. .*, which were trained on OpenGVLab/InternVL3_5-4B"
    ):
        ours(base, adapter=str(file)).load()


def test_a_checkpoint_without_a_weight_is_refused(base: Path, file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(base, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights.pop("multi_modal_projector.linear_1.weight")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights of InternVLModel .*\(multi_modal_projector.linear_1.weight\)"):
        ours(broken, adapter=str(file)).load()


def test_both_ways_to_name_the_weights(base: Path, file: Path, encoder: InternEncoder, tmp_path: Path) -> None:
    """As saved (transformers 4's names, which OpenGVLab's checkpoints have too), and as transformers 5 names them."""
    from safetensors.torch import load_file, save_file
    from transformers import InternVLForConditionalGeneration

    assert any(name.startswith("language_model.model.layers.") for name in load_file(base / "model.safetensors"))
    new = shutil.copytree(base, tmp_path / "new")
    weights = InternVLForConditionalGeneration.from_pretrained(base).state_dict()
    assert any(name.startswith("model.language_model.layers.") for name in weights)
    weights.pop("lm_head.weight")
    save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
    batch = {"text": QUERIES, "image": mixed_pages()}
    found = ours(new, adapter=str(file)).encode(batch, DOCUMENT)
    np.testing.assert_array_equal(found.values, encoder.encode(batch, DOCUMENT).values)


# Fingerprints.


def test_what_changes_vectors_changes_the_fingerprint(
    base: Path, file: Path, lora: tuple[Any, Any], tmp_path: Path
) -> None:
    here = ours(file).fingerprint
    retrained = tiny_intern.build(tmp_path / "retrained", seed=1)
    later = tiny_intern.heads(base)
    later["proj_img"]["weight"] = later["proj_img"]["weight"] + 1
    others = [
        ours(file, dtype="bfloat16"),
        ours(file, max_pixels=20_000),
        ours(file, max_pixels=40_000),
        ours(retrained, adapter=str(file)),
        ours(tiny_intern.save(tmp_path / "later", later)),
        ours(tiny_intern.save(tmp_path / "lora", tiny_intern.heads(base, lora=lora))),
    ]
    assert len({here, *(other.fingerprint for other in others)}) == len(others) + 1


def test_what_does_not_change_vectors_does_not(base: Path, file: Path, tmp_path: Path) -> None:
    here = ours(file).fingerprint
    assert ours(file, dtype="float32").fingerprint == ours(file, device="cpu").fingerprint == here
    moved = shutil.copytree(base, tmp_path / "moved")
    renamed = shutil.copy(file, tmp_path / "mine.pt")
    assert ours(moved, adapter=str(renamed)).fingerprint == here
    beside = shutil.copytree(base, tmp_path / "beside")
    shutil.copy(file, beside)
    assert ours(beside).fingerprint == here
    other = tiny_intern.heads(base, step=1)
    other["proj_img"]["weight"] = other["proj_img"]["weight"] + 1
    earlier = tiny_intern.save(beside, other, "step1")
    assert ours(beside).fingerprint == here != ours(beside, adapter=str(earlier)).fingerprint


def test_it_pickles_without_weights(file: Path) -> None:
    encoder = ours(file)
    expected = encoder.encode({"text": QUERIES}, QUERY).values
    data = pickle.dumps(encoder)
    assert len(data) < 3_000
    np.testing.assert_array_equal(pickle.loads(data).encode({"text": QUERIES}, QUERY).values, expected)


# Where a vector is from.


@pytest.mark.parametrize(("size", "shape"), [((112, 56), (2, 4)), ((56, 56), (2, 2)), ((60, 120), (4, 2))])
def test_the_changed_cell_is_where_the_grid_says(
    size: tuple[int, int], shape: tuple[int, int], encoder: InternEncoder
) -> None:
    """Tiles of 2 × 2 tokens."""
    plain = Image.new("RGB", size, (200, 200, 200))
    vectors = encoder.encode({"image": [plain]}, DOCUMENT)[0]
    (grid,) = encoder.token_grid({"image": [plain]})
    assert grid is not None and grid.tokens.shape == shape
    assert len(set(grid.tokens.ravel().tolist())) == grid.tokens.size and grid.tokens.max() < len(vectors)
    for cell in np.ndindex(shape):
        changed = encoder.encode({"image": [with_dark_cell(size, shape, cell)]}, DOCUMENT)[0]
        moved = np.linalg.norm(changed - vectors, axis=1)[grid.tokens]
        assert np.unravel_index(moved.argmax(), shape) == cell


def test_the_grid_by_hand(encoder: InternEncoder) -> None:
    """Two tiles side by side after the two tokens of the text: 2 3 / 4 5 and 6 7 / 8 9; then the page in one tile."""
    both = encoder.token_grid({"text": ["at", "a"], "image": [Image.new("RGB", (112, 56)), Image.new("L", (8, 8))]})
    counts = encoder.encode({"text": ["at", "a"]}, DOCUMENT).token_counts.tolist()
    grids = [grid.tokens.tolist() for grid in both if grid is not None]
    assert counts == [1, 1] and grids == [[[1, 2, 5, 6], [3, 4, 7, 8]], [[1, 2], [3, 4]]]
    assert encoder.token_grid({"text": ["a", "b"]}) == [None, None]


def test_the_grid_of_every_page_has_its_tiles(encoder: InternEncoder) -> None:
    counts = encoder.encode({"image": eight_pages()}, DOCUMENT).token_counts
    for grid, count in zip(encoder.token_grid({"image": eight_pages()}), counts, strict=True):
        assert grid is not None and grid.tokens.size + (4 if count > 4 else 0) == count


def test_one_text_for_every_vector_of_a_query(encoder: InternEncoder) -> None:
    texts = encoder.token_texts({"text": QUERIES})
    counts = encoder.encode({"text": QUERIES}, QUERY).token_counts
    assert [len(words or []) for words in texts] == counts.tolist()
    assert "".join(texts[0] or []) == "what is it?"
    assert encoder.token_texts({"text": ["a"], "image": [page(60, 60)]}) == [None]
