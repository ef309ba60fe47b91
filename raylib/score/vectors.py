"""Vectors that somebody has: one side of a search, read from a file block by block and checked as it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from raylib import storage
from raylib.errors import UserError
from raylib.metrics.lines import read_lines
from raylib.store.manifests import read_manifest
from raylib.store.vector_files import ENCODE_JOB
from raylib.types import Embeddings, Role, Similarity

Block = tuple[np.ndarray, Embeddings]
"""Positions among the contents of a source, [m] int64, and their vectors."""

BLOCK_BYTES = 64 * 2**20
"""Vectors that a reader holds at a time."""


@dataclass(frozen=True)
class Vectors:
    """One side: ids, and the vectors behind them.

    owners [n] int64: the content of each id (several ids may share one, in the store). read: gives the vectors of
    all contents, every content once, in blocks. late: contents may have several vectors. similarity: what the model
    that made them uses, where that is known. described: for the summary.
    """

    path: str
    role: Role
    ids: list[str]
    dim: int
    late: bool
    read: Callable[[], Iterator[Block]]
    owners: np.ndarray
    similarity: Similarity | None = None
    described: dict[str, str] = field(default_factory=dict)

    @property
    def n_contents(self) -> int:
        return int(self.owners.max()) + 1 if len(self.owners) else 0

    def blocks(self) -> Iterator[Block]:
        """What `read` gives, checked: every vector is finite and every content has one.

        Raises UserError, which names the id, for NaN, infinity and a content without vectors.
        """
        for positions, embeddings in self.read():
            empty = np.flatnonzero(embeddings.token_counts == 0)
            if len(empty):
                raise UserError(f"{self.path}: {self._names(positions[empty])}: no vector; expected one or more each")
            finite = np.isfinite(embeddings.values).all(axis=1)
            if not finite.all():
                rows = np.flatnonzero(~finite)
                bad = np.unique(np.searchsorted(embeddings.offsets, rows, side="right") - 1)
                raise UserError(
                    f"{self.path}: {self._names(positions[bad])}: NaN or infinity in a vector; "
                    "expected finite numbers. Encode these again, or leave them out."
                )
            yield positions, embeddings

    def load(self) -> Embeddings:
        """All contents, in order."""
        blocks = list(self.blocks())
        order = np.concatenate([positions for positions, _ in blocks])
        embeddings = Embeddings.concatenate([e.astype(np.float32) for _, e in blocks])
        return embeddings if (np.diff(order) == 1).all() else embeddings.take(np.argsort(order))

    def _names(self, contents: np.ndarray) -> str:
        """Ids of contents, for a message."""
        chosen = set(contents.tolist())
        named = [i for i, owner in zip(self.ids, self.owners.tolist(), strict=True) if owner in chosen]
        return f"{self.role} {listed(named)}"


def listed(names: Iterable[str], limit: int = 5) -> str:
    """Up to `limit` names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def check_ids(path: str, role: Role, ids: Sequence[str], n_vectors: int) -> None:
    """Raises UserError where there is no content, an id is empty or twice, or ids and vectors differ in number."""
    if len(ids) != n_vectors:
        raise UserError(f"{path} holds {n_vectors} vectors for {len(ids)} ids; expected one id each, in the same order")
    if not ids:
        raise UserError(f"{path} is empty; expected at least one {role}")
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {len(twice)} {role} ids occur more than once: {listed(twice)}; expected each id once")
    if "" in ids:
        raise UserError(f"{path}: {role} {ids.index('')} (counted from 0) has an empty id")


