"""sentence-transformers models against the library itself, on tiny checkpoints of three published shapes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raylib.errors import ModelError, UnsupportedOptionError, UserError
from raylib.models.families import family
from raylib.models.protocol import ModelSpec
from raylib.models.sentence import SentenceEncoder
from raylib.models.untrained import seeded
from raylib.types import EncodeContext
from tests.models.helpers import TEXTS, assert_same_directions, encoder_for, save_sentence, vectors


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for shape in ("bge-m3", "gemma", "qwen"):
        folder = tmp_path_factory.mktemp(shape)
        save_sentence(folder, shape)
        folders[shape] = folder / "model"
    return folders


def upstream(directory: Path, **options: Any):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(directory), device="cpu", **options)


@pytest.mark.parametrize("shape", ["bge-m3", "gemma", "qwen"])
@pytest.mark.parametrize("prompt", ["", "task: search | query: "])
def test_vectors_are_those_of_the_library(models: dict[str, Path], shape: str, prompt: str) -> None:
    ours = vectors(encoder_for(models[shape], "sentence-transformers"), prompt=prompt, text=TEXTS)
    theirs = upstream(models[shape]).encode(TEXTS, prompt=prompt, batch_size=8)
    assert_same_directions(ours, theirs, max_difference=1e-6)
    assert np.linalg.norm(ours, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", ["bge-m3", "gemma", "qwen"])
def test_a_batch_gives_what_single_contents_give(models: dict[str, Path], shape: str) -> None:
    encoder = encoder_for(models[shape], "sentence-transformers")
    alone = np.concatenate([vectors(encoder, text=[text]) for text in TEXTS])
    assert np.abs(alone - vectors(encoder, text=TEXTS)).max() <= 2e-6


def test_preprocess_needs_no_weights(models: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(models["qwen"], bare, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = encoder_for(bare, "sentence-transformers").preprocess({"text": TEXTS}, EncodeContext("query", "find: "))
    full = upstream(models["qwen"]).preprocess(TEXTS, prompt="find: ")
    assert np.array_equal(tensors["input_ids"], full["input_ids"].numpy())
    assert (tensors["attention_mask"][1] == 0).any() and tensors["attention_mask"][1][-1] == 1, "padding on the left"
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        encoder_for(bare, "sentence-transformers").load()


def test_a_prompt_left_out_of_pooling(models: dict[str, Path], tmp_path: Path) -> None:
    model = upstream(models["gemma"])
    model.set_pooling_include_prompt(False)
    model.save(str(tmp_path / "m"), create_model_card=False)
    ours = vectors(encoder_for(tmp_path / "m", "sentence-transformers"), prompt="a long prompt: ", text=TEXTS)
    assert_same_directions(ours, model.encode(TEXTS, prompt="a long prompt: "), max_difference=1e-6)
    kept = vectors(encoder_for(models["gemma"], "sentence-transformers"), prompt="a long prompt: ", text=TEXTS)
    assert np.abs(ours - kept).max() > 1e-3


@pytest.mark.parametrize(("pooling", "mode"), [("cls", "cls"), ("mean", "mean"), ("last", "lasttoken")])
def test_pooling_is_replaced(models: dict[str, Path], pooling: str, mode: str) -> None:
    model = upstream(models["qwen"])
    model[1].pooling_mode = mode
    ours = vectors(encoder_for(models["qwen"], "sentence-transformers", pooling=pooling), text=TEXTS)
    assert_same_directions(ours, model.encode(TEXTS), max_difference=1e-6)


def test_fewer_dimensions_keep_the_librarys_cosines(models: dict[str, Path]) -> None:
    ours = vectors(encoder_for(models["gemma"], "sentence-transformers", embedding_dim=8), text=TEXTS)
    theirs = upstream(models["gemma"], truncate_dim=8).encode(TEXTS, normalize_embeddings=True)
    assert_same_directions(ours, theirs, max_difference=1e-6)


@pytest.fixture(scope="module")
def full_width(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EmbeddingGemma's 768 dimensions."""
    save_sentence(tmp_path_factory.mktemp("embeddinggemma"), "gemma", width=768)
    return tmp_path_factory.getbasetemp() / "embeddinggemma0" / "model"


