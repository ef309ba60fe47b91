"""Text models of sentence-transformers: EmbeddingGemma, Qwen3-Embedding, BGE-M3 (dense) and their like.

All modules of the model run, as sentence-transformers runs them (transformer, pooling, dense layers, normalise). The
CPU half uses the library's own Transformer module over a model without weights, so that prompts, truncation, padding
side and lower-casing are its own too. `--embedding-dim` cuts after the last module, as its `truncate_dim` does, and
makes the rest unit length again where the model's last module does that (cosine scores are the same either way).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raylib.errors import ModelError, UnsupportedOptionError, UserError
from raylib.models.family import Family
from raylib.models.instructions import task_instruction
from raylib.models.loading import check_embedding_dim, with_adapter
from raylib.models.packed import run_packed
from raylib.models.pooling import normalise, truncate
from raylib.models.protocol import ModelSpec
from raylib.models.sentence_modules import are_plain, prompt_free_mask, weightless_transformer
from raylib.models.torch_encoder import DenseEncoder
from raylib.models.weights import adapter_base_identity
from raylib.types import Batch, EncodeContext, Role, Similarity, Tensors

if TYPE_CHECKING:
    import torch
    from mteb.abstasks.task_metadata import TaskMetadata
    from PIL import Image

POOLINGS = {
    "cls": "cls",
    "mean": "mean",
    "last": "lasttoken",
    "max": "max",
    "weightedmean": "weightedmean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}
"""--pooling → the library's pooling_mode."""

_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""One flag each in the files of published models → the library's pooling_mode."""


