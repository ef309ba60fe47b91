"""One `encode` call of MTEB in pieces: cut, run piece by piece through the real MTEB model, and put together again.

Pure functions over arrays and data sets; they run here or on a worker. What makes a piece right is that the model sees
the very batches that it would see in one call: the same rows in the same order and the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.errors import ModelError

if TYPE_CHECKING:
    import torch

_MAX_IMAGE_BATCHES = 8
_MAX_TEXT_BATCHES = 64
_CUTS_PER_WORKER = 4
"""Of one call: enough that no worker waits long for the last one."""


@dataclass(frozen=True)
class Call:
    """What `encode` is told besides the rows, and how its DataLoader makes batches of them."""

    task_metadata: Any
    hf_split: str
    hf_subset: str
    prompt_type: Any
    kwargs: dict[str, Any]
    loader_batch_size: int
    collate_fn: Any

    @property
    def encode_batch_size(self) -> int:
        """What a wrapper that collects the whole call cuts it by; 32 is sentence-transformers' and MTEB's default."""
        return int(self.kwargs.get("batch_size") or 32)


@dataclass(frozen=True)
class Cut:
    """The rows start:stop of a call. per_call: rows that the model is given at a time, longest first and each lot one
    batch; None gives it all of them at once, in batches of the call's loader. apart: a model that pads texts and images
    of fused contents each for itself gives them as a pair."""

    start: int
    stop: int
    per_call: int | None = None
    apart: bool = False


class ItemRows:
    """Rows that are no Hugging Face data set (MTEB's lists of images), with what MTEB's models ask of one."""

    def __init__(self, items: list[dict[str, Any]], features: Any) -> None:
        self.items, self.features = items, features
        self.column_names = list(features)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]

    def select(self, indices: Sequence[int] | np.ndarray | range) -> ItemRows:
        return ItemRows([self.items[i] for i in indices], self.features)


def rows_of(data: Any) -> Any:
    """The data set of a DataLoader, as something with `select`."""
    import datasets

    if isinstance(data, datasets.Dataset):
        return data
    items = [data[i] for i in range(len(data))]
    return ItemRows(items, getattr(data, "features", None) or dict.fromkeys(items[0] if items else ()))


def in_memory(rows: Any) -> Any:
    """A copy of just these rows that needs no file of this machine: images as the bytes that they are stored as."""
    import datasets
    from datasets.table import embed_table_storage

    if not isinstance(rows, datasets.Dataset):
        return rows
    table: Any = rows.with_format("arrow")[:]
    table = embed_table_storage(table.cast(rows.features.arrow_schema))
    copy = datasets.Dataset(table, info=rows.info.copy())
    return copy.with_format(**rows.format) if rows.format["type"] is not None else copy


def cuts_of(
    n: int, unit: int, workers: int, *, images: bool, per_call: int | None = None, apart: bool = False
) -> list[Cut]:
    """Rows 0:n in cuts of whole units."""
    units = -(-n // unit)
    most = _MAX_IMAGE_BATCHES if images else _MAX_TEXT_BATCHES
    step = unit * max(1, min(most, units // (_CUTS_PER_WORKER * workers)))
    return [Cut(start, min(start + step, n), per_call, apart) for start in range(0, n, step)]


def encode_rows(model: Any, call: Call, rows: Any, cut: Cut) -> Any:
    """What `model.encode` gives for the rows of a cut, on the CPU. rows: those of the cut alone."""
    if cut.apart:
        loader, kwargs = _loader(call, rows), _kwargs(call)
        return on_cpu((model.get_text_embeddings(loader, **kwargs), model.get_image_embeddings(loader, **kwargs)))
    if cut.per_call is None:
        return on_cpu(_encode(model, call, rows))
    lots = [range(a, min(a + cut.per_call, len(rows))) for a in range(0, len(rows), cut.per_call)]
    return join([on_cpu(_encode_one_batch(model, call, rows.select(lot))) for lot in lots])


def _loader(call: Call, rows: Any) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(rows, batch_size=call.loader_batch_size, collate_fn=call.collate_fn)


def _kwargs(call: Call) -> dict[str, Any]:
    return {name: False if name == "show_progress_bar" else value for name, value in call.kwargs.items()}


def _encode(model: Any, call: Call, rows: Any) -> Any:
    return model.encode(
        _loader(call, rows),
        task_metadata=call.task_metadata,
        hf_split=call.hf_split,
        hf_subset=call.hf_subset,
        prompt_type=call.prompt_type,
        **_kwargs(call),
    )


def _encode_one_batch(model: Any, call: Call, rows: Any) -> Any:
    """Rows in falling order of length that sentence-transformers is to run as one batch, in this very order.

    It sorts them once more, and not stably: rows of one length may change places. They are handed over so that they
    come out of that sort as they stand here.
    """
    inner = length_order(list(rows["text"]))
    found = _encode(model, replace(call, loader_batch_size=max(1, len(rows))), rows.select(np.argsort(inner)))
    return take(found, inner)


def length_order(texts: Sequence[str]) -> np.ndarray:
    """[n] the order in which sentence-transformers runs texts: its own sort over its own measure of length."""
    from sentence_transformers.base.model import BaseModel

    return np.argsort([-BaseModel._input_length(text) for text in texts])


def on_cpu(found: Any) -> Any:
    """Tensors on the CPU, in their own number format; all else as it is."""
    if isinstance(found, list | tuple):
        return type(found)(on_cpu(item) for item in found) if found and _is_tensor(found[0]) else found
    return found.detach().cpu() if _is_tensor(found) else found


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach")


def join(parts: Sequence[Any]) -> Any:
    """The results of consecutive pieces as one call would have given them.

    Lists stay lists; [n, dim] arrays and tensors (sparse ones too) are put one below the other; [n, tokens, dim] ones
    are first padded with zeros at the end, to the most tokens of any piece. Raises ModelError for pieces that differ
    in kind.
    """
    if len({(type(part), getattr(part, "ndim", None), str(getattr(part, "dtype", ""))) for part in parts}) != 1:
        kinds = sorted({f"{type(p).__name__}{list(getattr(p, 'shape', [len(p)]))}" for p in parts})
        raise ModelError(f"the pieces of one encode call came back as {', '.join(kinds)}; expected one kind")
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, list | tuple):
        return type(first)(item for part in parts for item in part)
    if first.ndim == 3:
        parts = [_padded(part, max(p.shape[1] for p in parts)) for part in parts]
    if _is_tensor(first):
        import torch

        return torch.cat(list(parts))
    return np.concatenate(parts)


def _padded(part: Any, tokens: int) -> Any:
    """part [n, t, dim] → [n, tokens, dim]"""
    missing = tokens - part.shape[1]
    if not _is_tensor(part):
        return np.pad(part, ((0, 0), (0, missing), (0, 0)))
    import torch

    return torch.nn.functional.pad(part, (0, 0, 0, missing))


def join_apart(parts: Sequence[tuple[Any, Any]]) -> Any:
    """Pairs of padded texts and padded images, each [n, tokens, dim] → texts before images, [n, all tokens, dim]."""
    import torch

    texts, images = zip(*parts, strict=True)
    return torch.cat([join(texts), join(images)], dim=1)


def take(found: Any, order: np.ndarray) -> Any:
    """The results at `order`, in that order."""
    if isinstance(found, list | tuple):
        return type(found)(found[i] for i in order)
    if not _is_tensor(found):
        return found[order]
    import torch

    return found.index_select(0, torch.from_numpy(np.asarray(order, dtype=np.int64)))


def same_bits(a: Any, b: Any) -> bool:
    """Whether two results are of one kind, shape and number format, and equal bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same_bits(x, y) for x, y in zip(a, b, strict=True))
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return _bytes(a) == _bytes(b)


def _bytes(found: Any) -> bytes:
    if not _is_tensor(found):
        return np.ascontiguousarray(found).tobytes()
    import torch

    dense: torch.Tensor = found.to_dense() if found.is_sparse else found
    return dense.contiguous().view(torch.uint8).numpy().tobytes()