@pytest.mark.parametrize("dim", [768, 512, 256, 128])
def test_embeddinggemmas_published_dimensions(full_width: Path, dim: int) -> None:
    ours = vectors(encoder_for(full_width, "sentence-transformers", embedding_dim=dim), "query", text=TEXTS)
    theirs = upstream(full_width, truncate_dim=dim).encode_query(TEXTS, normalize_embeddings=True)
    assert ours.shape == (len(TEXTS), dim)
    assert_same_directions(ours, theirs, max_difference=1e-6)
    assert np.linalg.norm(ours, axis=1) == pytest.approx(1, abs=1e-5)


def test_embeddinggemma_by_hand(full_width: Path) -> None:
    """The backbone's states, mean over all tokens of prompt and text, two matrices without bias, length 1: one text at
    a time, from transformers' model and the tensors in the files. Each step is needed for the result."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, Gemma3TextModel

    tokenizer, model = AutoTokenizer.from_pretrained(full_width), Gemma3TextModel.from_pretrained(full_width).eval()
    first, second = (load_file(full_width / f"{n}_Dense" / "model.safetensors")["linear.weight"] for n in (2, 3))
    assert model.config.use_bidirectional_attention and (first.shape, second.shape) == ((48, 32), (768, 48))
    rows = []
    for text in TEXTS:
        inputs = tokenizer("task: search | query: " + text, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            mean = model(**inputs).last_hidden_state[0].mean(dim=0)
        rows.append(torch.nn.functional.normalize(second @ (first @ mean), dim=0).numpy())
    ours = vectors(encoder_for(full_width, "sentence-transformers"), "query", text=TEXTS)
    assert_same_directions(ours, np.stack(rows), max_difference=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dim", [None, 16])
def test_qwen_takes_the_last_real_token_under_any_padding(
    models: dict[str, Path], side: str, dim: int | None, tmp_path: Path
) -> None:
    """By hand from transformers' model, one text at a time: without padding, the last state is the last token's."""
    import shutil

    import torch
    from transformers import AutoTokenizer, Qwen3Model

    folder = shutil.copytree(models["qwen"], tmp_path / "qwen")
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "padding_side": side}))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), Qwen3Model.from_pretrained(folder).eval()
    rows = []
    for text in TEXTS:
        inputs = tokenizer("Instruct: find\nQuery:" + text, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            last = model(**inputs).last_hidden_state[0, -1, :dim]
        rows.append((last / last.norm()).numpy())
    encoder = encoder_for(folder, "qwen3-embedding", embedding_dim=dim)
    prompt = "Instruct: find\nQuery:"
    mask = encoder.preprocess({"text": TEXTS}, EncodeContext("query", prompt))["attention_mask"]
    assert mask[1, 0 if side == "left" else -1] == 0, "padded on that side"
    assert_same_directions(vectors(encoder, prompt=prompt, text=TEXTS), np.stack(rows), max_difference=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("shape", "position"), [("bge-m3", 0), ("gemma", None)])
def test_first_tokens_and_means_under_any_padding(
    models: dict[str, Path], shape: str, position: int | None, side: str, tmp_path: Path
) -> None:
    import shutil

    folder = shutil.copytree(models[shape], tmp_path / "copy")
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "padding_side": side}))
    alone = np.concatenate([upstream(models[shape]).encode([text]) for text in TEXTS])
    ours = vectors(encoder_for(folder, "sentence-transformers"), text=TEXTS)
    assert_same_directions(ours, alone, max_difference=2e-6)
    if position is not None:
        import torch
        from transformers import AutoTokenizer, XLMRobertaModel

        model = XLMRobertaModel.from_pretrained(folder).eval()
        inputs = AutoTokenizer.from_pretrained(folder)(TEXTS[0], return_tensors="pt")
        with torch.no_grad():
            state = model(**inputs).last_hidden_state[0, position]
        assert_same_directions(ours[:1], (state / state.norm()).numpy()[None], max_difference=1e-6)


@pytest.mark.parametrize(
    ("shape", "dim", "expected"),
    [
        ("gemma", 64, "has 1 to 32, the width of its vectors"),
        ("qwen", 33, "has 1 to 32"),
        ("bge-m3", 0, "has 1 to 32"),
        ("qwen", -1, "--embedding-dim is -1"),
    ],
)
def test_dimensions_that_cannot_be_are_refused_at_once(
    models: dict[str, Path], shape: str, dim: int, expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        encoder_for(models[shape], "sentence-transformers", embedding_dim=dim)


def test_the_width_is_that_of_the_last_dense_layer(full_width: Path) -> None:
    with pytest.raises(UserError, match=r"--embedding-dim is 769; .* has 1 to 768, the width of its vectors"):
        encoder_for(full_width, "sentence-transformers", embedding_dim=769)
    with pytest.raises(UserError, match=r"--embedding-dim is 1025; Qwen/Qwen3-Embedding-0\.6B has 1 to 1024"):
        encoder_for("Qwen/Qwen3-Embedding-0.6B", "qwen3-embedding", embedding_dim=1025)
    assert encoder_for("google/embeddinggemma-300m", "sentence-transformers", embedding_dim=256)


def test_half_precision_gives_float16(models: dict[str, Path]) -> None:
    ours = encoder_for(models["bge-m3"], "sentence-transformers", dtype="bfloat16").encode(
        {"text": TEXTS}, EncodeContext(None)
    )
    assert ours.values.dtype == np.float16
    exact = vectors(encoder_for(models["bge-m3"], "sentence-transformers"), text=TEXTS)
    cosine = (ours.values.astype(np.float32) * exact).sum(axis=1) / np.linalg.norm(ours.values.astype("f4"), axis=1)
    assert cosine.min() >= 0.999


def test_prompts_are_chosen_as_mteb_chooses_them(models: dict[str, Path]) -> None:
    retrieval: Any = SimpleNamespace(name="Made", type="Retrieval", prompt=None)
    sts: Any = SimpleNamespace(name="Other", type="STS", prompt=None)
    gemma = encoder_for(models["gemma"], "sentence-transformers")
    assert gemma.context(retrieval, "query").prompt == "task: search | query: "
    assert gemma.context(retrieval, "document").prompt == "title: none | text: "
    assert gemma.context(retrieval, None).prompt == ""
    assert gemma.context(sts, None).prompt == "similar: "
    assert gemma.context(sts, "query").prompt == "similar: ", "the task's type goes before the role"
    assert encoder_for(models["bge-m3"], "sentence-transformers").context(retrieval, "query").prompt == ""


def test_the_prompt_is_the_one_that_mtebs_wrapper_passes_on(models: dict[str, Path]) -> None:
    """MTEB's own wrapper over the same checkpoint, on one of its mock tasks, both roles: the same vectors."""
    from datasets import Dataset
    from mteb._create_dataloaders import create_dataloader
    from mteb.mocks.mock_tasks import MockRetrievalTask
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
    from mteb.types import PromptType

    task: Any = MockRetrievalTask().metadata
    wrapper = SentenceTransformerEncoderWrapper(str(models["gemma"]), device="cpu")
    encoder = encoder_for(models["gemma"], "sentence-transformers")
    rows = Dataset.from_dict({"id": ["a", "b"], "text": TEXTS[2:4]})
    for role in ("query", "document"):
        loader = create_dataloader(rows, task_metadata=task, prompt_type=PromptType(role))
        theirs: Any = wrapper.encode(
            loader, task_metadata=task, hf_split="test", hf_subset="default", prompt_type=PromptType(role)
        )
        ours = encoder.encode({"text": TEXTS[2:4]}, encoder.context(task, role)).dense()
        assert_same_directions(ours, np.asarray(theirs), max_difference=1e-6)


