"""An exported graph as embed_anything's ONNX Runtime classes take one: token ids in, hidden states of tokens out.

They tokenise, pad a batch to its longest text, give the graph input_ids and attention_mask (and zeros as
token_type_ids), and pool what comes out. Ours pools inside, so that it gets an axis of one token, of which their "first
token" is all. A tower that reads texts of one length alone, padding and all (SigLIP's), gets what brings them to that
length in front, and its own padding in place of theirs, which is the token 0.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from raylib.bench.runtimes.checkpoints import Unsupported

_IDS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"


def wrap_graph(source: Path, folder: Path, pad_id: int) -> None:
    """Write the graph of `source` as folder/model.onnx, with copies of the files beside it. Weights are not read.
    pad_id: what a text is filled with. Raises Unsupported for a graph with other inputs than of texts."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(source, load_external_data=False)
    graph = model.graph
    strange = {value.name for value in graph.input} - {_IDS, _MASK, _TYPES}
    if strange:
        raise Unsupported(f"embed_anything gives a graph no {', '.join(sorted(strange))}")
    before = [
        node for value in list(graph.input) for node in _padded(graph, value, pad_id if value.name == _IDS else 0)
    ]
    names = [value.name for value in graph.input]
    if _MASK not in names:  # it is given one in any case, and refuses what has no such input
        graph.input.append(helper.make_tensor_value_info(_MASK, TensorProto.INT64, ["batch", "tokens"]))
    vectors = graph.output[0].name
    axis = helper.make_tensor("rust_token_axis", TensorProto.INT64, [1], [1])
    graph.initializer.append(axis)
    after = helper.make_node("Unsqueeze", [vectors, axis.name], ["last_hidden_state"])
    nodes = [*before, *graph.node, after]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.append(helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", 1, None]))
    onnx.save(model, folder / "model.onnx")
    for path in source.parent.iterdir():
        if path.name != source.name:
            # No link: ONNX Runtime reads no weights through symbolic ones that lead out of a folder, and the onnx
            # package, which makes int8 of the same file, none that have a second name.
            shutil.copyfile(path, folder / path.name)


def _padded(graph: Any, value: Any, fill: int) -> list[Any]:
    """Nodes that bring an input [n, tokens] to the one length that the graph takes, with `fill` where the mask is 0 and
    after it; none where it takes any. The graph's own steps read what they give, and the input of the same name has any
    length."""
    from onnx import TensorProto, helper

    dims = value.type.tensor_type.shape.dim
    length = dims[1].dim_value
    if not length:
        return []
    name = value.name
    real, filled, full = f"{name}_real", f"{name}_filled", f"{name}_padded"
    tokens, missing, pads = f"{name}_tokens", f"{name}_missing", f"{name}_pads"
    for node in graph.node:
        node.input[:] = [full if read == name else read for read in node.input]
    dims[1].Clear()
    dims[1].dim_param = "tokens"

    def constant(what: str, numbers: list[int], scalar: bool = False) -> str:
        tensor = helper.make_tensor(f"{name}_{what}", TensorProto.INT64, [] if scalar else [len(numbers)], numbers)
        graph.initializer.append(tensor)
        return tensor.name

    padding = constant("fill", [fill], scalar=True)
    return [
        helper.make_node("Cast", [_MASK], [real], to=TensorProto.BOOL),
        helper.make_node("Where", [real, name, padding], [filled]),
        helper.make_node("Shape", [name], [tokens], start=1, end=2),
        helper.make_node("Sub", [constant("length", [length]), tokens], [missing]),
        helper.make_node("Concat", [constant("zeros", [0, 0, 0]), missing], [pads], axis=0),
        helper.make_node("Pad", [filled, pads, padding], [full]),
    ]