class SentenceEncoder(DenseEncoder):
    """family.settings: prompts (task, task type or role → text, in place of the model's own), query_instruction (a
    template around the task's instruction, for queries and contents without a role)."""

    supported_options: ClassVar[frozenset[str]] = DenseEncoder.supported_options | {"pooling", "embedding_dim"}
    fields: ClassVar[tuple[str, ...] | None] = ("text",)

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        super().__init__(spec, family)
        if spec.pooling is not None and spec.pooling not in POOLINGS:
            raise UserError(f"--pooling is {spec.pooling!r}; expected one of {', '.join(POOLINGS)}")
        check_embedding_dim(spec, self._width() if spec.embedding_dim is not None else None)

    @property
    def settings(self) -> dict[str, Any]:
        """A pooling and a width that are the model's own are as good as none."""
        base = adapter_base_identity(self.location, self.spec)
        pooling, dim = self.spec.pooling, self.spec.embedding_dim
        if pooling is not None and POOLINGS[pooling] == self.own_pooling():
            pooling = None
        if dim is not None and dim == self._width():
            dim = None
        return {"pooling": pooling, "dim": dim, **({"base": base} if base else {})}

    # What the model's own files say, without its weights.

    def _json(self, name: str) -> Any:
        """A JSON file of the model; None where it has none. Raises UserError naming a file that is no JSON."""
        from sentence_transformers.util import load_file_path

        path = load_file_path(self.location, name, revision=self.spec.revision)
        if path is None:
            return None
        try:
            with open(path, encoding="utf-8") as stream:
                return json.load(stream)
        except ValueError as error:
            raise UserError(f"{path} is not valid JSON ({error}); the checkpoint is damaged, copy it again") from error

    def _module_configs(self, kind: str) -> list[dict[str, Any]]:
        """The configurations of the model's modules of one class, "Pooling" or "Dense", where its folder is here."""
        modules = (self._json("modules.json") or []) if Path(self.location).is_dir() else []
        paths = [Path(m["path"], "config.json").as_posix() for m in modules if m["type"].rpartition(".")[2] == kind]
        return [self._json(path) or {} for path in paths]

    def own_pooling(self) -> str | None:
        """The model's own pooling, in the library's word; None where that is not known, and for several at once."""
        for config in self._module_configs("Pooling"):
            older = [name for name in _OLD_POOLINGS if config.get(name)]  # until version 5 of the library
            found = config.get("pooling_mode") or [_OLD_POOLINGS[name] for name in older]
            modes = [found] if isinstance(found, str) else found
            return modes[0] if len(modes) == 1 else None
        return None

    def _width(self) -> int | None:
        """Of a vector before it is cut: what the table or a local folder's last dense layer, else its pooling, says;
        None where neither does, and for several poolings side by side."""
        if self.spec.name in self.family.members:
            return self.family.members[self.spec.name].dim
        dense = self._module_configs("Dense")
        if dense:
            return dense[-1].get("out_features")
        if self.own_pooling() is None:
            return None
        config = self._module_configs("Pooling")[0]
        return config.get("embedding_dimension", config.get("word_embedding_dimension"))

    @cached_property
    def _config(self) -> dict[str, Any]:
        return self._json("config_sentence_transformers.json") or {}

    @property
    def similarity(self) -> Similarity:  # pyright: ignore[reportIncompatibleVariableOverride]
        name = self._config.get("similarity_fn_name") or "cosine"
        if name not in ("cosine", "dot"):
            raise UserError(f"{self.spec.name} compares by {name}; raylib searches by cosine or dot")
        return name

    # Prompts.

    def default_prompt(self, task: TaskMetadata | None, role: Role | None) -> str | None:
        """The prompt that MTEB's wrapper of this model would use; without a task, the model's own for the role."""
        if task is None:
            return self._role_prompt(role)
        if "query_instruction" in self.family.settings:
            return self._instruction(task, role)
        return self._task_prompt(task, role)

    def _task_prompt(self, task: TaskMetadata, role: Role | None) -> str | None:
        """As SentenceTransformerEncoderWrapper: by task name, task type, role; then as encode_query / _document."""
        from mteb.models.abs_encoder import get_prompt_name
        from mteb.types import PromptType

        prompts: Any = self._prompts
        kind = PromptType(role) if role else None
        name = get_prompt_name(prompts, task, kind)
        found = prompts[name] if name else None
        return found if found is not None else self._own_prompt(role)

    @property
    def _prompts(self) -> dict[str, str | None]:
        """Those of the family's settings in place of the model's own; the library knows two roles unasked."""
        replaced = self.family.settings.get("prompts")
        return replaced or {"query": None, "document": None, **self._config.get("prompts", {})}

    def _own_prompt(self, role: Role | None) -> str | None:
        """The prompt that MTEB's wrappers leave to the library: the instruction wrapper calls plain encode."""
        return self._role_prompt(None if "query_instruction" in self.family.settings else role)

    def _role_prompt(self, role: Role | None) -> str | None:
        """The prompt that encode_query, encode_document or encode take when they are given none."""
        names = {"query": ["query"], "document": ["document", "passage", "corpus"], None: []}[role]
        name = next((n for n in names if n in self._prompts), self._config.get("default_prompt_name"))
        return self._prompts.get(name) if name else None

    def _instruction(self, task: TaskMetadata, role: Role | None) -> str | None:
        """As InstructSentenceTransformerModel with apply_instruction_to_passages=False."""
        if role == "document":
            return self._own_prompt(role)
        text = task_instruction(task, role)
        return self.family.settings["query_instruction"].format(instruction=text) if text else ""

    @property
    def tells_prompts(self) -> bool:
        """Whether its prompts can be known: from raylib's table, from MTEB, or from the model's own JSON files where
        they are at hand."""
        if self.family.settings.keys() & {"prompts", "query_instruction"}:
            return True
        try:
            return any(self._json(name) is not None for name in ("modules.json", "config.json"))
        except OSError:  # the hub does not answer, or not to this user
            return False

    def served(self, text: str | None, image: Image.Image | None, prompt: str = "") -> list[str | list[dict[str, Any]]]:
        if text is None or image is not None:
            raise UnsupportedOptionError(f"{self.spec.name} encodes text alone")
        return [text]

    # The two halves.

    def load_processor(self) -> Any:
        """The first module, which tokenises: weightless where it is the library's own Transformer."""
        from sentence_transformers import SentenceTransformer

        modules = self._json("modules.json")
        kind = modules[0]["type"] if modules else ""
        if not (kind.startswith("sentence_transformers.") and kind.endswith(".Transformer")):
            # Static embeddings, routers, custom modules: their tokeniser cannot be had apart from their weights.
            return SentenceTransformer(self.location, device="cpu", **self.pretrained())[0]
        return weightless_transformer().load(self.location, subfolder=modules[0]["path"], **self.pretrained())

    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        """Gives the tokeniser's arrays [n, tokens], and per content its prompt's length in tokens and its role."""
        if "text" not in batch:
            raise UserError(f"{self.spec.name} encodes text; this content has {sorted(batch) or 'nothing'}")
        texts = list(batch["text"])
        task = {"task": context.role} if context.role and "query_instruction" not in self.family.settings else {}
        features = self.processor.preprocess(texts, prompt=context.prompt or None, **task)
        tensors: Tensors = {}
        for name, value in features.items():
            if hasattr(value, "numpy"):
                tensors[name] = value.numpy()
            else:  # one for all: the modality, the length of the prompt
                tensors[name] = np.full(len(texts), value)
        if task:
            tensors["task"] = np.full(len(texts), context.role)
        wrong = [name for name, array in tensors.items() if len(array) != len(texts)]
        if wrong:
            raise ModelError(
                f"{self.spec.name}: {', '.join(wrong)} has no row per content; run it through MTEB instead"
            )
        return tensors

    def load_model(self) -> Any:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(
            self.location, device="cpu", model_kwargs=self.weights_options(), **self.pretrained()
        )
        if self.spec.pooling is not None:
            pooling: Any = next((module for module in model if type(module).__name__ == "Pooling"), None)
            if pooling is None:
                raise UnsupportedOptionError(f"{self.spec.name} has no pooling module. Leave --pooling out.")
            pooling.pooling_mode = POOLINGS[self.spec.pooling]
        if self.spec.adapter is not None:
            model[0].model = with_adapter(model[0].model, self.spec.adapter, merge=self.spec.merge)
        return model

    @property
    def adapter_host(self) -> torch.nn.Module:
        return self.model[0].model

    def save_model(self, folder: str) -> None:
        self.model.save_pretrained(folder, create_model_card=False)

    def scalars(self, tensors: Tensors) -> dict[str, str | int]:
        """The modality and the role, as texts, and the length of the prompt."""
        found: dict[str, str | int] = {n: str(array[0]) for n, array in tensors.items() if array.dtype.kind == "U"}
        if "prompt_length" in tensors:
            found["prompt_length"] = int(tensors["prompt_length"][0])
        return found

    def constants(self, scalars: Mapping[str, str | int]) -> dict[str, str | int]:
        """The prompt's length only where pooling leaves prompts out, the role only for modules that may ask for it."""
        modules = self._json("modules.json") or []
        matter = {"modality"}
        if not are_plain(module["type"] for module in modules) or self.spec.trust_remote_code:
            matter |= {"task", "prompt_length"}
        for module in modules:
            if module["type"].endswith(".Pooling"):
                config = self._json(f"{module['path']}/config.json") or {}
                matter |= set() if config.get("include_prompt", True) else {"prompt_length"}
        return {name: value for name, value in scalars.items() if name in matter}

    def run_modules(
        self, model: Any, inputs: Mapping[str, torch.Tensor], scalars: Mapping[str, str | int]
    ) -> dict[str, Any]:
        """What the library's model gives for a batch, on the device: sentence_embedding [n, dim], and of a transformer
        token_embeddings [n, tokens, hidden] and attention_mask [n, tokens]."""
        features = {**inputs, **{name: value for name, value in scalars.items() if name != "task"}}
        packed = run_packed(model, inputs, features)
        if packed is not None:
            return packed
        return model(features, **({"task": scalars["task"]} if "task" in scalars else {}))

    def make_traceable(self) -> None:
        for module in self.model:
            if hasattr(module, "_exclude_prompt_from_mask"):  # which asks whether any row has padding on the left
                module._exclude_prompt_from_mask = prompt_free_mask

    def dense(self, inputs: Mapping[str, torch.Tensor], scalars: Mapping[str, str | int]) -> torch.Tensor:
        vectors = self.run_modules(self.model, inputs, scalars)["sentence_embedding"]
        if self.spec.embedding_dim is not None:
            vectors = truncate(vectors, self.spec.embedding_dim)
            if type(self.model[-1]).__name__ == "Normalize":
                vectors = normalise(vectors)
        return vectors
