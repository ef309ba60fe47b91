"""Models whose code comes with the checkpoint: only where it is trusted, and then as any other."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from raylib.cli import main
from raylib.errors import ModelError, UserError
from raylib.evaluate.contents import BadContentError
from raylib.extract.extractor import Extractor
from raylib.extract.own_code import mend
from raylib.models.protocol import ModelSpec
from raylib.store.hidden_states import open_states
from raylib.store.representations import Representation

from .checkpoints.remote import BUILDERS_REMOTE
from .made import images_folder, rows
from .references_remote import fastvlm_inputs, load, molmo_inputs


def trusting(folder, layers="0,-1", **options):
    return Extractor(ModelSpec(str(folder), trust_remote_code=True), layers, **options)


# Trust.


@pytest.mark.parametrize("name", BUILDERS_REMOTE)
def test_own_code_is_not_run_unless_it_is_trusted(name, checkpoint):
    folder = checkpoint(name)
    message = rf"{name}.*this model's code comes with it.*add --trust-remote-code if you trust them"
    with pytest.raises(UserError, match=message):
        _ = Extractor(ModelSpec(str(folder)), "0").layers
    assert trusting(folder).config.model_type == name
    with pytest.raises(UserError, match=message):  # although this process has run the code by now
        _ = Extractor(ModelSpec(str(folder)), "0").layers


OWN_NEXT = """
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration


class OwnConfig(LlavaNextConfig):
    model_type = "own_next"


class OwnModel(LlavaNextForConditionalGeneration):
    config_class = OwnConfig
