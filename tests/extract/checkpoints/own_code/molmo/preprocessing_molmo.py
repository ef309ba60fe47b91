"""The processor of a small model with Molmo's interface: `process` writes the prompt and cuts the image into crops."""

import numpy as np
import torch
from transformers.processing_utils import ProcessorMixin

PATCH, SIDE = 7, 4  # pixels of a patch, patches of a crop, each way; one token for two by two patches


def patches_of(image):
    """[16, 147]: the patches of a crop of 28 pixels."""
    pixels = np.asarray(image.resize((PATCH * SIDE, PATCH * SIDE)), dtype=np.float32) / 127.5 - 0.9
    grid = pixels.reshape(SIDE, PATCH, SIDE, PATCH, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(SIDE * SIDE, PATCH * PATCH * 3)


class MolmoProcessor(ProcessorMixin):
    def __init__(self, tokenizer=None, **others):
        super().__init__(tokenizer)

    def process(self, text=None, images=None):
        """Tensors without an axis for rows. First the whole image; then two or three crops side by side if it is wide,
        each a part wider than it has tokens for: of its two columns of tokens only the second is used, but for the
        first crop."""
        (image,) = images
        columns = min(3, round(image.width / image.height)) if image.width > image.height else 0
        width = image.width // max(columns, 1)
        parts = [image.crop((i * width, 0, (i + 1) * width, image.height)) for i in range(columns)]
        start, end, patch, column = self.tokenizer.convert_tokens_to_ids(
            ["<im_start>", "<im_end>", "<im_patch>", "<im_col>"]
        )
        tokens, places = [start], []
        places.append([len(tokens) + i + i // 2 for i in range(4)])
        tokens += [patch, patch, column] * 2 + [end]
        if columns:
            first, across = len(tokens) + 1, columns + 1  # tokens of a row over all crops
            for crop in range(columns):
                rows = [[first + r * (across + 1) + crop + c for c in range(2)] for r in range(2)]
                places.append([-100 if crop and not c else rows[r][c] for r in range(2) for c in range(2)])
            tokens += [start] + ([patch] * across + [column]) * 2 + [end]
        words = self.tokenizer.encode(f" User: {text} Assistant:", add_special_tokens=False)
        crops = np.stack([patches_of(part) for part in [image, *parts]])
        return {
            "input_ids": torch.tensor([self.tokenizer.eos_token_id, *tokens, *words]),
            "images": torch.from_numpy(crops),
            "image_input_idx": torch.tensor([[i + 1 if i >= 0 else i for i in crop] for crop in places]).int(),
            "image_masks": torch.ones(crops.shape[:2]),
        }
