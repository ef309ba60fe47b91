"""Where an MTEB model comes from, what it is, and what of the things it is told its vectors depend on.

Nothing is loaded for a registered name. A user's factory is called once per process, and only when it must be.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import os
import sys
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raylib.errors import UserError
from raylib.models.loading import device_name, model_failure
from raylib.models.protocol import ModelSpec

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

TOLD = ("task_metadata", "prompt_type", "hf_split", "hf_subset")
"""What MTEB tells `encode` besides the inputs."""

_PASSED_ON = ("hf_split", "hf_subset")
"""Handing these to another function by name does not count as reading them: nearly every wrapper does."""


class ModelSource(ABC):
    """The two ways to an MTEB model, as the bridge sees them."""

    spec: ModelSpec

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What decides the vectors; JSON-able."""

    @property
    @abstractmethod
    def meta(self) -> ModelMeta | None: ...

    @property
    @abstractmethod
    def candidates(self) -> list[Any]:
        """Classes, or functions that define one, whose `encode` may be the model's; empty when that is not known."""

    @abstractmethod
    def load(self) -> Any:
        """The MTEB model, ready to run. Raises ModelError with the model's name."""

    dims: tuple[int, ...] = ()
    """The dimensions that the model can be asked for."""
    runs_hub_code: bool = False

    @cached_property
    def reads(self) -> frozenset[str]:
        """Those of TOLD that `encode` may use. All of them when its source cannot be read."""
        found = [told_names(candidate) for candidate in self.candidates]
        return frozenset().union(*found) if found else frozenset(TOLD)

    @cached_property
    def searches(self) -> bool:
        """True for a model that MTEB runs by its own search or by `predict`, not through vectors."""
        classes = [candidate for candidate in self.candidates if inspect.isclass(candidate)]
        return any(
            hasattr(c, "search") or hasattr(c, "predict") or not hasattr(c, "encode") or _own_similarity(c)
            for c in classes
        )


def _own_similarity(model: type) -> bool:
    """Whether the class compares vectors in a way of its own, which raylib's search does not know."""
    owner = next((base for base in model.__mro__ if "similarity" in base.__dict__), None)
    return owner is not None and not owner.__module__.startswith("mteb.")


class RegistrySource(ModelSource):
    """A name in MTEB's registry."""

    def __init__(self, spec: ModelSpec) -> None:
        from mteb.models.model_implementations import MODEL_REGISTRY

        self.spec = spec
        entry = MODEL_REGISTRY[spec.name]
        if spec.revision not in (None, entry.revision):
            raise UserError(f"--revision is {spec.revision}; MTEB has {spec.name} at {entry.revision} only")
        if entry.loader is None:
            raise UserError(f"MTEB lists scores of {spec.name} and no way to load it; choose another model")
        dims = entry.embed_dim if isinstance(entry.embed_dim, list) else [entry.embed_dim]
        self.dims = tuple(dim for dim in dims if isinstance(dim, int))
        self.runs_hub_code = bool(entry.loader_kwargs.get("trust_remote_code"))

    @property
    def meta(self) -> ModelMeta:
        from mteb.models.model_implementations import MODEL_REGISTRY

        return MODEL_REGISTRY[self.spec.name]

    @property
    def identity(self) -> Mapping[str, Any]:
        from importlib.metadata import version

        # The wrapper's code is part of what decides a vector, and it comes with mteb.
        return {"name": self.spec.name, "revision": self.meta.revision, "mteb": version("mteb")}

    @property
    def candidates(self) -> list[Any]:
        loader: Any = self.meta.loader
        if inspect.isclass(loader):
            return [loader]
        known = loader.__globals__
        promised = loader.__annotations__.get("return")
        promised = known.get(promised) if isinstance(promised, str) else promised
        if inspect.isclass(promised) and promised.__name__ != "EncoderProtocol":
            return [promised]
        if _encode_definitions(loader):  # the loader defines the class inside
            return [loader]
        named = [known[name] for name in loader.__code__.co_names if inspect.isclass(known.get(name))]
        return [c for c in named if hasattr(c, "encode") and not inspect.isabstract(c)]

    def load(self) -> Any:
        options: dict[str, Any] = {"trust_remote_code": True} if self.runs_hub_code else {}
        with model_failure(self.spec, "MTEB cannot load it"):
            device = device_name(self.spec) if self.spec.device else None  # left alone, wrappers choose for themselves
            return self.meta.load_model(device=device, embed_dim=self.spec.embedding_dim, **options)