"""


@pytest.fixture
def own_next(checkpoint, tmp_path):
    """LLaVA-NeXT as a model of which raylib and transformers know nothing, with its code."""
    folder = tmp_path / "own_next"
    shutil.copytree(checkpoint("llava_next"), folder)
    (folder / "modeling_own.py").write_text(OWN_NEXT)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "own_next"
    config["auto_map"] = {
        "AutoConfig": "modeling_own.OwnConfig",
        "AutoModelForImageTextToText": "modeling_own.OwnModel",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_other_own_code_is_tried_as_any_model(own_next, checkpoint):
    with pytest.raises(UserError, match=r"own_next.*--trust-remote-code"):
        _ = Extractor(ModelSpec(str(own_next)), "0").layers
    own, known = trusting(own_next), Extractor(ModelSpec(str(checkpoint("llava_next"))), "0,-1")
    found, expected = (e.forward([e.prepare(r.question, r.image) for r in rows()[:3]]).values for e in (own, known))
    assert type(own.model).__name__ == "OwnModel" and set(found) == set(expected)
    for name, states in expected.items():
        np.testing.assert_array_equal(found[name], states)


def test_a_class_for_transformers_4_is_mended_once():
    class Old:
        def tie_weights(self):
            return "tied"

    class New:
        all_tied_weights_keys = "its own"

        def tie_weights(self, missing_keys=None, recompute_mapping=True):
            return missing_keys

    for _ in range(2):
        mend(Old)
        mend(New)
    assert Old().tie_weights(missing_keys=["a"], recompute_mapping=False) == "tied"
    assert Old().all_tied_weights_keys == {}
    assert New().tie_weights(missing_keys=["a"]) == ["a"] and New().all_tied_weights_keys == "its own"


# Rows, answers, positions.


def said_by_hand(folder, name, row, tokens):
    """Greedy words, each from the whole prompt anew."""
    import torch

    found = []
    for _ in range(tokens):
        added = torch.tensor([found], dtype=torch.long)
        with torch.inference_mode():
            if name == "molmo":
                model = load(folder, "modeling_molmo.MolmoForCausalLM")
                inputs = molmo_inputs(folder, row.image, row.question)
            else:
                model = load(folder, "llava_qwen.LlavaQwen2ForCausalLM")
                inputs = fastvlm_inputs(folder, row.image, row.question)
                inputs["attention_mask"] = torch.ones(1, inputs["input_ids"].shape[1] + len(found))
            inputs["input_ids"] = torch.cat([inputs["input_ids"], added], dim=1)
            found.append(int(model(**inputs, use_cache=False).logits[0, -1].argmax()))
    return found


@pytest.mark.parametrize("name", BUILDERS_REMOTE)
def test_answers_of_a_batch_are_those_of_each_row_alone(name, checkpoint):
    extractor = trusting(checkpoint(name), max_new_tokens=4)
    prepared = [extractor.prepare(row.question, row.image) for row in rows()]
    answers = extractor.forward(prepared).answers
    tokenizer = extractor.reader.tokenizer
    for answer, row in zip(answers, rows(), strict=True):
        words = said_by_hand(checkpoint(name), name, row, 4)
        if tokenizer.eos_token_id in words:
            words = words[: words.index(tokenizer.eos_token_id)]
        assert answer == tokenizer.decode(words, skip_special_tokens=True).strip()
    assert len(set(answers)) > 3, "the rows are answered differently"


def test_an_answer_of_molmo_ends_at_its_end_token(checkpoint):
    extractor = trusting(checkpoint("molmo"), max_new_tokens=6)
    prepared = [extractor.prepare(row.question, row.image) for row in rows()[:3]]
    words = [said_by_hand(checkpoint("molmo"), "molmo", row, 6) for row in rows()[:3]]
    end = words[0][2]
    tokenizer = extractor.reader.tokenizer
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    tokens = extractor.reader.generate(extractor.model, extractor._on_device(prepared, "left"), 6).tolist()
    for found, wanted in zip(tokens, words, strict=True):
        until = wanted.index(end) + 1 if end in wanted else 6
        assert found[:until] == wanted[:until]
        assert set(found[until:]) <= {extractor.reader.pad_token}
    assert end in tokens[0]


@pytest.mark.parametrize(("name", "position"), [("molmo", lambda image: image[1]), ("llava_qwen2", lambda i: i[0])])
def test_the_legacy_boundary_is_the_scripts_own(name, position, checkpoint):
    """Molmo's is one past the last image token, FastVLM's the place of the id that stood for all of them."""
    exact, legacy = trusting(checkpoint(name)), trusting(checkpoint(name), boundary="legacy")
    for row in rows():
        found, old = (extractor.prepare(row.question, row.image).span for extractor in (exact, legacy))
        assert found.vision == found.bounds[1] - 1
        assert old.vision == position(found.bounds) and old.query == found.query
    prepared = [legacy.prepare(row.question, row.image) for row in rows()[:2]]
    key = Representation("vision_token", 0)
    old = legacy.forward(prepared).values
    assert not np.array_equal(old[key], exact.forward(prepared[:1]).values[key])
    everything = Representation("multimodal", 0)
    np.testing.assert_array_equal(old[everything], exact.forward(prepared).values[everything])


@pytest.mark.parametrize(("name", "mark"), [("molmo", "<im_patch>"), ("llava_qwen2", "<image>")])
def test_a_question_may_not_hold_what_stands_for_an_image(name, mark, checkpoint):
    with pytest.raises(BadContentError, match=rf"its question holds {mark}"):
        trusting(checkpoint(name)).prepare(f"Is {mark} a mark?", rows()[0].image)


def test_a_prompt_that_fastvlm_would_cut_is_refused(checkpoint):
    with pytest.raises(BadContentError, match=r"its prompt has \d{4} tokens; the model reads 1024"):
        trusting(checkpoint("llava_qwen2")).prepare("why " * 700, rows()[0].image)


def test_another_tower_than_the_published_one_is_told(checkpoint):
    reader = trusting(checkpoint("llava_qwen2")).reader
    tower = SimpleNamespace(num_patches=9, image_processor=reader.processor.images)
    with pytest.raises(ModelError, match=r"its vision tower gives 9 tokens .* expected 4 from 128 pixels"):
        reader.check(SimpleNamespace(get_vision_tower=lambda: tower))


@pytest.mark.parametrize("name", BUILDERS_REMOTE)
def test_the_command_runs_them(name, checkpoint, tmp_path):
    table, images = images_folder(tmp_path)
    places = ["--vqa-dataset", str(table), "--images-dir", str(images), "--output-dir", str(tmp_path / "out")]
    options = ["--model", str(checkpoint(name)), "--generate", "--max-new-tokens", "3", "--batch-size", "3", "--local"]
    command = ["extract", *places, *options, "--quiet"]
    assert main(command) == 2
    assert main([*command, "--trust-remote-code"]) == 0
    extractor = trusting(checkpoint(name), max_new_tokens=3)
    alone = extractor.forward([extractor.prepare(rows()[3].question, rows()[3].image)])
    found = open_states(str(tmp_path / "out"))
    key = Representation("query_token", extractor.depth - 1)
    np.testing.assert_allclose(found.matrix(key)[3], alone.values[key][0], rtol=0, atol=1e-4)
    assert found.texts("answer")[3] == alone.answers[0] and found.about["model_type"] == name
