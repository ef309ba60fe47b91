"""Models whose code comes with their checkpoint: run only where the user trusts it, and mended for transformers 5."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raylib.errors import ModelError, UserError
from raylib.models.protocol import ModelSpec

_AUTO_CLASSES = ("AutoModelForMultimodalLM", "AutoModelForImageTextToText", "AutoModelForCausalLM", "AutoModel")
"""What a checkpoint may offer itself as, the fittest first."""


@contextmanager
def trusted(spec: ModelSpec) -> Iterator[None]:
    """transformers refuses to run a checkpoint's own code unless it is told to: what it raises then becomes a UserError
    that says what to do."""
    try:
        yield
    except ValueError as error:
        if spec.trust_remote_code or "trust_remote_code=True" not in str(error):
            raise
        raise _untrusted(spec) from error


def check_trusted(spec: ModelSpec, config: dict[str, Any]) -> None:
    """Raises UserError for a config whose code comes with it, unless that is trusted.

    transformers itself does not ask again in a process that has already run such a code, which may have registered
    its model_type. config: as it stands in config.json.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    own = "AutoConfig" in (config.get("auto_map") or {}) and config.get("model_type") not in CONFIG_MAPPING_NAMES
    if own and not spec.trust_remote_code:
        raise _untrusted(spec, config.get("model_type"))


def _untrusted(spec: ModelSpec, model_type: str | None = None) -> UserError:
    kind = f" ({model_type})" if model_type else ""
    return UserError(
        f"{spec.name}{kind}: this model's code comes with it, in its own Python files. Read them, and add "
        "--trust-remote-code if you trust them"
    )


def auto_class(spec: ModelSpec, config: Any, cache_dir: str | None = None) -> Any:
    """The class of transformers by which the model is loaded: what its own code says, where that is run, else the one
    that has all vision-language models. Mends the classes of its own code first.

    Raises UserError where only untrusted code has a class for it, ModelError where nothing has.
    """
    import transformers

    offered = getattr(config, "auto_map", None) or {}
    name = next((name for name in _AUTO_CLASSES if name in offered), None)
    if name is not None and spec.trust_remote_code:
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        mend(get_class_from_dynamic_module(offered[name], spec.name, revision=spec.revision, cache_dir=cache_dir))
        return getattr(transformers, name)
    if type(config) not in transformers.MODEL_FOR_MULTIMODAL_LM_MAPPING:
        if name is not None:
            raise _untrusted(spec, config.model_type)
        raise ModelError(
            f"{spec.name} ({config.model_type}): no model of this kind reads images and text; looked in transformers' "
            "AutoModelForMultimodalLM. Is it a vision-language model?"
        )
    return transformers.AutoModelForMultimodalLM


def mend(model_class: Any) -> None:
    """Give a class that was written for transformers 4 what the loader of version 5 asks of every model: the names of
    its tied weights, which `post_init` finds where it is called (Molmo's does not), and a `tie_weights` that takes
    arguments."""
    if not hasattr(model_class, "all_tied_weights_keys"):
        model_class.all_tied_weights_keys = {}
    written = model_class.tie_weights
    if len(inspect.signature(written).parameters) == 1:
        model_class.tie_weights = lambda self, *args, **options: written(self)