def test_qwens_instruction_is_mtebs(models: dict[str, Path]) -> None:
    import mteb
    from mteb.models.model_implementations.qwen3_models import instruction_template

    task = mteb.get_task("NFCorpus").metadata
    encoder = encoder_for(models["qwen"], "qwen3-embedding")
    text: Any = task.prompt
    assert encoder.context(task, "query").prompt == instruction_template(text["query"])
    assert encoder.context(task, "query").prompt.startswith("Instruct: Given a question")
    assert encoder.context(task, "document").prompt == ""
    asked = encoder_for(models["qwen"], "qwen3-embedding", query_prompt="find: ", document_prompt="page: ")
    assert [asked.context(task, role).prompt for role in ("query", "document")] == ["find: ", "page: "]


EMBEDDINGGEMMA_PROMPTS = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "BitextMining": "task: search result | query: ",
    "Clustering": "task: clustering | query: ",
    "Classification": "task: classification | query: ",
    "InstructionRetrieval": "task: code retrieval | query: ",
    "MultilabelClassification": "task: classification | query: ",
    "PairClassification": "task: sentence similarity | query: ",
    "Reranking": "task: search result | query: ",
    "Retrieval": "task: search result | query: ",
    "Retrieval-query": "task: search result | query: ",
    "Retrieval-document": "title: none | text: ",
    "STS": "task: sentence similarity | query: ",
    "Summarization": "task: summarization | query: ",
}
"""What the published model's config_sentence_transformers.json says; MTEB takes its prompts from there."""


