"""Exported graphs in both runtimes against torch, on tiny checkpoints of the five published architectures."""

from __future__ import annotations

import pickle
import shutil
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.errors import ModelError, UnknownNameError, UnsupportedOptionError, UserError
from raylib.models import export, graph_session
from raylib.models.export import Function, written_once
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.registry import resolve
from raylib.models.torch_encoder import DenseEncoder
from raylib.models.untrained import build_clip
from raylib.types import EncodeContext, Tensors

from .graphs import graph_encoder, shared_folder
from .helpers import TEXTS, encoder_for, pictures, save_sentence, save_siglip, vectors

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

Models = Callable[[str], Path]
SENTENCE = ("gemma", "qwen", "bge-m3")
CASES = [(name, ("text",)) for name in SENTENCE]
CASES += [(name, (part,)) for name in ("siglip", "clip") for part in ("text", "image")]
CASES += [("clip", ("text", "image"))]
each_case = pytest.mark.parametrize(
    ("name", "columns"), CASES, ids=lambda value: value if isinstance(value, str) else "+".join(value)
)
each_runtime = pytest.mark.parametrize("runtime", ["onnx", "openvino"])

LENGTHS = [*TEXTS, *("word " * n for n in (5, 9, 15, 17, 30, 40)), "y " * 60]
"""Past Gemma's window, which is 9 tokens to either side here, and up to the limit of all tokenizers."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    root = tmp_path_factory.mktemp("graphs")

    def built(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            folder.mkdir()
            if name in SENTENCE:
                save_sentence(folder, name)
            else:
                build_clip(folder) if name == "clip" else save_siglip(folder)
        return folder / "model" if name in SENTENCE else folder

    return built


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_folder(tmp_path_factory)


def torch_encoder(model: Path, **options: Any) -> DenseEncoder:
    found = resolve(ModelSpec(str(model), **options))
    assert isinstance(found, DenseEncoder)
    return found


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


def lowest_cosine(first: np.ndarray, second: np.ndarray) -> float:
    assert first.shape == second.shape
    return float((unit(first) * unit(second)).sum(axis=1).min())


def contents(columns: tuple[str, ...]) -> list[dict[str, list[Any]]]:
    """Batches of one, of some of one length and of many with padding."""
    everything: dict[str, list[Any]] = {"text": LENGTHS, "image": [*pictures(8), *pictures(7)]}
    parts = (slice(0, 15), slice(1, 2), slice(13, 14), slice(6, 7))
    batches = [{name: everything[name][part] for name in columns} for part in parts]
    return [*batches, {name: everything[name][5:6] * 4 for name in columns}]


@each_runtime
@each_case
def test_vectors_are_torchs(models: Models, exports: Path, name: str, columns: tuple[str, ...], runtime: str) -> None:
    plain, encoder = torch_encoder(models(name)), graph_encoder(models(name), exports, runtime)
    for batch in contents(columns):
        expected, found = vectors(plain, **batch), vectors(encoder, **batch)
        assert lowest_cosine(found, expected) >= 0.99999
        assert np.abs(found - unit(expected)).max() <= 2e-6, "of length 1: that is in the graph"


@each_runtime
@pytest.mark.parametrize("name", ["gemma", "qwen"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_that_padding_fills_past_the_window(
    models: Models, exports: Path, name: str, side: str, runtime: str
) -> None:
    """Their first tokens, or last ones, see nothing but padding: no NaN may come of it."""
    plain, encoder = torch_encoder(models(name)), graph_encoder(models(name), exports, runtime)
    plain.processor.tokenizer.padding_side = side
    tensors = plain.preprocess({"text": ["a", "one two", "word " * 60]}, EncodeContext(None))
    assert (tensors["attention_mask"] == 0).sum(axis=1).max() > 40
    expected, found = plain.forward(tensors).dense(), encoder.forward(tensors).dense()
    assert np.isfinite(found).all() and lowest_cosine(found, expected) >= 0.99999


@pytest.fixture
def exporting(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where graphs are written in this test."""
    found: list[Path] = []
    write = export.write_graph

    def counted(module: Any, example: Any, path: Any, axes: Any) -> None:
        found.append(Path(path))
        write(module, example, path, axes)

    monkeypatch.setattr(export, "write_graph", counted)
    return found


