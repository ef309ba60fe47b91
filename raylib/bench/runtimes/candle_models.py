"""What embed_anything's Candle models compute, and how a checkpoint must read so that they compute its function.

They follow one published model each and take the rest for granted; what they take for granted is looked up here, and a
model that differs is refused by name. What differs in notation alone is rewritten, exactly:

- XLM-R counts positions from the padding id on: a BERT whose position table starts after that row is the same function.
- Gemma 3 that reads both ways sees half of `sliding_window` to each side; Candle's takes the number as it stands.
- Candle feeds every image tower pixels from -1 to 1. CLIP's own mean and spread are an affine map of those, which goes
  into its patch convolution and, as that has no bias, into the positions of its patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylib.bench.protocol import Target
from raylib.bench.runtimes.checkpoints import Checkpoint, Unsupported
from raylib.models.clip import ClipEncoder
from raylib.models.sentence import POOLINGS, SentenceEncoder

if TYPE_CHECKING:
    import torch

Weights = dict[str, "torch.Tensor"]

IMAGE_SIZE = 224
"""Pixels of a side: embed_anything scales every image to that, whatever the model's configuration says."""

MAX_TOKENS = 1024
"""Where it cuts texts for Gemma 3 and Qwen 3; for the others it is told."""

_BERT_POOLINGS = {"mean": "Mean", "cls": "Cls"}
"""Of embed_anything's three: by LastToken it panics over a batch."""


@dataclass
class Plan:
    """config: of config.json. pooling: a name of embed_anything's Pooling, for BERT. cut: tokens that tokenizer.json is
    to cut at. max_tokens: that a text may have for its vector to be the model's. rewrite: of weights that change; None
    where the model's own file will do. heads: files of dense layers, by the place where Candle looks."""

    config: dict[str, Any]
    pooling: str | None = None
    cut: int | None = None
    max_tokens: int | None = None
    rewrite: Callable[[Weights], Weights] | None = None
    heads: dict[str, Path] = field(default_factory=dict)


def plan_of(found: Checkpoint, target: Target) -> Plan:
    """Raises Unsupported for what Candle has no model for, or only one that computes something else."""
    encoder = found.encoder
    if isinstance(encoder, ClipEncoder):
        return _two_towers(found, target)
    if target.tower == "image":
        raise Unsupported(f"{target.spec.name} has no image tower")
    if type(encoder) is not SentenceEncoder:
        raise Unsupported(f"embed_anything has no Candle model for family {encoder.family.name}")
    kinds = [name for name, _ in found.modules]
    after = ([], ["Normalize"], ["Dense", "Dense", "Normalize"])
    if kinds not in [["Transformer", "Pooling", *rest] for rest in after]:
        raise Unsupported(f"embed_anything's Candle models have no place for the modules {', '.join(kinds)}")
    config = found.config()
    make = {
        "gemma3_text": _gemma,
        "qwen3": _qwen,
        "xlm-roberta": _bert,
        "roberta": _bert,
        "bert": _bert,
    }.get(config.model_type)
    if make is None:
        raise Unsupported(f"embed_anything has no Candle model for {config.model_type} as raylib runs it")
    return make(found, config)


def _expect(about: str, got: Any, expected: Any) -> None:
    if got != expected:
        raise Unsupported(f"embed_anything's Candle model takes {about} to be {expected}; here it is {got}")


def _pooling(found: Checkpoint) -> str | None:
    encoder = found.encoder
    assert isinstance(encoder, SentenceEncoder)
    asked = encoder.spec.pooling
    return POOLINGS[asked] if asked is not None else encoder.own_pooling()


def _taken(config: Any, names: str, **more: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names.split()} | more


# Text models.

_DECODER = (
    "attention_bias head_dim hidden_size intermediate_size num_attention_heads num_hidden_layers num_key_value_heads "
    "rms_norm_eps vocab_size max_position_embeddings"
)


def _rope(parameters: dict[str, Any]) -> float:
    _expect("the kind of rotary positions", parameters.get("rope_type", "default"), "default")
    return float(parameters["rope_theta"])


def _gemma(found: Checkpoint, config: Any) -> Plan:
    _expect("attention of Gemma 3", "both ways" if config.use_bidirectional_attention else "causal", "both ways")
    _expect("query_pre_attn_scalar, of which it takes head_dim instead,", config.query_pre_attn_scalar, config.head_dim)
    _expect("the number of key-value heads of Gemma 3", config.num_key_value_heads, 1)  # it panics with more
    _expect("pooling of Gemma 3", _pooling(found), "mean")
    pattern = next((n + 1 for n, kind in enumerate(config.layer_types) if kind == "full_attention"), None)
    pattern = pattern or config.num_hidden_layers + 1
    regular = ["sliding_attention" if (n + 1) % pattern else "full_attention" for n in range(config.num_hidden_layers)]
    _expect("every n-th layer of Gemma 3 alone to see the whole text:", list(config.layer_types), regular)
    dense = found.named("Dense")
    _expect("the number of dense layers after Gemma 3", len(dense), 2)
    for _, layer in dense:
        plain = not layer.get("bias") and layer["activation_function"].rpartition(".")[2] == "Identity"
        _expect("dense layers after Gemma 3", "plain" if plain else "with bias or activation", "plain")
    rope = config.rope_parameters
    read = _taken(
        config,
        f"{_DECODER} hidden_activation query_pre_attn_scalar final_logit_softcapping attn_logit_softcapping",
        architectures=["Gemma3TextModel"],
        rope_theta=_rope(rope["full_attention"]),
        rope_local_base_freq=_rope(rope["sliding_attention"]),
        sliding_window=config.sliding_window,  # halved already, as transformers reads it
        _sliding_window_pattern=pattern,
    )
    heads = {f"{n}_Dense/model.safetensors": place / "model.safetensors" for n, (place, _) in enumerate(dense, 2)}
    return Plan(read, max_tokens=min(MAX_TOKENS, found.max_tokens), heads=heads)


