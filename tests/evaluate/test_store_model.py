"""The MTEB model over the store: what it gives MTEB, what it encodes for that, and what it does with bad contents."""

import json
from pathlib import Path

import datasets
import mteb
import numpy as np
import pytest
from mteb._create_dataloaders import create_dataloader
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta
from mteb.models.search_wrappers import SearchEncoderWrapper
from mteb.types import PromptType

from raylib.errors import BadContentsError, UserError
from raylib.evaluate.encode import encode_locally
from raylib.evaluate.model import StoreModel
from raylib.evaluate.plan import Plan
from raylib.evaluate.sources import retrieval_source
from raylib.store.embeddings import Shelf
from tests.evaluate.made import Letters, Words, by_hand

METADATA = mteb.get_task("NFCorpus").metadata
WHERE = {"task_metadata": METADATA, "hf_split": "test", "hf_subset": "default"}


def table(ids, texts):
    kinds = datasets.Features({"id": datasets.Value("string"), "text": datasets.Value("string")})
    return datasets.Dataset.from_dict({"id": list(ids), "text": list(texts)}, kinds)


@pytest.fixture
def model(tmp_path):
    def make(encoder=None, **settings):
        encoder = encoder or Letters()
        return StoreModel(encoder, Shelf(str(tmp_path / "store"), encoder.fingerprint), encode_locally, **settings)

    return make


def encode(model, texts, role=None):
    rows = table(map(str, range(len(texts))), texts)
    loader = create_dataloader(rows, task_metadata=METADATA, prompt_type=role, batch_size=2)
    return model.encode(loader, prompt_type=role, **WHERE)


def search(model, corpus, queries, top_k=10, **settings):
    model.index(corpus, encode_kwargs={}, num_proc=None, **WHERE)
    return model.search(queries, top_k=top_k, encode_kwargs={}, **settings, **WHERE)


CORPUS = table(["d9", "d10", "d2", "d7"], ["aab", "b", "c a", "aab"])
QUERIES = table(["q2", "q1"], ["a", "bbc"])


def test_encode_gives_vectors_in_the_order_of_the_inputs(model):
    vectors = encode(model(), ["b", "aaa", "b", "cab"])
    assert vectors.dtype == np.float32 and vectors.tolist() == [by_hand(t) for t in ("b", "aaa", "b", "cab")]


def test_encode_gives_late_interaction_one_tensor_each(model):
    tensors = encode(model(Words()), ["a b", "c"])
    assert [t.tolist() for t in tensors] == [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1]]]


def test_what_is_stored_is_not_encoded_again(model):
    first = model()
    encode(first, ["a", "b", "a"])
    encode(first, ["b", "c"])
    assert first.encoder.encoded == 3 and first.report.encoded == 3
    second = model()
    assert encode(second, ["c", "a"]).tolist() == [by_hand("c"), by_hand("a")]
    assert second.encoder.encoded == 0
    encode(second, ["a"], PromptType.query)
    assert second.encoder.encoded == 1, "a query is not a document"


def test_encode_has_no_vector_for_a_bad_content_and_names_it(model):
    with pytest.raises(BadContentsError, match="NFCorpus/test/default inputs 1: preprocessing failed") as caught:
        encode(model(allow_bad=True), ["a", "crash", "b"])
    assert [bad.item_id for bad in caught.value.bad] == ["1"]


def cosine(query, document):
    one, other = np.array(by_hand(query)), np.array(by_hand(document))
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def test_search_ranks_every_document_with_ties_by_id(model):
    found = search(model(), CORPUS, QUERIES)
    assert list(found) == ["q2", "q1"], "in the order of the queries"
    assert list(found["q2"]) == ["d9", "d7", "d2", "d10"], "of two copies the greater id, as text, is first"
    for query_id, text in zip(QUERIES["id"], QUERIES["text"], strict=True):
        for document_id, document in zip(CORPUS["id"], CORPUS["text"], strict=True):
            assert found[query_id][document_id] == pytest.approx(cosine(text, document), abs=1e-6)


def test_search_gives_no_more_than_asked_for(model):
    assert {q: list(d) for q, d in search(model(), CORPUS, QUERIES, top_k=1).items()} == {"q2": ["d9"], "q1": ["d10"]}


def test_late_interaction_sums_the_best_token_of_each_query_token(model):
    found = search(model(Words()), table(["x", "y"], ["a bb", "ab"]), table(["q"], ["a b"]))
    assert found == {"q": {"x": 3.0, "y": 2.0}}  # 1 + 2, and 1 + 1


