"""MTEB's metadata for any encoder: MTEB's own entry where there is one, else one made from what the encoder says."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raylib.evaluate.results import NO_REVISION
from raylib.models.protocol import Encoder, ModelSpec

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

    from raylib.models.bridge import SearchModel


def model_meta(encoder: Encoder | SearchModel, experiment: Mapping[str, Any] | None = None) -> ModelMeta:
    """The metadata under which results are filed.

    experiment: settings of this run that change scores (a limit, say); with the options of the spec they make MTEB's
    `experiment_kwargs`, so that an ablation never overwrites the plain model's results.
    """
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    experiment_kwargs = {**_experiment_options(encoder.spec), **(experiment or {})} or None
    known = encoder.model_meta()
    changes: dict[str, Any] = {"experiment_kwargs": experiment_kwargs}
    changes["revision"] = encoder.spec.revision or (known.revision if known is not None else None) or _revision(encoder)
    if isinstance(encoder, Encoder):
        scoring = {
            "cosine": ScoringFunction.COSINE,
            "dot": ScoringFunction.DOT_PRODUCT,
            "maxsim": ScoringFunction.MAX_SIM,
        }
        function = scoring.get(str(encoder.similarity), ScoringFunction.CUSTOM)
        changes.update(similarity_fn_name=function, modalities=sorted(encoder.modalities))
    if known is not None:
        return known.model_copy(update=changes)
    return ModelMeta.create_empty({"name": result_name(encoder.spec), "framework": ["PyTorch"], **changes})


def result_name(spec: ModelSpec) -> str:
    """The "organisation/model" name of a spec: hub names as they are, directories and factories under "local/"."""
    if os.path.isdir(spec.name):
        return "local/" + os.path.basename(os.path.abspath(spec.name))
    if ":" in spec.name:
        return "local/" + re.sub(r"[^\w.-]+", ".", spec.name)
    return spec.name if "/" in spec.name else "local/" + spec.name


def _experiment_options(spec: ModelSpec) -> dict[str, Any]:
    """The options as MTEB may put them into a folder name: a path is cut to its last part, a URL has no slashes."""
    options = spec.options()
    if "endpoint" in options:
        options["endpoint"] = re.sub(r"[^\w.-]+", "-", options["endpoint"].split("://")[-1])
    if "adapter" in options:
        options["adapter"] = os.path.basename(os.path.normpath(options["adapter"]))
    return options


def _revision(encoder: Encoder | SearchModel) -> str:
    """The commit of a hub model, or the first digits of a directory's digest."""
    if isinstance(encoder, Encoder):
        for name in ("revision", "weights"):
            if encoder.identity.get(name):
                return str(encoder.identity[name])[:40]
    return NO_REVISION
