"""Result files: <folder>/results/<org__model>/<runtime>.json, all that is known of a model on a runtime."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from raylib import storage
from raylib.bench.records import Result
from raylib.errors import UserError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

RESULTS = "results"
"""The folder of the files, in that of the run."""
_KIND, _VERSION = "raylib bench", 1
_LONGEST = 100
"""Characters of a name that a file may have besides its digest; file systems take 255 bytes."""


def write_results(folder: str, results: Iterable[Result]) -> list[str]:
    """Write the files of the models and runtimes that `results` are of, each atomically; returns their paths, sorted.

    A file holds what it is given and nothing of what was there before, so all results of a runtime belong into one
    call. Files of other models and runtimes stay. Raises UserError where the folder cannot be written to.
    """
    of_file: dict[str, list[Result]] = {}
    for result in results:
        of_file.setdefault(result_path(folder, result.cell.model, result.cell.runtime), []).append(result)
    for path, mine in of_file.items():
        told = {"kind": _KIND, "version": _VERSION, "model": mine[0].cell.model, "runtime": mine[0].cell.runtime}
        rows = json.loads(_results().dump_json(mine))
        storage.write_text(path, json.dumps({**told, "results": rows}, indent=1, ensure_ascii=False) + "\n")
    return sorted(of_file)


def result_path(folder: str, model: str, runtime: str) -> str:
    return storage.join(folder, RESULTS, file_stem(model), f"{file_stem(runtime)}.json")


def file_stem(name: str) -> str:
    """A name as MTEB makes a folder of it, google__embeddinggemma-300m. One that has more in it than a file's name may
    have, or that another name would be written as, ends in a digest of its own."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", name.replace("/", "__"))[-_LONGEST:]
    if stem.replace("__", "/") == name and not stem.startswith("."):
        return stem
    return f"{stem.lstrip('.')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def read_results(folder: str) -> list[Result]:
    """All results under `folder`, by model and runtime, in the order in which each file has them; [] where there are
    none. Raises UserError for a file that is damaged, of another version or not of `raylib bench`, naming it."""
    found: list[Result] = []
    for model in storage.list_folders(storage.join(folder, RESULTS)):
        for path in storage.list_files(storage.join(folder, RESULTS, model), ".json"):
            found += _read(path)
    return found


def _read(path: str) -> Sequence[Result]:
    from pydantic import ValidationError

    again = "Move it away, and run `raylib bench` again to measure its cells anew."
    try:
        told = json.loads(storage.read_text(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}). {again}") from error
    if not isinstance(told, dict) or told.get("kind") != _KIND:
        raise UserError(f"{path} is no result of `raylib bench`: its kind is not {_KIND!r}. Move it out of the folder.")
    if told.get("version") != _VERSION:
        raise UserError(
            f"{path} has version {told.get('version')!r} of the result files; this raylib reads version {_VERSION}. "
            "Read it with the raylib that wrote it, or give another --output-folder."
        )
    try:
        results = _results().validate_python(told.get("results"))
    except ValidationError as error:
        raise UserError(f"{path} is damaged ({_first(error)}). {again}") from error
    for result in results:
        if (result.cell.model, result.cell.runtime) != (told.get("model"), told.get("runtime")):
            raise UserError(
                f"{path} is of {told.get('model')} on {told.get('runtime')} and holds a result of {result.cell.model} "
                f"on {result.cell.runtime}. {again}"
            )
    return results


def _results() -> TypeAdapter[list[Result]]:
    """From records to JSON and back. Numbers that JSON does not have, such as the cosine of vectors that are NaN, are
    text in it."""
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(list[Result], config=ConfigDict(extra="forbid", ser_json_inf_nan="strings"))


def _first(error: ValidationError) -> str:
    """Of what is wrong the first, in one line."""
    found: Any = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, found['loc'])) or 'results'}: {found['msg']}"
