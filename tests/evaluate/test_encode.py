"""The encode stage: one bad content costs itself only, memory is found by halving, and no wrong vector is stored."""

import io
import threading
import time

import datasets
import numpy as np
import pytest
from PIL import Image

from raylib.errors import ModelError, RefusedContentsError, UserError
from raylib.evaluate import encode as module
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import Encoded, EncodeReport, WriteBuffer, encode_locally, is_out_of_memory, run_forward
from raylib.evaluate.plan import Plan
from raylib.evaluate.prepare import Prepared, prepare
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings, EncodeContext
from tests.evaluate.made import Letters, Words, by_hand

CONTEXT = EncodeContext("query")


def texts(*values, required="text"):
    data = datasets.Dataset.from_dict({"text": list(values)}, datasets.Features({"text": datasets.Value("string")}))
    return Source("T/test/default query", [f"q{i}" for i in range(len(values))], data, required=required)


def picture(colour):
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(stream, "PNG")
    return stream.getvalue()


def images(*cells):
    return Source(
        "T/test/default document",
        [f"d{i}" for i in range(len(cells))],
        None,
        datasets.Dataset.from_dict({"image": list(cells)}),
    )


class Kept(Shelf):
    """A shelf in memory that remembers each write."""

    def __init__(self):
        super().__init__("nowhere", "0" * 64)
        self.found, self.writes = {}, 0

    def write(self, keys, embeddings):
        assert not set(keys) & set(self.found), "nothing is encoded twice"
        self.found.update(zip(keys, embeddings, strict=True))
        self.writes += 1
        return "part"


def encoded(encoder, source, batch_size=4):
    """(report, text or row → vector): the source through the whole stage."""
    plan, shelf = Plan(encoder), Kept()
    keys = plan.add(source, CONTEXT)
    report = encode_locally(encoder, plan.batches(batch_size), plan.sources, shelf)
    return report, {i: shelf.found[key][0].tolist() for i, key in enumerate(keys) if key in shelf.found}


def whole(encoder, source, batch_size=64):
    """The source as one batch, and the sources it is read from."""
    plan = Plan(encoder)
    plan.add(source, CONTEXT)
    (batch,) = plan.batches(batch_size)
    return batch, plan.sources


def test_every_content_gets_the_vector_of_its_own():
    words = ["a", "bb", "abc", "cab a", "b", "aaaa", "cc c"]
    encoder = Letters()
    done = []
    plan, shelf = Plan(encoder), Kept()
    keys = plan.add(texts(*words, "a"), CONTEXT)

    report = encode_locally(encoder, plan.batches(3), plan.sources, shelf, lambda n, bad=0: done.append((n, bad)))

    assert [shelf.found[key][0].tolist() for key in keys] == [by_hand(word) for word in [*words, "a"]]
    assert report.encoded == encoder.encoded == 7 and encoder.batches == [3, 3, 1]
    assert report.bad == [] and report.notes == [] and done == [(3, 0), (3, 0), (1, 0)]


def test_the_next_batch_is_prepared_in_another_thread():
    threads = set()

    class Watched(Letters):
        def preprocess(self, batch, context):
            threads.add(threading.current_thread().name)
            return super().preprocess(batch, context)

    encoded(Watched(), texts("a", "b", "c"), batch_size=1)
    assert all(name.startswith("prepare") for name in threads)