class Plain(AbsEncoder):
    """The same vectors by MTEB's own ways."""

    mteb_model_meta = ModelMeta.create_empty({"name": "made/plain", "revision": "1"})

    def encode(self, inputs, **kwargs):
        return np.array([by_hand(text) for batch in inputs for text in batch["text"]], dtype=np.float32)


@pytest.mark.parametrize("candidates", [None, {"q2": ["d10", "d2"], "q1": ["d7", "d9", "d10"]}])
def test_mtebs_own_search_finds_the_same(model, candidates):
    wrapper = SearchEncoderWrapper(Plain())
    wrapper.index(CORPUS, encode_kwargs={}, num_proc=None, **WHERE)
    theirs = wrapper.search(QUERIES, top_k=10, encode_kwargs={}, top_ranked=candidates, num_proc=None, **WHERE)
    ours = search(model(), CORPUS, QUERIES, top_ranked=candidates)
    assert ours.keys() == theirs.keys()
    for query_id, documents in theirs.items():
        assert ours[query_id] == pytest.approx(documents, abs=1e-6)


def test_equal_contents_are_encoded_once(model):
    made = model()
    search(made, CORPUS, table(["q1", "q2", "q3"], ["a", "b", "a"]))
    assert made.encoder.encoded == 3 + 2
    search(made, CORPUS, QUERIES)
    assert made.encoder.encoded == 5 + 1, "only the query that is new"


def test_search_needs_an_index_first(model):
    with pytest.raises(UserError, match="search was called before index"):
        model().search(QUERIES, top_k=1, **WHERE)


BAD_CORPUS, BAD_QUERIES = table(["d1", "d2", "d3"], ["a", "crash", "b"]), table(["q1", "q2"], ["", "b"])


def test_bad_contents_are_an_error_that_names_them(model):
    with pytest.raises(BadContentsError, match="NFCorpus/test/default query q1: the text is empty"):
        search(model(), CORPUS, BAD_QUERIES)
    with pytest.raises(BadContentsError, match="NFCorpus/test/default document d2: preprocessing failed"):
        search(model(), BAD_CORPUS, QUERIES)


def test_allowed_bad_contents_find_nothing_and_are_never_found(model):
    made = model(allow_bad=True)
    found = search(made, BAD_CORPUS, BAD_QUERIES)
    assert list(found) == ["q1", "q2"] and found["q1"] == {} and list(found["q2"]) == ["d3", "d1"]
    assert {bad.item_id for bad in made.bad.values()} == {"q1", "d2"}


@pytest.mark.parametrize(("corpus", "queries"), [(["crash"], ["a"]), (["a"], [""])])
def test_with_no_usable_side_nothing_is_found(model, corpus, queries):
    assert search(model(allow_bad=True), table(["d"], corpus), table(["q"], queries)) == {"q": {}}


def test_a_bad_content_is_tried_once_a_run(model):
    made = model(allow_bad=True)
    calls = []
    made.stage = lambda encoder, batches, *rest: (
        calls.append(sum(map(len, batches))) or encode_locally(encoder, batches, *rest)
    )
    search(made, BAD_CORPUS, BAD_QUERIES)
    search(made, BAD_CORPUS, BAD_QUERIES)
    assert calls == [5]


def test_what_was_planned_is_not_read_again(model):
    plan = Plan(Letters())
    sides = {"query": QUERIES, "document": CORPUS}
    planned = {}
    for role, data in sides.items():
        source = retrieval_source(data, METADATA, role, name=role)
        context = plan.encoder.context(METADATA, role, split="test", subset="default")
        planned[("NFCorpus", "test", "default", role)] = (source.ids, plan.add(source, context))
    expected = search(model(), CORPUS, QUERIES)

    made = model(planned=planned)
    texts_removed = [data.map(lambda row: {"text": "never read"}) for data in (CORPUS, QUERIES)]
    assert search(made, *texts_removed) == expected, "keys stand for contents"

    fewer = CORPUS.select([0, 1])
    assert search(model(planned=planned), fewer, QUERIES)["q2"].keys() == {"d9", "d10"}, (
        "a plan of other rows is not used"
    )


def test_the_encoder_describes_its_shelf(model):
    made = model()
    encode(made, ["a"])
    described = json.loads(Path(made.shelf.folder, "encoder.json").read_text())
    assert described["identity"] == {"made": "Letters", "name": "made/letters"}


def test_metadata_names_the_model_and_its_similarity(model):
    meta = model(Words(name="tests.evaluate.made:words"), experiment={"limit": 3}).mteb_model_meta
    assert meta.name == "local/tests.evaluate.made.words" and meta.similarity_fn_name.value == "MaxSim"
    assert meta.experiment_kwargs == {"limit": 3} and meta.modalities == ["image", "text"]