def test_a_graph_is_exported_once(
    models: Models, exports: Path, exporting: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = vectors(graph_encoder(models("bge-m3"), exports), text=TEXTS)
    exporting.clear()
    monkeypatch.setattr(DenseEncoder, "model", property(lambda self: pytest.fail("torch loads weights")))
    for runtime in ("onnx", "openvino"):
        encoder = pickle.loads(pickle.dumps(graph_encoder(models("bge-m3"), exports, runtime)))
        assert lowest_cosine(vectors(encoder, text=TEXTS), before) >= 0.99999
        again = pickle.loads(pickle.dumps(encoder))
        assert np.array_equal(vectors(again, text=TEXTS), vectors(encoder, text=TEXTS)), "after it was loaded, too"
    assert exporting == []


def test_of_processes_that_ask_at_once_one_writes(tmp_path: Path) -> None:
    started, calls = threading.Barrier(4), []

    def write(aside: Path) -> None:
        calls.append(aside)
        assert not (tmp_path / "graph").exists(), "it has its name when it is whole"
        (aside / "file").write_text("whole")

    def ask() -> None:
        started.wait()
        written_once(tmp_path / "graph", write)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and (tmp_path / "graph" / "file").read_text() == "whole"


def test_a_graph_that_could_not_be_finished_is_not_there(tmp_path: Path) -> None:
    def fail(aside: Path) -> None:
        (aside / "file").write_text("half")
        raise ModelError("no")

    with pytest.raises(ModelError):
        written_once(tmp_path / "graph", fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_planted_graph_is_what_runs(models: Models, exports: Path, tmp_path: Path) -> None:
    """So its vectors show that it is another model's: the gate of `raylib bench` lives by that."""
    mean = graph_encoder(models("bge-m3"), exports, pooling="mean")
    own = graph_encoder(models("bge-m3"), tmp_path)
    tensors = own.preprocess({"text": TEXTS}, EncodeContext(None))
    place = Path(own.folder, Function.of(own.inner, tensors).key("fp32"))
    shutil.copytree(mean.graph(tensors).parent, place)
    planted = own.forward(tensors).dense()
    assert np.array_equal(planted, mean.forward(tensors).dense())
    assert lowest_cosine(planted, torch_encoder(models("bge-m3")).forward(tensors).dense()) < 0.9999


def test_a_graph_that_is_not_torchs_function_is_refused(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export.write_graph

    def wrong(module: Any, example: Any, path: Any, axes: Any) -> None:
        import torch

        class Turned(torch.nn.Module):
            def forward(self, *inputs: Any) -> Any:
                return module(*inputs).roll(1, dims=-1)

        write(Turned(), example, path, axes)

    monkeypatch.setattr(export, "write_graph", wrong)
    encoder = graph_encoder(models("clip"), tmp_path)
    with pytest.raises(ModelError, match="the exported graph gives other vectors than torch"):
        vectors(encoder, image=pictures(2))
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_int8_is_near_and_smaller(models: Models, exports: Path, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("nncf")
    exact = vectors(torch_encoder(models("bge-m3")), text=LENGTHS)
    encoder = graph_encoder(models("bge-m3"), exports, runtime, precision="int8")
    found = vectors(encoder, text=LENGTHS)
    assert 0.995 <= lowest_cosine(found, exact) < 0.999999
    tensors = encoder.preprocess({"text": LENGTHS}, EncodeContext(None))
    sizes = [
        max(file.stat().st_size for file in path.parent.iterdir())
        for path in (encoder.graph(tensors), graph_encoder(models("bge-m3"), exports).graph(tensors))
    ]
    assert sizes[0] != sizes[1]


def test_bf16_is_near_where_the_processor_has_it(models: Models, exports: Path) -> None:
    import openvino

    encoder = graph_encoder(models("clip"), exports, "openvino", precision="bf16")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ModelError, match="has no bfloat16"):
            vectors(encoder, image=pictures())
        return
    exact = vectors(torch_encoder(models("clip")), image=pictures())
    assert 0.99 <= lowest_cosine(vectors(encoder, image=pictures()), exact) < 0.999999


@each_runtime
def test_threads_are_torchs_unless_told(
    models: Models, exports: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    seen: list[int] = []
    kind = type(graph_session.RUNTIMES[runtime])
    make = kind.session

    def session(self: Any, path: Path, precision: str, threads: int, device: str) -> Any:
        seen.append(threads)
        return make(self, path, precision, threads, device)

    monkeypatch.setattr(kind, "session", session)
    for threads in (None, 3):
        encoder = graph_encoder(models("bge-m3"), exports, runtime)
        encoder.threads = threads
        encoder.load()
    assert seen == [torch.get_num_threads(), 3]


def test_what_sessions_are_told(models: Models, exports: Path) -> None:
    onnx, openvino = (graph_encoder(models("bge-m3"), exports, name) for name in ("onnx", "openvino"))
    for encoder in (onnx, openvino):
        encoder.threads = 2
    tensors = onnx.preprocess({"text": ["a"]}, EncodeContext(None))
    session: Any = onnx.session(tensors)
    options = session._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    session = openvino.session(tensors)
    told = ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "ENABLE_CPU_PINNING")
    assert [session._compiled.get_property(name) for name in told] == [2, 1, False]
    assert "float" in str(session._compiled.get_property("INFERENCE_PRECISION_HINT")).lower()
    assert "bfloat" not in str(session._compiled.get_property("INFERENCE_PRECISION_HINT")).lower()


def test_prompts_outside_of_pooling_and_fewer_dimensions(models: Models, exports: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(models("bge-m3")), device="cpu")
    pooling: Any = model[1]
    pooling.pooling_mode = "mean"
    model.set_pooling_include_prompt(False)
    model.save(str(tmp_path / "m"), create_model_card=False)
    encoder = graph_encoder(tmp_path / "m", exports, embedding_dim=8)
    prompt = "a long prompt: "
    expected = model.encode(TEXTS, prompt=prompt, batch_size=8, truncate_dim=8)
    assert lowest_cosine(vectors(encoder, prompt=prompt, text=TEXTS), expected) >= 0.99999

    def keys(inner: DenseEncoder) -> set[str]:
        batches = [inner.preprocess({"text": TEXTS}, EncodeContext(None, text)) for text in ("", "a: ", prompt)]
        return {Function.of(inner, tensors).key("fp32") for tensors in batches}

    assert len(keys(encoder.inner)) == 3
    assert len(keys(torch_encoder(models("bge-m3")))) == 1, "elsewhere one graph serves all prompts"


def test_an_adapter_is_in_the_graph(models: Models, exports: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft: Any = get_peft_model(AutoModel.from_pretrained(models("clip")), config)
    peft.save_pretrained(tmp_path / "lora")
    adapter = {"adapter": str(tmp_path / "lora")}
    found = vectors(graph_encoder(models("clip"), exports, **adapter), image=pictures())
    assert lowest_cosine(found, vectors(torch_encoder(models("clip"), **adapter), image=pictures())) >= 0.99999
    assert lowest_cosine(found, vectors(torch_encoder(models("clip")), image=pictures())) < 0.999


def test_keys_and_results_tell_runs_apart(models: Models) -> None:
    def at(**options: Any) -> Encoder:
        found = resolve(ModelSpec(str(models("bge-m3")), **options))
        assert isinstance(found, Encoder)
        return found

    runs = [at(), at(runtime="onnx"), at(runtime="openvino"), at(runtime="onnx", precision="int8")]
    runs += [at(runtime="openvino", precision=name) for name in ("bf16", "int8")]
    assert len({run.fingerprint for run in runs}) == len({str(run.spec.options()) for run in runs}) == len(runs)
    same = [(at(runtime="torch"), runs[0]), (at(runtime="onnx", precision="fp32"), runs[1])]
    for first, second in same:
        assert (first.fingerprint, first.spec.options()) == (second.fingerprint, second.spec.options())
    assert runs[3].spec.options() == {"runtime": "onnx", "precision": "int8"}
    assert runs[1].similarity == "cosine" and runs[1].fields == ("text",)
    assert runs[1].context(None, "query") == runs[0].context(None, "query")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"precision": "int8"}, UserError, "--precision int8 is for --runtime onnx or openvino; torch has --dtype"),
        ({"runtime": "torch", "precision": "bf16"}, UserError, "torch has --dtype"),
        ({"runtime": "onxx"}, UnknownNameError, "unknown runtime 'onxx'. Did you mean onnx"),
        ({"runtime": "onnx", "precision": "fp16"}, UserError, "expected one of fp32, bf16, int8"),
        ({"runtime": "onnx", "dtype": "bfloat16"}, UnsupportedOptionError, "give --precision fp32, bf16 or int8"),
        ({"runtime": "onnx", "precision": "bf16"}, UnsupportedOptionError, "no matrix products in bfloat16"),
        ({"runtime": "onnx", "compile": True}, UnsupportedOptionError, "--compile is torch's; leave it out"),
        ({"runtime": "onnx", "merge": False}, UnsupportedOptionError, "--no-merge is torch's"),
        ({"runtime": "onnx", "attention": "eager"}, UnsupportedOptionError, "--attention is torch's"),
        ({"runtime": "openvino", "device": "cuda"}, UnsupportedOptionError, "runs on CPUs, not on --device cuda"),
        ({"runtime": "onnx", "max_pixels": 1000}, UnsupportedOptionError, "no option --max-pixels"),
        ({"runtime": "onnx", "endpoint": "http://h/v1"}, UnsupportedOptionError, "--runtime is the server's affair"),
    ],
)
def test_what_cannot_be_is_refused(models: Models, options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        resolve(ModelSpec(str(models("clip")), **options))


@pytest.mark.parametrize("name", ["raylib/untrained-colpali", "raylib/bm25", "raylib/hashed-ngrams"])
def test_models_that_are_no_function_of_tensors_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedOptionError, match=rf"{name} \(.*\) is not exported: .* Leave --runtime out"):
        resolve(ModelSpec(name, runtime="onnx"))