@pytest.mark.parametrize(
    ("task", "role", "prompt"),
    [
        ("NFCorpus", "query", "task: search result | query: "),
        ("NFCorpus", "document", "title: none | text: "),
        ("Banking77Classification", None, "task: classification | query: "),
        ("STS12", None, "task: sentence similarity | query: "),
        ("TwentyNewsgroupsClustering.v2", None, "task: clustering | query: "),
        ("SummEvalSummarization.v2", None, "task: summarization | query: "),
    ],
)
def test_embeddinggemmas_prompts_per_task(full_width: Path, task: str, role: Any, prompt: str, tmp_path: Path) -> None:
    import shutil

    import mteb
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
    from mteb.types import PromptType

    folder = shutil.copytree(full_width, tmp_path / "copy")
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prompts": EMBEDDINGGEMMA_PROMPTS}))
    metadata = mteb.get_task(task).metadata
    assert encoder_for(folder, "sentence-transformers").context(metadata, role).prompt == prompt
    wrapper = SentenceTransformerEncoderWrapper(str(folder), device="cpu")
    name = wrapper.get_prompt_name(metadata, PromptType(role) if role else None)
    assert (wrapper.model_prompts or {})[name] == prompt, "MTEB's own choice"


def test_without_a_task_the_models_own_prompt_for_the_role_is_taken(models: dict[str, Path]) -> None:
    for shape, family_name in (("gemma", "sentence-transformers"), ("qwen", "qwen3-embedding")):
        encoder = encoder_for(models[shape], family_name)
        assert encoder.context(None, "query").prompt == "task: search | query: "
        assert encoder.context(None, "document").prompt == "title: none | text: "
    assert encoder_for(models["bge-m3"], "sentence-transformers").context(None, "query").prompt == ""