def test_several_threads_read_at_once_preprocess_in_turn_and_keep_the_order(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    both, inside = threading.Barrier(2, timeout=20), []

    class Waiting(Source):
        def rows(self, indices, fields=None):
            if threading.current_thread().name.startswith("prepare"):
                both.wait()  # goes on when a second thread reads too; BrokenBarrierError where there is none
            return super().rows(indices, fields)

    class Alone(Letters):
        def preprocess(self, batch, context):
            inside.append(threading.current_thread().name)
            time.sleep(0.01)
            tensors = super().preprocess(batch, context)
            assert inside.pop() == threading.current_thread().name and not inside, "two threads preprocess at once"
            return tensors

    words = ["a", "bb", "abc", "cab", "ca", "b"]
    plain = texts(*words)
    encoder = Alone()
    _, vectors = encoded(encoder, Waiting(plain.name, plain.ids, plain.texts, required="text"), batch_size=1)
    assert vectors == {i: by_hand(word) for i, word in enumerate(words)}
    assert encoder.batches == [1] * 6


BAD_IMAGES = {"missing": None, "empty": b"", "cut": picture("red")[:50], "text": b"no picture"}


@pytest.mark.parametrize("bad", BAD_IMAGES)
def test_one_bad_image_does_not_cost_the_others_of_its_batch(bad):
    source = images(picture("#ff0000"), BAD_IMAGES[bad], picture("#0000ff"))
    report, vectors = encoded(Letters(), source)
    assert vectors == {0: [1, 0, 0, 1], 2: [0, 0, 1, 1]}
    (content,) = report.bad
    assert (content.source, content.item_id) == ("T/test/default document", "d1")
    assert content.key == Plan(Letters()).add(source, CONTEXT)[1].hex()
    assert {"missing": "None", "empty": "empty", "cut": "truncated", "text": "no known format"}[bad] in content.reason


def test_empty_and_missing_queries_are_reported_with_their_ids():
    report, vectors = encoded(Letters(), texts("a", "", "b", None, "  "))
    assert vectors == {0: by_hand("a"), 2: by_hand("b")} and report.encoded == 2
    assert {b.item_id: b.reason for b in report.bad} == {
        "q1": "the text is empty",
        "q3": "the text is NoneType, expected str",
        "q4": "the text is empty",
    }


def test_an_empty_document_is_no_error():
    report, vectors = encoded(Letters(), texts("a", "", required=None))
    assert report.bad == [] and vectors[1] == [0, 0, 0, 1]


def test_a_batch_of_bad_contents_reaches_no_model():
    encoder = Letters()
    report, vectors = encoded(encoder, texts("", " ", "  "))
    assert len(report.bad) == 3 and vectors == {} and encoder.batches == []


def test_a_content_that_breaks_preprocessing_is_found_and_the_rest_encoded():
    encoder = Letters()
    report, vectors = encoded(encoder, texts("a", "crash here", "b", "", "c"), batch_size=5)
    assert vectors == {0: by_hand("a"), 2: by_hand("b"), 4: by_hand("c")} and encoder.batches == [3]
    reasons = {b.item_id: b.reason for b in report.bad}
    assert reasons.keys() == {"q1", "q3"} and reasons["q3"] == "the text is empty"
    assert reasons["q1"] == "preprocessing failed: RuntimeError: cannot tokenise a batch of 1"


def test_preprocessing_that_fails_for_a_batch_of_one_is_that_contents_fault():
    report, vectors = encoded(Letters(), texts("a", "crash", "b"), batch_size=1)
    assert vectors.keys() == {0, 2} and [b.item_id for b in report.bad] == ["q1"]


def test_preprocessing_that_fails_for_all_is_the_models_fault():
    with pytest.raises(ModelError, match="made/letters: preprocessing failed for a batch of 3: RuntimeError: cannot"):
        encoded(Letters(), texts("crash 1", "crash 2", "crash 3"))


def test_preprocessing_that_fails_for_none_alone_is_the_models_fault():
    class OneAtATime(Letters):
        def preprocess(self, batch, context):
            if len(batch["text"]) > 1:
                raise ValueError("shapes differ")
            return super().preprocess(batch, context)

    with pytest.raises(ModelError, match="failed for a batch of 2: ValueError: shapes differ"):
        encoded(OneAtATime(), texts("a", "b"))


@pytest.mark.parametrize("fits", [1, 2, 3, 7])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(fits):
    words = ["a" * i + "b" for i in range(9)]
    plenty, short = Letters(), Letters(fits=fits)
    expected = encoded(plenty, texts(*words), batch_size=9)[1]

    report, vectors = encoded(short, texts(*words), batch_size=9)

    assert vectors == expected == {i: by_hand(word) for i, word in enumerate(words)}
    assert max(short.batches) <= fits and sum(short.batches) == 9
    first = (
        "made/letters: out of memory with 9 contents, batch halved to 5 (CUDA out of memory. Tried to allocate 3 GiB)"
    )
    assert report.notes[0] == first


def test_a_note_is_given_once_however_many_batches_were_halved():
    report, _ = encoded(Letters(fits=2), texts(*(f"{i} a" for i in range(20))), batch_size=4)
    assert len(report.notes) == 1 and "halved to 2" in report.notes[0]


def test_a_content_that_never_fits_names_the_model():
    with pytest.raises(ModelError, match=r"made/letters: one content alone does not fit in memory .*--max-pixels"):
        encoded(Letters(fits=0), texts("a", "b", "c"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (np._core._exceptions._ArrayMemoryError((10**9,), np.dtype("f4")), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 12 bytes"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_the_ways_to_say_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_another_error_of_the_forward_is_raised_as_it_is():
    class Failing(Letters):
        def forward(self, tensors):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        encoded(Failing(), texts("a"))


def test_nan_names_the_model_and_nothing_of_its_batch_is_stored():
    encoder, shelf = Letters(), Kept()
    plan = Plan(encoder)
    keys = plan.add(texts("aaaa", "aaa", "nan", "b"), CONTEXT)
    with pytest.raises(ModelError, match=r"^made/letters gave NaN or infinite embeddings for 1 of 2 contents"):
        encode_locally(encoder, plan.batches(2), plan.sources, shelf)
    assert shelf.found.keys() == {keys[0], keys[1]}, "what was encoded before is kept"


def test_infinity_and_the_contents_of_late_interaction_are_counted():
    values = np.ones((6, 2), np.float32)
    values[[1, 2, 5], 0] = np.inf, np.nan, -np.inf

    class Given(Letters):
        def forward(self, tensors):
            return Embeddings(values, np.array([0, 3, 4, 6]))

    with pytest.raises(ModelError, match="for 2 of 3 contents"):
        run_forward(Given(), Prepared([b"1", b"2", b"3"], {"x": np.zeros(3)}))


@pytest.mark.parametrize("n", [1, 3])
def test_a_wrong_number_of_vectors_is_never_stored(n):
    class Given(Letters):
        def forward(self, tensors):
            return Embeddings.from_dense(np.ones((n, 2), np.float32))

    with pytest.raises(ModelError, match=f"made/letters gave {n} embeddings for 2 contents"):
        encoded(Given(), texts("a", "b"))


def test_a_content_without_tokens_is_the_models_fault():
    with pytest.raises(ModelError, match="made/letters gave a content no vector at all"):
        encoded(Words(), texts("a b", "void"))


def test_late_interaction_keeps_every_token():
    plan, shelf = Plan(Words()), Kept()
    keys = plan.add(texts("ab c", "a"), CONTEXT)
    encode_locally(plan.encoder, plan.batches(4), plan.sources, shelf)
    assert shelf.found[keys[0]].tolist() == [[1, 1, 0], [0, 0, 1]] and shelf.found[keys[1]].tolist() == [[1, 0, 0]]


def test_a_batch_may_hold_rows_of_several_sources():
    plan = Plan(Letters())
    keys = [*plan.add(texts("a", "bb"), CONTEXT), *plan.add(texts("ccc", ""), CONTEXT)]
    (batch,) = plan.batches(4)
    prepared = prepare(plan.encoder, batch, plan.sources)
    assert prepared.keys == [keys[2], keys[1], keys[0]], "longest first"
    assert prepared.tensors["counts"].tolist() == [[0, 0, 3], [0, 2, 0], [1, 0, 0]]
    assert [b.item_id for b in prepared.bad] == ["q1"]


def test_nothing_prepared_is_nothing_encoded():
    batch, sources = whole(Letters(), texts(""))
    result = run_forward(Letters(), prepare(Letters(), batch, sources))
    assert result.keys == [] and result.embeddings is None and len(result.bad) == 1


def one(number, width=1):
    return Encoded([number.to_bytes(32, "big")], Embeddings.from_dense(np.full((1, width), number, np.float32)))


def test_a_part_is_written_when_it_is_large_enough():
    shelf = Kept()
    buffer = WriteBuffer(shelf, max_bytes=12)
    for number in range(7):
        buffer.add(one(number))
    assert shelf.writes == 2 and len(shelf.found) == 6
    buffer.flush()
    buffer.flush()
    assert shelf.writes == 3 and [v[0, 0] for v in shelf.found.values()] == list(range(7))


def test_a_part_is_written_when_the_last_one_is_long_ago(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    shelf = Kept()
    buffer = WriteBuffer(shelf)
    for second in (1.0, 3.0, 6.0, 7.0):
        clock[0] = second
        buffer.add(one(int(second)))
    assert shelf.writes == 1 and len(shelf.found) == 3


def test_a_full_disk_ends_the_stage_with_its_reason():
    class Full(Kept):
        def write(self, keys, embeddings):
            raise UserError("cannot write part: No space left on device")

    plan = Plan(Letters())
    plan.add(texts("a", "b"), CONTEXT)
    with pytest.raises(UserError, match="No space left on device"):
        encode_locally(plan.encoder, plan.batches(1), plan.sources, Full())


def test_reports_add_up_and_repeat_no_note():
    total = EncodeReport(1, [], ["halved"], seconds=1.0)
    total.add(EncodeReport(2, [], ["halved", "slow"], seconds=2.0, startup_seconds=0.5))
    assert total.encoded == 3 and total.notes == ["halved", "slow"]
    assert total.seconds == 3.0 and total.startup_seconds == 0.5


class Choosy(Letters):
    """Refuses texts with an x in them, one forward at a time."""

    def preprocess(self, batch, context):
        return {**super().preprocess(batch, context), "text": np.array(batch["text"], dtype=object)}

    def forward(self, tensors):
        why = {i: f"no {text}" for i, text in enumerate(tensors["text"]) if "x" in text}
        kept = [i for i in range(len(tensors["text"])) if i not in why]
        rest = super().forward({name: array[kept] for name, array in tensors.items()}) if kept else None
        if why:
            raise RefusedContentsError(self.spec.name, why, rest)
        return rest


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_a_content_that_the_model_refuses_is_named_and_costs_itself_only(batch_size):
    report, found = encoded(Choosy(), texts("a", "x", "b", "bx", "cc"), batch_size)
    assert found == {0: by_hand("a"), 2: by_hand("b"), 4: by_hand("cc")}
    assert sorted((bad.source, bad.item_id, bad.reason) for bad in report.bad) == [
        ("T/test/default query", "q1", "no x"),
        ("T/test/default query", "q3", "no bx"),
    ]
    assert report.encoded == 3 and all(len(bad.key) == 64 for bad in report.bad)


def test_refusals_in_halves_are_counted_from_the_start_of_the_batch():
    class Small(Choosy):
        def forward(self, tensors):
            if len(tensors["text"]) > 2:
                raise MemoryError
            return super().forward(tensors)

    report, found = encoded(Small(), texts("xa", "b", "c", "xb", "cc"), 5)
    assert found == {1: by_hand("b"), 2: by_hand("c"), 4: by_hand("cc")}
    assert sorted(bad.item_id for bad in report.bad) == ["q0", "q3"]


class Beside(Letters):
    side_by_side = 3

    def __init__(self, together):
        super().__init__()
        self.together = together

    def forward(self, tensors):
        self.together.wait()
        if tensors["counts"][0, 1] == 2:
            raise ModelError("two b")
        return super().forward(tensors)


def test_batches_side_by_side_come_in_order():
    words = ["a", "b", "c", "aaa", "cc", "ab"]
    report, found = encoded(Beside(threading.Barrier(3, timeout=20)), texts(*words), batch_size=1)
    assert [found[i] for i in range(6)] == [by_hand(word) for word in words] and report.encoded == 6


def test_what_was_under_way_beside_a_batch_that_fails_is_stored():
    plan, shelf = Plan(Beside(threading.Barrier(3, timeout=20))), Kept()
    keys = plan.add(texts("bb", "a", "c"), CONTEXT)
    with pytest.raises(ModelError, match="two b"):
        encode_locally(plan.encoder, plan.batches(1), plan.sources, shelf)
    assert shelf.found.keys() == {keys[1], keys[2]}
