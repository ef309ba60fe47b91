"""Rows of the table of families that colpali-engine runs: its late-interaction models (Col…) and dense ones (Bi…)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from raylib.models.family import Family, Member


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
            "raylib/untrained-page-retriever": Member(128, 1024),
            "raylib/page-retriever-tiny": Member(128, 1024),
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