class FactorySource(ModelSource):
    """`module:factory`, a callable without required arguments, or `module:Class`."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        _ = self._factory  # a wrong name is found now, in the driver

    @property
    def _factory(self) -> Callable[[], Any]:
        return find_factory(self.spec.name)

    @property
    def meta(self) -> ModelMeta | None:
        """The model's own; from the class where it stands there, so that a driver need not make the model."""
        from mteb.models.model_meta import ModelMeta

        of_class = getattr(self._factory, "mteb_model_meta", None)
        return of_class if isinstance(of_class, ModelMeta) else getattr(self.load(), "mteb_model_meta", None)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The factory's name, its module's source, and the name and revision that its metadata gives: raise that
        revision when the weights change in a way that the code does not show."""
        module = sys.modules[self.spec.name.split(":")[0]]
        try:
            source = inspect.getsource(module)
        except (OSError, TypeError):  # compiled, or typed in by hand
            source = ""
        named = [self.meta.name, self.meta.revision] if self.meta is not None else None
        return {"factory": self.spec.name, "source": hashlib.sha256(source.encode()).hexdigest(), "meta": named}

    @property
    def candidates(self) -> list[Any]:
        return [self._factory if inspect.isclass(self._factory) else type(self.load())]

    def load(self) -> Any:
        return made_by_factory(self.spec)

    def __getstate__(self) -> dict[str, Any]:
        return {"spec": self.spec, "reads": self.reads, "searches": self.searches}


def find_factory(name: str) -> Callable[[], Any]:
    """ "module:factory" → the callable. Raises UserError when it is not there or is no callable."""
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # a console script, unlike `python -m`, does not look where the user stands
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # the user's module may fail in any way
        raise UserError(f"--model {name}: cannot import {module_name}: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise UserError(f"--model {name}: {module_name} has no callable {attribute!r}; expected module:factory")
    return found


_made: dict[str, Any] = {}


def made_by_factory(spec: ModelSpec) -> Any:
    """What the factory gives, made once per process. Raises ModelError when it fails."""
    if spec.name not in _made:
        factory = find_factory(spec.name)
        with model_failure(spec, "its factory failed"):
            _made[spec.name] = factory()
    return _made[spec.name]


def told_names(candidate: Any) -> frozenset[str]:
    """Those of TOLD that the `encode` of a class (or of a class defined inside a function) may use.

    Read from the source: a name counts unless it is only deleted, or only handed on by its own name where that is
    allowed. What arrives in **kwargs counts where kwargs is used at all. All of TOLD when there is no source.
    """
    definitions = _encode_definitions(candidate)
    return frozenset().union(*map(_names_used, definitions)) if definitions else frozenset(TOLD)


def _encode_definitions(candidate: Any) -> list[ast.FunctionDef]:
    target: Any = inspect.unwrap(getattr(candidate, "encode", object)) if inspect.isclass(candidate) else candidate
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(target)))
    except (OSError, TypeError, SyntaxError):
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "encode"]


def _names_used(encode: ast.FunctionDef) -> frozenset[str]:
    passed_on = {
        id(keyword.value)
        for node in ast.walk(encode)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in _PASSED_ON and isinstance(keyword.value, ast.Name) and keyword.value.id == keyword.arg
    }
    loaded = {
        node.id
        for node in ast.walk(encode)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in passed_on
    }
    arguments = encode.args
    declared = {a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
    used = {name for name in TOLD if name in declared and name in loaded}
    rest = arguments.kwarg.arg if arguments.kwarg else None
    if rest in loaded:
        quoted = {node.value for node in ast.walk(encode) if isinstance(node, ast.Constant)}
        used |= {n for n in TOLD if n not in declared and (n not in _PASSED_ON or n in quoted)}
    return frozenset(used)
