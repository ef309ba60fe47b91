"""A small model with the interface of FastVLM's: one id of a prompt stands for all of an image's tokens."""

import torch
from torch import nn
from transformers import CLIPImageProcessor, Qwen2Config, Qwen2ForCausalLM, Qwen2Model

IMAGE_TOKEN_INDEX = -200


class LlavaConfig(Qwen2Config):
    model_type = "llava_qwen2"


class MobileCLIPVisionTower(nn.Module):
    """Gives a plain tensor [rows, tokens, width]."""

    def __init__(self, name, width):
        super().__init__()
        self.side = int(name.split("_")[-1])
        size = {"height": self.side, "width": self.side}
        self.image_processor = CLIPImageProcessor(
            crop_size=size, image_mean=[0.0] * 3, image_std=[1.0] * 3, size={"shortest_edge": self.side}
        )
        self.vision_tower = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.Tanh(), nn.Conv2d(16, width, 8, 8))

    def forward(self, images):
        return self.vision_tower(images).flatten(2).transpose(1, 2)

    @property
    def num_patches(self):
        return (self.side // 64) ** 2


class LlavaQwen2Model(Qwen2Model):
    config_class = LlavaConfig

    def __init__(self, config):
        super().__init__(config)
        self.vision_tower = MobileCLIPVisionTower(config.mm_vision_tower, config.mm_hidden_size)
        self.mm_projector = nn.Linear(config.mm_hidden_size, config.hidden_size)


class LlavaQwen2ForCausalLM(Qwen2ForCausalLM):
    config_class = LlavaConfig

    def __init__(self, config):
        super(Qwen2ForCausalLM, self).__init__(config)
        self.model = LlavaQwen2Model(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_model(self):
        return self.model

    def get_vision_tower(self):
        return self.model.vision_tower

    def prepare_inputs_labels_for_multimodal(
        self, input_ids, position_ids, attention_mask, past_key_values, labels, images, image_sizes=None
    ):
        """Takes out the padding, puts each row's image in the place of its one id, and pads again where the config
        says."""
        if images is None or input_ids.shape[1] == 1:
            return input_ids, position_ids, attention_mask, past_key_values, None, labels
        features = self.model.mm_projector(self.get_vision_tower()(images))
        rows = []
        for ids, mask, image in zip(input_ids, attention_mask.bool(), features, strict=True):
            ids = ids[mask]
            (at,) = torch.where(ids == IMAGE_TOKEN_INDEX)[0].tolist()
            before, after = self.model.embed_tokens(ids[:at]), self.model.embed_tokens(ids[at + 1 :])
            rows.append(torch.cat([before, image, after])[: self.config.tokenizer_model_max_length])
        longest = max(len(row) for row in rows)
        embeds = torch.zeros(len(rows), longest, rows[0].shape[1], dtype=rows[0].dtype, device=rows[0].device)
        mask = torch.zeros(len(rows), longest, dtype=attention_mask.dtype, device=embeds.device)
        positions = torch.zeros(len(rows), longest, dtype=torch.long, device=embeds.device)
        for number, row in enumerate(rows):
            left = getattr(self.config, "tokenizer_padding_side", "right") == "left"
            place = slice(longest - len(row), None) if left else slice(len(row))
            embeds[number, place], mask[number, place] = row, 1
            positions[number, place] = torch.arange(len(row), device=embeds.device)
        return None, None if position_ids is None else positions, mask, past_key_values, embeds, labels

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, inputs_embeds=None, images=None, **others
    ):
        if inputs_embeds is None:
            input_ids, position_ids, attention_mask, _, inputs_embeds, _ = self.prepare_inputs_labels_for_multimodal(
                input_ids, position_ids, attention_mask, None, None, images
            )
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **others,
        )

    @torch.no_grad()
    def generate(self, inputs=None, images=None, **others):
        mask = others.pop("attention_mask", None)
        _, positions, mask, _, embeds, _ = self.prepare_inputs_labels_for_multimodal(
            inputs, others.pop("position_ids", None), mask, None, None, images
        )
        return super().generate(position_ids=positions, attention_mask=mask, inputs_embeds=embeds, **others)
