"""Torch modules → ONNX graphs in files, each written once and found again by what it computes.

A graph holds the whole way from tensors to vectors: the model, pooling, dense layers, truncation and, where vectors
are compared by cosine, their normalisation. Its batch and token axes take any size.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylib import storage
from raylib.errors import ModelError
from raylib.models.pooling import normalise
from raylib.models.torch_encoder import DenseEncoder
from raylib.types import Batch, EncodeContext, Tensors

if TYPE_CHECKING:
    import torch

EXPORT_VERSION = 1
"""Raised when the same model would be exported as another function than before."""

OPSET = 20
OUTPUT = "sentence_embedding"
"""Of the graph. Plain "embedding" clashes with a name that torch's exporter gives to values inside."""

GRAPH = "model.onnx"
"""In the folder of a graph; its weights are in a file beside it."""

Axes = Mapping[str, Mapping[int, str]]
"""Input → axis → what it counts, of the axes that take any size."""


def write_graph(
    module: torch.nn.Module, example: Mapping[str, torch.Tensor], path: str | Path, axes: Axes, output: str = OUTPUT
) -> None:
    """Export a module to an ONNX file, its weights to another one beside it, `path` + ".data".

    module: called with the tensors of `example` by position, in that order; gives one tensor. example: sizes of axes
    that vary must be neither 0 nor 1, and those of different meaning different. The graph's inputs have the example's
    names. Raises what torch's exporter raises, which may be anything.
    """
    import torch

    shapes = [dict.fromkeys(axes.get(name, {}), torch.export.Dim.DYNAMIC) for name in example]
    takes_any = any(kind.kind is kind.VAR_POSITIONAL for kind in _parameters(module))
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module.eval(),
            tuple(example.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(example),
            output_names=[output],
            dynamic_shapes=(tuple(shapes),) if takes_any else tuple(shapes),
            verbose=False,
        )
        assert program is not None, "dynamo=True gives one"
        for value in program.model.graph.inputs:  # names instead of s77, for whoever reads the file
            for axis, name in axes.get(value.name or "", {}).items():
                assert value.shape is not None, "an input has a shape"
                value.shape[axis] = name
        program.save(str(path), external_data=True)


def _parameters(module: torch.nn.Module) -> list[Any]:
    import inspect

    return list(inspect.signature(module.forward).parameters.values())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter and its helpers say of steps that succeed."""
    names = ("onnxscript", "onnx_ir", "torch.onnx")
    before = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


@dataclass(frozen=True)
class Function:
    """What a graph computes: the vectors of an encoder from inputs of these names, under constants.

    constants: those of the encoder's scalars on which vectors depend, in order of their names.
    """

    encoder: DenseEncoder
    inputs: tuple[str, ...]
    constants: tuple[tuple[str, str | int], ...]

    @classmethod
    def of(cls, encoder: DenseEncoder, tensors: Tensors) -> Function:
        """The one that runs a batch. Needs no weights."""
        scalars = encoder.scalars(tensors)
        constants = sorted(encoder.constants(scalars).items())
        return cls(encoder, tuple(sorted(set(tensors) - set(scalars))), tuple(constants))

    def key(self, kind: str) -> str:
        """64 hex digits of what decides a file. kind: of number formats, and of what they are for."""
        parts = {
            "model": self.encoder.fingerprint,
            "inputs": self.inputs,
            "constants": self.constants,
            "unit": self.encoder.similarity == "cosine",
            "kind": kind,
            "opset": OPSET,
            "version": EXPORT_VERSION,
            "libraries": {name: version(name) for name in ("torch", "transformers", "sentence-transformers")},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def graph(function: Function, root: str | Path, check: Callable[[Path, Tensors], Any]) -> Path:
    """The file of a function's graph in float32 below `root`, exported unless it is there.

    check: runs a file; its vectors must be torch's. Raises ModelError for a model that does not become a graph.
    """
    folder = Path(root, function.key("fp32"))
    written_once(folder, lambda aside: _export(function, aside / GRAPH, check))
    return folder / GRAPH


def written_once(folder: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a folder beside, which then gets its name; nothing is done where it is there. Of several
    processes on one machine that ask at once one writes, and the others wait; elsewhere the first rename wins."""
    from filelock import FileLock

    if folder.is_dir():
        return
    storage.make_folder(folder.parent)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        storage.fill_once(folder, write)


