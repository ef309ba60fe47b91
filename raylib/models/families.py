"""The table of model families: which encoder runs a model, and what raylib knows of it without loading it.

A new model of a known mechanism is one entry here and one parity test. Nothing heavy is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Member:
    """One published model of a family. dim: width of a vector; max_tokens: of its text side.

    revision: the commit that MTEB's published scores are of, used unless another is asked for.
    """

    dim: int
    max_tokens: int | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Family:
    """One mechanism with one set of settings.

    encoder: "module:class", imported on use; called as class(spec, family).
    architectures: the names in config.json's "architectures" (or "model_type") that select this family for a
    local directory. marks: files that only directories of this family hold; they decide before architectures.
    settings: what the encoder class needs to be told (prompts, pooling, upstream class names).
    """

    name: str
    encoder: str
    kind: Literal["dense", "late-interaction", "lexical"]
    modalities: tuple[str, ...]
    architectures: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    members: Mapping[str, Member] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def _colpali_engine(name: str, model: str, processor: str, members: Mapping[str, Member], **settings: Any) -> Family:
    """A family of colpali-engine. Its Col… models are late-interaction and its Bi… models dense, and a checkpoint's
    architecture is the name of the model class."""
    late = model.startswith("Col")
    defaults = {"query_prefix": "", "fusion": "concat" if late else "sum"}
    return Family(
        name=name,
        encoder="raylib.models.colpali:ColPaliEngineEncoder",
        kind="late-interaction" if late else "dense",
        modalities=("text", "image"),
        architectures=(model,),
        members=members,
        settings={"model": model, "processor": processor, **defaults, **settings},
    )


_LAST = ("last", "mean", "cls")
_OLD_QWEN = {rf"^model\.{part}": f"language_model.{part}" for part in ("layers", "embed_tokens", "norm")}
_OLD_GEMMA = {r"^language_model\.model\.": "language_model."}
_ADAPTER_HEAD = {r"^base_model\.model\.custom_text_proj": "custom_text_proj"}

COLPALI_ENGINE: tuple[Family, ...] = (
    _colpali_engine(
        "colpali",
        "ColPali",
        "ColPaliProcessor",
        {
            "vidore/colpali-v1.1": Member(128, 16384, "a0f15e3bcf97110e7ac1bb4be4bcd30eeb31992a"),
            "vidore/colpali-v1.2": Member(128, 16384, "6b89bc63c16809af4d111bfe412e2ac6bc3c9451"),
            "vidore/colpali-v1.3": Member(128, 16384, "1b5c8929330df1a66de441a9b5409a878f0de5b0"),
            "raylib/untrained-colpali": Member(128, 1024),
        },
        query_prefix="Query: ",
        prefix_attention=True,
    ),
    _colpali_engine(
        "colqwen2",
        "ColQwen2",
        "ColQwen2Processor",
        {"vidore/colqwen2-v1.0": Member(128, 32768, "530094e83a40ca4edcb5c9e5ddfa61a4b5ea0d2f")},
        query_prefix="Query: ",
        tile=28,
    ),
    _colpali_engine(
        "colqwen2.5",
        "ColQwen2_5",
        "ColQwen2_5_Processor",
        {
            "vidore/colqwen2.5-v0.2": Member(128, 128000, "6f6fcdfd1a114dfe365f529701b33d66b9349014"),
            "nomic-ai/colnomic-embed-multimodal-3b": Member(128, 128000, "86627b4a9b0cade577851a70afa469084f9863a4"),
            "nomic-ai/colnomic-embed-multimodal-7b": Member(128, 128000, "09dbc9502b66605d5be56d2226019b49c9fd3293"),
            "ApsaraStackMaaS/EvoQwen2.5-VL-Retriever-3B-v1": Member(
                128, 128000, "aeacaa2775f2758d82721eb1cf2f5daf1a392da9"
            ),
            "ApsaraStackMaaS/EvoQwen2.5-VL-Retriever-7B-v1": Member(
                128, 128000, "8952ac6ee0e7de2e9211b165921518caf9202110"
            ),
        },
        query_prefix="Query: ",
        tile=28,
    ),
    _colpali_engine("colqwen3", "ColQwen3", "ColQwen3Processor", {}, tile=32),
    _colpali_engine(
        "colqwen3.5",
        "ColQwen3_5",
        "ColQwen3_5Processor",
        {"athrael-soju/colqwen3.5-4.5B-v3": Member(128, 262144, "4ad8f151e39bce3adcf88e0bdd72e724c7606638")},
        fusion="image",
        tile=32,
    ),
    _colpali_engine(
        "colidefics3",
        "ColIdefics3",
        "ColIdefics3Processor",
        {
            "vidore/colSmol-256M": Member(128, 8192, "a59110fdf114638b8018e6c9a018907e12f14855"),
            "vidore/colSmol-500M": Member(128, 8192, "1aa9325cba7ed2b3b9b97ede4d55026322504902"),
        },
        query_prefix="Query: ",
    ),
    _colpali_engine(
        "colmodernvbert",
        "ColModernVBert",
        "ColModernVBertProcessor",
        {"ModernVBERT/colmodernvbert": Member(128, 8192, "9052fc0ef8acf9fb764681ce0315a7f89ea7d276")},
    ),
    dataclasses.replace(
        _colpali_engine(
            "colgemma3",
            "ColGemma3",
            "ColGemmaProcessor3",
            {"Cognitive-Lab/ColNetraEmbed": Member(128, 131072)},
            query_prefix="Query: ",
            key_mapping=_ADAPTER_HEAD | _OLD_GEMMA,
        ),
        encoder="raylib.models.gemma:GemmaEncoder",
    ),
    # BiPaliProcessor loads no tokenizer under transformers 5; it is ColPaliProcessor but for its score().
    _colpali_engine("bipali", "BiPali", "ColPaliProcessor", {}, prefix_attention=True),
    _colpali_engine("biqwen2", "BiQwen2", "BiQwen2Processor", {}, tile=28, poolings=_LAST, key_mapping=_OLD_QWEN),
    _colpali_engine(
        "biqwen2.5",
        "BiQwen2_5",
        "BiQwen2_5_Processor",
        {
            "nomic-ai/nomic-embed-multimodal-3b": Member(2048, 128000, "298930bb768c50b91d2799d6f3b0daf46ea52e70"),
            "nomic-ai/nomic-embed-multimodal-7b": Member(3584, 128000, "1291f1b6ca07061b0329df9d5713c09b294be576"),
        },
        tile=28,
        poolings=_LAST,
        key_mapping=_OLD_QWEN,
    ),
    _colpali_engine("biqwen3", "BiQwen3", "BiQwen3Processor", {}, tile=32, poolings=_LAST),
    _colpali_engine("biqwen3.5", "BiQwen3_5", "BiQwen3_5Processor", {}, tile=32, poolings=_LAST),
    _colpali_engine("biidefics3", "BiIdefics3", "BiIdefics3Processor", {}, poolings=_LAST),
    _colpali_engine(
        "bimodernvbert",
        "BiModernVBert",
        "BiModernVBertProcessor",
        {
            "ModernVBERT/bimodernvbert": Member(768, 8192, "09ed8566839b68207c76e4869f1bb4406edc2fcd"),
            "ModernVBERT/modernvbert-embed": Member(768, 8192, "da507113c3fdbc2e49d39c4b0148025c6bd008f9"),
        },
        poolings=("mean", "last", "cls"),
    ),
    dataclasses.replace(
        _colpali_engine(
            "bigemma3",
            "BiGemma3",
            "BiGemmaProcessor3",
            {"Cognitive-Lab/NetraEmbed": Member(2560, 131072)},
            query_prefix="Query: ",
            options=("embedding_dim",),
            poolings=_LAST,
            key_mapping=_OLD_GEMMA,
        ),
        encoder="raylib.models.gemma:BiGemmaEncoder",
    ),
)


def _vlm(name: str, encoder: str, model: str, members: Mapping[str, Member], **options: Any) -> Family:
    """A family that pools the last token of a vision-language model. model: its class in transformers."""
    base = {"model": model, "image_token": "<|image_pad|>", "max_tokens": 32768, "page_prompts": _PAGE_PROMPTS}
    settings = {**base, **options.pop("settings")}
    return Family(
        name, f"raylib.models.{encoder}", "dense", ("text", "image"), members=members, settings=settings, **options
    )


_QWEN_PIXELS = {"tile": 28, "min_pixels": 4 * 28**2, "max_pixels": 1280 * 28**2}
_PAGE_PROMPTS = {
    "query": "Find a document image that matches the given query:",
    "document": "Understand the content of the provided document image.",
}

VLM: tuple[Family, ...] = (
    _vlm(
        "gme-qwen2-vl",
        "vlm:GmeEncoder",
        "Qwen2VLForConditionalGeneration",
        {
            "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct": Member(1536, 32768, "ce765ae71b8cdb208203cd8fb64a170b1b84293a"),
            "Alibaba-NLP/gme-Qwen2-VL-7B-Instruct": Member(3584, 32768, "477027a6480f8630363be77751f169cc3434b673"),
        },
        architectures=("GmeQwen2VL",),
        marks=("gme_inference.py", "modeling_gme_qwen2vl.py"),
        # Limits of MTEB's wrapper; the model could read more.
        settings={**_QWEN_PIXELS, "max_tokens": 1800, "instruction": "You are a helpful assistant."},
    ),
    _vlm(
        "vlm2vec",
        "vlm:Vlm2VecEncoder",
        "AutoModelForImageTextToText",
        {
            "VLM2Vec/VLM2Vec-V2.0": Member(1536, 32768, "e39ff079b8275ef876d3656da8c0bddbff3c4dde"),
            "TIGER-Lab/VLM2Vec-Qwen2VL-2B": Member(1536, 32768),
            "TIGER-Lab/VLM2Vec-Qwen2VL-7B": Member(3584, 32768),
        },
        architectures=(
            "Qwen2VLForConditionalGeneration",
            "Qwen2_5_VLForConditionalGeneration",
            "qwen2_vl",
            "qwen2_5_vl",
        ),
        settings=_QWEN_PIXELS,
    ),
    _vlm(
        "b3-qwen2-vl",
        "vlm:Vlm2VecEncoder",
        "Qwen2VLForConditionalGeneration",
        {"raghavlite/B3_Qwen2_2B": Member(1536, 32768), "raghavlite/B3_Qwen2_7B": Member(3584, 32768)},
        settings=_QWEN_PIXELS,
    ),
    _vlm(
        "vlm2vec-llava-next",
        "vlm_llava:LlavaNextEncoder",
        "LlavaNextForConditionalGeneration",
        {"TIGER-Lab/VLM2Vec-LLaVa-Next": Member(4096)},
        architectures=("LlavaNextForConditionalGeneration", "llava_next"),
        settings={"image_token": "<image>"},
    ),
    _vlm(
        "vlm2vec-phi3v",
        "vlm:refuse_phi3v",
        "Phi3VForCausalLM",
        {"TIGER-Lab/VLM2Vec-Full": Member(3072, 131072), "TIGER-Lab/VLM2Vec-LoRA": Member(3072, 131072)},
        architectures=("Phi3VForCausalLM", "phi3_v"),
        settings={},
    ),
)

FAMILIES: tuple[Family, ...] = (
    Family(
        name="clip",
        encoder="raylib.models.clip:ClipEncoder",
        kind="dense",
        modalities=("text", "image"),
        architectures=("CLIPModel", "clip"),
        members={
            "openai/clip-vit-base-patch16": Member(512, 77, "57c216476eefef5ab752ec549e440a49ae4ae5f3"),
            "openai/clip-vit-base-patch32": Member(512, 77, "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"),
            "openai/clip-vit-large-patch14": Member(768, 77, "32bd64288804d66eefd0ccbe215aa642df71cc41"),
            "raylib/untrained-clip": Member(64, 77),
        },
        settings={"padding": True, "over_white": True},
    ),
    Family(
        name="siglip",
        encoder="raylib.models.clip:ClipEncoder",
        kind="dense",
        modalities=("text", "image"),
        architectures=("SiglipModel", "Siglip2Model", "siglip", "siglip2"),
        members={
            "google/siglip2-base-patch16-224": Member(768, 64, "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2"),
            "google/siglip2-base-patch16-256": Member(768, 64, "3f9f96cb90da5dbc758b01813f2f6f1aee24c1ab"),
            "google/siglip2-base-patch16-384": Member(768, 64, "f775b65a79762255128c981547af89addcfe0f88"),
            "google/siglip2-base-patch16-512": Member(768, 64, "a89f5c5093f902bf39d3cd4d81d2c09867f0724b"),
            "google/siglip2-base-patch32-256": Member(768, 64, "94dffa8cb1179de3e03f091dbc3917e5d5a9ae84"),
            "google/siglip2-giant-opt-patch16-256": Member(1536, 64, "46d7129e1aa1527cc5a44d86fb35250df3abf0aa"),
            "google/siglip2-giant-opt-patch16-384": Member(1536, 64, "a713301b217d38485fb2204c808367d10bc3cc40"),
            "google/siglip2-large-patch16-256": Member(1024, 64, "787800c8990e6f058423089178e718139608408c"),
            "google/siglip2-large-patch16-384": Member(1024, 64, "1b426889ea62b5a72bf9839009a1b184bfc9c178"),
            "google/siglip2-large-patch16-512": Member(1024, 64, "49488218e80259885f3be61d7a9455faf833b7a8"),
            "google/siglip2-so400m-patch14-224": Member(1152, 64, "78e403963a4f6a3640d07803284752326fdf4edf"),
            "google/siglip2-so400m-patch14-384": Member(1152, 64, "e8e487298228002f3d8a82e0cd5c8ea9c567f57f"),
            "google/siglip2-so400m-patch16-256": Member(1152, 64, "e8708ab72d125807e45b36fb7d4e0aacbb59f379"),
            "google/siglip2-so400m-patch16-384": Member(1152, 64, "dd658faac399427308559e2c3ac1e99cbe43845d"),
            "google/siglip2-so400m-patch16-512": Member(1152, 64, "ceea1cba8130d8271436da4828633198c176a775"),
            "google/siglip-base-patch16-224": Member(768, 64, "7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed"),
            "google/siglip-base-patch16-256": Member(768, 64, "b078df89e446d623010d890864d4207fe6399f61"),
            "google/siglip-base-patch16-256-multilingual": Member(768, 64, "8952a4eafcde3cb7ab46b1dd629b33f8784ca9c6"),
            "google/siglip-base-patch16-384": Member(768, 64, "41aec1c83b32e0a6fca20ad88ba058aa5b5ea394"),
            "google/siglip-base-patch16-512": Member(768, 64, "753a949581523b60257d93e18391e8c27f72eb22"),
            "google/siglip-large-patch16-256": Member(1024, 64, "d0da9f876e7d66b4e250cd2450c3ba2ce735e447"),
            "google/siglip-large-patch16-384": Member(1024, 64, "ce005573a40965dfd21fd937fbdeeebf2439fc35"),
            "google/siglip-so400m-patch14-224": Member(1152, 16, "d04cf29fca7b6374f74d8bea1969314492266b5e"),
            "google/siglip-so400m-patch14-384": Member(1152, 64, "9fdffc58afc957d1a03a25b10dba0329ab15c2a3"),
            "google/siglip-so400m-patch16-256-i18n": Member(1152, 64, "365d321c0cfdea96bc28e3a29787a11a062681a1"),
        },
        # Padding tokens are attended to, as in training. Published scores came from images whose alpha was dropped.
        settings={"padding": "max_length", "over_white": False},
    ),
    Family(
        name="colintern",
        encoder="raylib.models.intern:InternEncoder",
        kind="late-interaction",
        modalities=("text", "image"),
        # The last is the format of InternVL's own code, which the encoder refuses by name.
        architectures=("InternVLForConditionalGeneration", "InternVLModel", "internvl", "InternVLChatModel"),
    ),
    Family(
        name="sentence-transformers",
        encoder="raylib.models.sentence:SentenceEncoder",
        kind="dense",
        modalities=("text",),
        members={
            "BAAI/bge-m3": Member(1024, 8192, "5617a9f61b028005a4858fdac845db406aefb181"),
            "google/embeddinggemma-300m": Member(768, 2048, "64614b0b8b64f0c6c1e52b07e4e9a4e8fe4d2da2"),
        },
    ),
    Family(
        name="qwen3-embedding",
        encoder="raylib.models.sentence:SentenceEncoder",
        kind="dense",
        modalities=("text",),
        members={
            "Qwen/Qwen3-Embedding-0.6B": Member(1024, 32768, "b22da495047858cce924d27d76261e96be6febc0"),
            "Qwen/Qwen3-Embedding-4B": Member(2560, 32768, "636cd9bf47d976946cdbb2b0c3ca0cb2f8eea5ff"),
            "Qwen/Qwen3-Embedding-8B": Member(4096, 32768, "4e423935c619ae4df87b646a3ce949610c66241c"),
        },
        settings={"query_instruction": "Instruct: {instruction}\nQuery:"},
    ),
    Family(
        name="hashed-ngrams",
        encoder="raylib.models.hashed:HashedEncoder",
        kind="lexical",
        modalities=("text",),
        members={"raylib/hashed-ngrams": Member(1024)},
    ),
    Family(
        name="bm25",
        encoder="raylib.models.bm25:Bm25",
        kind="lexical",
        modalities=("text",),
        members={"raylib/bm25": Member(0)},
    ),
    *COLPALI_ENGINE,
    *VLM,
)


def family(name: str) -> Family:
    """The family of that name; KeyError if the table has none."""
    return {entry.name: entry for entry in FAMILIES}[name]
