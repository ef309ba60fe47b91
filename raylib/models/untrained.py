"""Tiny random-weight checkpoints: the visual path on a machine that has no weights.

They show that pages flow through an image model, not that the model is any good; every name says "untrained".
A checkpoint is a function of its seed and, for its words, of the Python version: built again it has the same bytes.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylib import storage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENIZER_TEXT = """
Return the number of items in a list. Open a file and read its lines as text; raise an error when the file is not found.
The function takes an object and gives a string. Each argument has a name, a type and a default value. A class holds
the state of a connection, a socket, a thread or a process. Convert between bytes and strings, encode and decode, parse
and format dates, times and numbers. Search a document for words, match a pattern, sort by key, group by value. Write
the output to a path; close the stream at the end. This method is called with the keys of the mapping, and returns True
if the two sequences are equal, otherwise False. What does the table show? Which page describes the figure on the left?
How many pages does the report have, and who wrote the summary of the annual energy budget in 2024?
"""
"""What the tokenizer below learns its merges from. Any text can be tokenised: unseen words fall apart into bytes."""


def build_tokenizer(
    specials: Mapping[str, str],
    *,
    template: str = "$A",
    extra_tokens: Sequence[str] = (),
    max_length: int = 77,
    padding_side: str = "right",
    vocab_size: int = 700,
    text: str = TOKENIZER_TEXT,
) -> PreTrainedTokenizerFast:
    """A small byte-level BPE tokenizer, built in code and the same every time.

    specials: the tokenizer's own names → token, e.g. {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"};
    they take ids 0, 1, … in that order, a token named twice once, then `extra_tokens` (such as "<image>").
    template: how a sequence is wrapped, in `tokenizers`' own notation ("<s> $A </s>").
    vocab_size: an upper bound on all tokens together; the 256 bytes are always in.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    reserved = list(dict.fromkeys([*specials.values(), *extra_tokens]))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=reserved,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    if template != "$A":
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(t, tokenizer.token_to_id(t)) for t in reserved if t in template.split()]
        )
    named: dict[str, Any] = dict(specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        extra_special_tokens=[t for t in extra_tokens if t not in specials.values()],
        model_max_length=max_length,
        padding_side=padding_side,
        **named,
    )


_WORDS = 4096


def _english() -> str:
    """The language reference that Python's help() shows: half a megabyte of English, so that the words of a page become
    words and not letters, five times fewer tokens."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random weights drawn inside depend on `seed` only; the caller's random state is as it was afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_clip(directory: str | Path, seed: int = 0) -> None:
    """Write a CLIP checkpoint with random weights into `directory`: 96-pixel images, 77 tokens, 64-dim vectors."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tokenizer = build_tokenizer(
        {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        template="<|startoftext|> $A <|endoftext|>",
        vocab_size=_WORDS,
        text=_english(),
    )
    text = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "max_position_embeddings": 77, "projection_dim": 64}
    text |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 96, "patch_size": 16, "projection_dim": 64}
    with seeded(seed):
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))
    images = CLIPImageProcessor(size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96})
    model.save_pretrained(directory)
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(directory)


def build_colpali(directory: str | Path, seed: int = 0) -> None:
    """Write a ColPali checkpoint with random weights into `directory`: 112-pixel pages of 64 tokens and the prompt's,
    128-dim vectors."""
    _build_colpali(directory, seed, image=112, patch=14, width=64)


def build_page_retriever(directory: str | Path, seed: int = 0) -> None:
    """Write a ColPali checkpoint with random weights into `directory`, small enough to be trained on two cores:
    128-pixel pages of 64 patches, on whose rows the lines of StdlibCards stand, 128-dim vectors."""
    _build_colpali(directory, seed, image=128, patch=16, width=128, vision_use_head=False)


def _build_colpali(directory: str | Path, seed: int, *, image: int, patch: int, width: int, **options: Any) -> None:
    """image: side of a page in pixels; patch: of what becomes one token. options: of the vision tower."""
    from colpali_engine.models import ColPali, ColPaliProcessor
    from transformers import PaliGemmaConfig, SiglipImageProcessor

    specials = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    tokenizer = build_tokenizer(specials, extra_tokens=["<image>"], max_length=1024, vocab_size=_WORDS, text=_english())
    images: Any = SiglipImageProcessor(size={"height": image, "width": image}, resample=3)
    images.image_seq_length = (image // patch) ** 2
    processor = ColPaliProcessor(image_processor=images, tokenizer=tokenizer)
    tokens = len(tokenizer)  # PaliGemma's processor has just added its 1,152 places and segments
    shape = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"model_type": "gemma", "vocab_size": tokens, **shape, "num_key_value_heads": 1, "head_dim": width // 4}
    vision = {"model_type": "siglip_vision_model", **shape, "image_size": image, "patch_size": patch, **options}
    config = PaliGemmaConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=tokenizer.get_vocab()["<image>"],
        vocab_size=tokens,
        projection_dim=width,
        hidden_size=width,
    )
    with seeded(seed):
        model = ColPali(config)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)


BUILDERS: dict[str, Callable[[str | Path], None]] = {
    "raylib/untrained-clip": build_clip,
    "raylib/untrained-colpali": build_colpali,
    "raylib/untrained-page-retriever": build_page_retriever,
}
"""Registered name → what writes its checkpoint."""

BUILD_VERSION = 2
"""Part of the cache folder's name: raise it when a builder changes what it writes."""


def checkpoint(name: str) -> Path:
    """The folder of a registered untrained checkpoint, built on first use.

    Safe when several processes ask at once: each builds aside and the first rename wins.
    Raises KeyError for a name that is not in BUILDERS.
    """
    folder = (
        Path(storage.cache_folder())
        / "untrained"
        / f"{name.split('/')[-1]}-v{BUILD_VERSION}-py{platform.python_version()}"
    )
    storage.fill_once(folder, BUILDERS[name])
    return folder