def test_an_adapter_is_that_of_peft(models: dict[str, Path], tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    with seeded(5):
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        trained: Any = get_peft_model(upstream(models["qwen"])[0].model, config)
    trained.save_pretrained(tmp_path / "lora")
    theirs = upstream(models["qwen"])
    theirs[0].model = PeftModel.from_pretrained(theirs[0].model, str(tmp_path / "lora"))
    ours = vectors(encoder_for(models["qwen"], "sentence-transformers", adapter=str(tmp_path / "lora")), text=TEXTS)
    assert_same_directions(ours, theirs.encode(TEXTS), max_difference=2e-6)
    assert np.abs(ours - vectors(encoder_for(models["qwen"], "sentence-transformers"), text=TEXTS)).max() > 1e-2
    with pytest.raises(UserError, match="does not fit XLMRobertaModel"):
        encoder_for(models["bge-m3"], "sentence-transformers", adapter=str(tmp_path / "lora")).load()


def test_an_adapter_made_for_more_layers_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    """peft itself only warns about weights that find no place, and would score a half-adapted model."""
    import transformers as t
    from peft import LoraConfig, get_peft_model

    config = t.AutoConfig.from_pretrained(models["qwen"])
    config.num_hidden_layers, config.layer_types = 4, ["full_attention"] * 4
    trained: Any = get_peft_model(t.Qwen3Model(config), LoraConfig(r=4, target_modules=["q_proj"]))
    trained.save_pretrained(tmp_path / "lora")
    with pytest.raises(UserError, match=r"no place for, such as .*layers\.2"):
        encoder_for(models["qwen"], "sentence-transformers", adapter=str(tmp_path / "lora")).load()


def test_the_fingerprint_follows_what_decides_a_vector_and_nothing_else(
    models: dict[str, Path], tmp_path: Path
) -> None:
    import shutil

    def fingerprint(folder: Path = models["gemma"], **options: Any) -> str:
        return encoder_for(folder, "sentence-transformers", **options).fingerprint

    shutil.copytree(models["gemma"], tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("notes")
    assert fingerprint() == fingerprint(tmp_path / "copy") == fingerprint(device="cpu") == fingerprint(dtype="float32")
    other = [fingerprint(dtype="float16"), fingerprint(pooling="cls"), fingerprint(embedding_dim=8)]
    other += [fingerprint(models["qwen"]), fingerprint(adapter=str(models["qwen"])), fingerprint()]
    assert len(set(other)) == len(other)
    settings = tmp_path / "copy" / "1_Pooling" / "config.json"
    settings.write_text(settings.read_text().replace("mean", "max"))
    assert fingerprint(tmp_path / "copy") != fingerprint()


def test_options_that_it_does_not_have_are_refused(models: dict[str, Path]) -> None:
    with pytest.raises(UnsupportedOptionError, match="has no option --max-pixels"):
        encoder_for(models["gemma"], "sentence-transformers", max_pixels=100)
    with pytest.raises(UserError, match="--pooling is 'middle'; expected one of cls, mean, last"):
        encoder_for(models["gemma"], "sentence-transformers", pooling="middle")
    with pytest.raises(UserError, match="--dtype is 'int8'; expected one of float32, float16, bfloat16"):
        encoder_for(models["gemma"], "sentence-transformers", dtype="int8")


def test_the_similarity_is_the_models(models: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(models["bge-m3"], tmp_path / "dot")
    path = tmp_path / "dot" / "config_sentence_transformers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "similarity_fn_name": "dot"}))
    assert encoder_for(models["bge-m3"], "sentence-transformers").similarity == "cosine"
    assert encoder_for(tmp_path / "dot", "sentence-transformers").similarity == "dot"


def test_it_pickles_before_and_after_loading(models: dict[str, Path]) -> None:
    encoder = SentenceEncoder(ModelSpec(str(models["gemma"])), family("sentence-transformers"))
    fresh = pickle.dumps(encoder)
    before = vectors(encoder, text=TEXTS)
    loaded = pickle.dumps(encoder)
    assert len(loaded) < len(fresh) + 5_000, "weights stay behind"
    for data in (fresh, loaded):
        assert np.array_equal(vectors(pickle.loads(data), text=TEXTS), before)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mask_without_the_prompt_is_the_librarys(side: str) -> None:
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    from raylib.models.sentence_modules import prompt_free_mask

    lengths = torch.tensor([[7], [4], [6]])
    places = torch.arange(7).unsqueeze(0)
    mask = (places < lengths if side == "right" else places >= 7 - lengths).to(torch.int64)
    theirs = Pooling._exclude_prompt_from_mask(mask, 3)
    assert torch.equal(prompt_free_mask(mask, 3), theirs) and theirs.sum(dim=1).tolist() == [4, 1, 3]
