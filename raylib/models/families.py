"""The table of model families: which encoder runs a model, and what raylib knows of it without loading it.

A new model of a known mechanism is one entry here, or in `families_colpali` or `families_vlm`, and one parity test.
Nothing heavy is imported.
"""

from __future__ import annotations

from raylib.models.families_colpali import COLPALI_ENGINE
from raylib.models.families_vlm import VLM
from raylib.models.family import Family, Member

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
        name="bge-m3",
        encoder="raylib.models.bge_m3:BgeM3Encoder",
        kind="late-interaction",
        modalities=("text",),
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