def read_ids(path: str) -> list[str]:
    """Ids, one a line, or from an .npy array. Raises UserError for another form."""
    if path.endswith(".npy"):
        try:
            array = np.load(path, allow_pickle=False)
        except OSError as error:
            raise UserError(f"ids {path} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise UserError(f"ids {path} are no array of text or numbers: {error}") from error
        return ids_of(array, path)
    return [line.strip() for _, line in read_lines(path, "ids")]


def ids_of(array: np.ndarray, where: str) -> list[str]:
    """[n] text, bytes or whole numbers → ids. Raises UserError for other arrays."""
    if array.ndim != 1 or array.dtype.kind not in "USiuO":
        raise UserError(f"{where}: ids are {array.dtype}{list(array.shape)}; expected text or whole numbers, [n]")
    try:
        return [i.decode() if isinstance(i, bytes) else str(i) for i in array.tolist()]
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: an id is no UTF-8 text: {error.object!r}") from error


def open_vectors(
    path: str,
    role: Role,
    ids_path: str | None = None,
    *,
    split: str | None = None,
    subset: str | None = None,
    store: str | None = None,
) -> Vectors:
    """Vectors from `path`, whose form its name tells: .npy, .npz, .parquet, .h5 (.hdf5), a contents.parquet (or the
    folder that holds it) that names vectors in the store, or an output folder of `raylib encode`.

    ids_path: a file of ids, for .npy and for .npz and HDF5 without ids. split, subset, store: for a contents.parquet.
    Ids and shapes are checked here, the values of vectors as they are read. Raises UserError for what cannot be used.
    """
    from raylib.score import stored

    if storage.exists(storage.join(path, "contents.parquet")):
        path = storage.join(path, "contents.parquet")
    if not storage.exists(path):
        raise UserError(f"{role} vectors {path} do not exist")
    encoded = _encoded(path)
    if encoded is not None:
        found = _open_file(encoded.path, role, ids_path or encoded.ids)
        described = {**found.described, **encoded.described}
        return replace(found, late=encoded.late, similarity=encoded.similarity, described=described)
    is_stored = path.endswith(".parquet") and stored.is_contents(path)
    told = {"split": split, "subset": subset, "store": store}
    if is_stored and ids_path is not None:
        raise UserError(f"{path} has its own ids; leave --{_flag(role)} out")
    if is_stored:
        return stored.read_stored(path, role, **told)
    return _open_file(path, role, ids_path)


@dataclass(frozen=True)
class _Encoded:
    """What the manifest of `raylib encode` says of a file of vectors."""

    path: str
    ids: str | None
    late: bool
    similarity: Similarity
    described: dict[str, str]


def _encoded(path: str) -> _Encoded | None:
    """The vectors of an output folder of `raylib encode`, or of the file of vectors in it; None for anything else."""
    folder, _, name = path.rstrip("/").rpartition("/")
    manifest = read_manifest(path, ENCODE_JOB)
    if manifest is None:
        folder = folder or ("/" if path.startswith("/") else ".")
        manifest = read_manifest(folder, ENCODE_JOB)
        if manifest is None or manifest["files"]["embeddings"] != name:
            return None
    else:
        folder = path
    files = {kind: storage.join(folder, file) for kind, file in manifest["files"].items()}
    described = {name: str(manifest[name]) for name in ("model", "fingerprint")}
    similarity = manifest["similarity"]
    return _Encoded(files["embeddings"], files.get("ids"), manifest["late_interaction"], similarity, described)


def _open_file(path: str, role: Role, ids_path: str | None) -> Vectors:
    from raylib.score import formats

    readers = {
        ".npy": formats.read_npy,
        ".npz": formats.read_npz,
        ".parquet": formats.read_parquet,
        ".h5": formats.read_hdf5,
        ".hdf5": formats.read_hdf5,
    }
    for suffix, reader in readers.items():
        if path.lower().endswith(suffix):
            return reader(path, role, read_ids(ids_path) if ids_path is not None else None)
    raise UserError(
        f"{role} vectors {path}: the form is not known; expected a name that ends in {', '.join(readers)}, "
        "a details folder of `raylib evaluate`, or a finished output folder of `raylib encode`"
    )


def _flag(role: Role) -> str:
    return f"{role}-ids"