def _qwen(found: Checkpoint, config: Any) -> Plan:
    _expect("pooling of Qwen 3", _pooling(found), "lasttoken")
    _expect("sliding windows of Qwen 3", bool(config.use_sliding_window), False)
    _expect("dense layers after Qwen 3", len(found.named("Dense")), 0)
    read = _taken(
        config,
        f"{_DECODER} hidden_act max_window_layers tie_word_embeddings use_sliding_window",
        architectures=["Qwen3ForCausalLM"],
        rope_theta=_rope(config.rope_parameters),
        sliding_window=None,
    )
    return Plan(read, max_tokens=min(MAX_TOKENS, found.max_tokens))


def _bert(found: Checkpoint, config: Any) -> Plan:
    """BERT, and RoBERTa and XLM-R as one. Candle cuts texts where the position table ends, so that is cut too."""
    _expect("dense layers after BERT", len(found.named("Dense")), 0)
    pooling = _pooling(found)
    if pooling not in _BERT_POOLINGS:
        raise Unsupported(f"embed_anything pools BERT by {', '.join(_BERT_POOLINGS)}; this model by {pooling}")
    first = 0 if config.model_type == "bert" else config.pad_token_id + 1
    limit = min(found.max_tokens, config.max_position_embeddings - first)

    def rewrite(weights: Weights) -> Weights:
        name = "embeddings.position_embeddings.weight"
        return weights | {name: weights[name][first : first + limit].clone()}

    read = _taken(
        config,
        "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act type_vocab_size "
        "hidden_dropout_prob initializer_range layer_norm_eps pad_token_id",
        architectures=["BertModel"],
        model_type="bert",
        max_position_embeddings=limit,
    )
    unchanged = first == 0 and limit == config.max_position_embeddings
    return Plan(read, pooling=_BERT_POOLINGS[pooling], rewrite=None if unchanged else rewrite)


# Two towers.


def _two_towers(found: Checkpoint, target: Target) -> Plan:
    config, encoder = found.config(), found.encoder
    if config.model_type not in ("clip", "siglip"):
        raise Unsupported(f"embed_anything has no Candle model for {config.model_type}")
    clip, text, vision = config.model_type == "clip", config.text_config.to_dict(), config.vision_config.to_dict()
    if clip:
        for name, tower in (("text", text), ("image", vision)):
            _expect(f"the activation of CLIP's {name} tower", tower["hidden_act"], "quick_gelu")
        _expect("layer_norm_eps", (text["layer_norm_eps"], vision["layer_norm_eps"]), (1e-5, 1e-5))
        text["projection_dim"] = vision["projection_dim"] = config.projection_dim
    plan = Plan(
        {"architectures": ["CLIPModel" if clip else "SiglipModel"], "text_config": text, "vision_config": vision}
    )
    plan.config["logit_scale_init_value"] = 1.0  # asked for, and of no use where the weights hold it
    if target.tower == "image":
        _image_tower(encoder, clip, vision, plan)
    else:
        _text_tower(encoder, clip, text, plan)
    return plan


def _text_tower(encoder: Any, clip: bool, text: dict[str, Any], plan: Plan) -> None:
    tokenizer = encoder.processor.tokenizer
    plan.cut = tokenizer.model_max_length  # it pads to the full length, and panics where a text is longer
    _expect("the model's limit of tokens", plan.cut, text["max_position_embeddings"])
    if clip:
        end, highest = text.get("eos_token_id"), max(tokenizer.get_vocab().values())
        if end not in (2, highest):  # by 2, transformers too means the highest id
            raise Unsupported(
                f"embed_anything ends a text of CLIP at its highest token id; here the end is {end} and the highest "
                f"{highest}"
            )
    else:
        masked = "attention_mask" in encoder.preprocess({"text": ["a"]}, encoder.context(None, None))
        _expect("padding of SigLIP", "masked" if masked else "read as text", "read as text")
        text["pad_token_id"] = tokenizer.pad_token_id


def _image_tower(encoder: Any, clip: bool, vision: dict[str, Any], plan: Plan) -> None:
    _expect("the side of an image in pixels", vision["image_size"], IMAGE_SIZE)
    images = encoder.processor.image_processor
    mean, spread = list(images.image_mean), list(images.image_std)
    if clip:
        plan.rewrite = lambda weights: _fold_pixels(weights, mean, spread)
    else:
        _expect("mean and spread of SigLIP's pixels", (mean, spread), ([0.5] * 3, [0.5] * 3))


def _fold_pixels(weights: Weights, mean: list[float], spread: list[float]) -> Weights:
    """With y in [-1, 1] of which Candle makes x = ((y + 1) / 2 - mean) / spread, W·x = (W / 2·spread)·y + W·offset."""
    import torch

    patch, place = (f"vision_model.embeddings.{name}_embedding.weight" for name in ("patch", "position"))
    kernel = weights[patch].to(torch.float64)
    scale, offset = 0.5 / torch.tensor(spread, dtype=torch.float64), torch.tensor(mean, dtype=torch.float64)
    offset = (0.5 - offset) / torch.tensor(spread, dtype=torch.float64)
    positions = weights[place].to(torch.float64)
    positions[1:] += torch.einsum("ocij,c->o", kernel, offset)  # the first is that of no patch
    return weights | {
        patch: (kernel * scale[:, None, None]).to(torch.float32),
        place: positions.to(torch.float32),
    }