def test_a_mode_that_is_not_dense_is_refused(tmp_path: Path) -> None:
    from .tiny_m3 import save_m3

    m3 = str(save_m3(tmp_path))
    with pytest.raises(UnsupportedOptionError, match=r"--mode sparse.* is not exported"):
        resolve(ModelSpec(m3, runtime="onnx", mode="sparse"))
    assert resolve(ModelSpec(m3, runtime="onnx", mode="dense")).spec.runtime == "onnx"


def test_a_tower_that_no_graph_can_hold_says_so(exports: Path, tmp_path: Path) -> None:
    """SigLIP 2 NaFlex resizes its positions to every image's shape, in Python."""
    save_siglip(tmp_path, naflex=True)
    with pytest.raises(ModelError, match=r"does not become a graph of pixel_attention_mask.*Leave --runtime out"):
        vectors(graph_encoder(tmp_path, exports), image=pictures(2))


@pytest.mark.parametrize(("runtime", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino"), ("onnx", "onnx")])
def test_a_package_that_is_missing_is_named(
    models: Models, runtime: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_session, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(UserError, match=rf'needs {package}, not installed.*pip install "raylib-cluster\[{runtime}\]"'):
        resolve(ModelSpec(str(models("clip")), runtime=runtime))


def test_int8_of_openvino_names_nncf(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_session, "find_spec", lambda name: None if name == "nncf" else find_spec(name))
    with pytest.raises(UserError, match=r"needs nncf.*pip install nncf"):
        resolve(ModelSpec(str(models("clip")), runtime="openvino", precision="int8"))


def test_a_gpu_that_onnxruntime_cannot_use(models: Models, exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ModelError, match="Install onnxruntime-gpu in its place, or give --device cpu"):
        vectors(graph_encoder(models("bge-m3"), exports), text=["a"])
    assert vectors(graph_encoder(models("bge-m3"), exports, device="cpu"), text=["a"]).shape == (1, 32)
    assert graph_encoder(models("bge-m3"), exports).needs_device
    assert not graph_encoder(models("bge-m3"), exports, "openvino").needs_device


def test_any_module_can_be_written(tmp_path: Path) -> None:
    import onnxruntime
    import torch

    class Sums(torch.nn.Module):
        def forward(self, rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return rows.sum(dim=1, keepdim=True) * scale

    example = {"rows": torch.ones(2, 5), "scale": torch.ones(1)}
    export.write_graph(Sums(), example, tmp_path / "g.onnx", {"rows": {0: "batch", 1: "columns"}}, output="sums")
    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"))
    assert [value.name for value in session.get_outputs()] == ["sums"]
    assert session.get_inputs()[0].shape == ["batch", "columns"]
    rows, scale = np.arange(12, dtype=np.float32).reshape(4, 3), np.array([2], dtype=np.float32)
    (found,) = session.run(None, {"rows": rows, "scale": scale})
    assert found[:, 0].tolist() == [6, 24, 42, 60]


def test_inputs_that_no_content_of_the_model_has(tmp_path: Path, exports: Path) -> None:
    tensors: Tensors = {name: np.zeros((2, 3), dtype=np.int64) for name in ("input_ids", "attention_mask")}
    save_sentence(tmp_path, "bge-m3")
    encoder = encoder_for(tmp_path / "model", "sentence-transformers")
    assert isinstance(encoder, DenseEncoder)
    unknown = Function.of(encoder, {**tensors, "token_type_ids": tensors["input_ids"]})
    with pytest.raises(ModelError, match="has the inputs attention_mask, input_ids, token_type_ids"):
        export.graph(unknown, exports, lambda path, sample: None)