def _export(function: Function, path: Path, check: Callable[[Path, Tensors], Any]) -> None:
    import numpy as np
    import torch

    short, long = _samples(function)
    encoder = _exportable(function.encoder)
    constants = dict(function.constants)
    unit = encoder.similarity == "cosine"

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = encoder.model  # so that its weights are the graph's

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            vectors = encoder.dense(dict(zip(function.inputs, inputs, strict=True)), constants)
            return normalise(vectors) if unit else vectors

    name = encoder.spec.name
    try:
        module, axes = Graph(), {input_: _axes(short[input_], long[input_]) for input_ in function.inputs}
        write_graph(module, encoder.on_device(long), path, axes)
        with torch.inference_mode():
            expected = module(*encoder.on_device(short).values()).numpy()
    except ModelError:
        raise
    except Exception as error:  # of any kind, from any depth of the exporter
        first = error
        while first.__cause__ is not None:  # the exporter's own words are the same for all
            first = first.__cause__
        reason = " ".join(str(first).split())[:200]
        raise ModelError(
            f"{name} does not become a graph of {', '.join(function.inputs)} ({type(first).__name__}: {reason}). Leave "
            "--runtime out, which runs it with torch."
        ) from error
    found = check(path, short)
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosine = float(((expected * found).sum(axis=1) / lengths).min())
    if not cosine >= 0.9999:  # NaN is none either
        raise ModelError(
            f"{name}: the exported graph gives other vectors than torch (cosine {cosine:.5f}, expected at least "
            "0.9999). Leave --runtime out, which runs it with torch."
        )


def _exportable(encoder: DenseEncoder) -> DenseEncoder:
    """A copy with weights of its own, on the CPU, that keeps no keys and values of the tokens before."""
    twin = copy(encoder)
    twin.spec = replace(encoder.spec, device="cpu")
    for module in twin.model.modules():
        own = getattr(module, "config", None)
        configs: list[Any] = [own, getattr(own, "text_config", None)]
        for config in configs:
            if hasattr(config, "use_cache"):
                config.use_cache = False
    twin.make_traceable()
    return twin


def _samples(function: Function) -> tuple[Tensors, Tensors]:
    """Inputs of the function of two and of three contents, whose lengths differ."""
    from PIL import Image

    encoder = function.encoder
    prompt = int(dict(function.constants).get("prompt_length", 0))  # what pooling leaves out must not be all there is
    gradients = [Image.linear_gradient("L").convert("RGB"), Image.radial_gradient("L").convert("RGB")]
    few: Batch = {"text": ["word " * (prompt + 2), "a word " * (prompt + 2)], "image": gradients}
    more: Batch = {"text": [*few["text"], "two more " * (prompt + 16)], "image": [*gradients, gradients[0]]}
    for names in (("text",), ("image",), ("text", "image")):
        if not encoder.modalities.issuperset(names):
            continue
        made = [encoder.preprocess({name: batch[name] for name in names}, EncodeContext(None)) for batch in (few, more)]
        if all(Function.of(encoder, tensors).inputs == function.inputs for tensors in made):
            short, long = ({name: tensors[name] for name in function.inputs} for tensors in made)
            return short, long
    raise ModelError(
        f"{encoder.spec.name}: nothing that a graph could be tried with has the inputs {', '.join(function.inputs)}. "
        "Leave --runtime out."
    )


def _axes(short: Any, long: Any) -> dict[int, str]:
    """The batch, and every other axis that is not as long for all contents."""
    varying = [axis for axis in range(1, short.ndim) if short.shape[axis] != long.shape[axis]]
    return {0: "batch"} | {axis: "tokens" if axis == 1 else f"axis_{axis}" for axis in varying}
