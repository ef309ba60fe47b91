"""A small model with Molmo's interface, written as for transformers 4: no post_init, no argument of tie_weights."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention, silu
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast, ModelOutput

from .config_molmo import MolmoConfig


def turned(x, positions):
    """Rotary embedding. x [rows, heads, tokens, width], positions [rows, tokens]."""
    half = x.shape[-1] // 2
    angles = positions[:, None, :, None] / 100 ** (torch.arange(half, device=x.device) / half)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class VisionTransformer(nn.Module):
    """Gives the states of all its layers, as a list."""

    def __init__(self, config):
        super().__init__()
        width = config.vision_width
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(config.patches_per_side**2 + 1, width))
        self.patch_embedding = nn.Linear(config.pixels_per_patch, width, bias=False)
        self.resblocks = nn.ModuleList([nn.TransformerEncoderLayer(width, 2, 32, 0.0, batch_first=True) for _ in "123"])

    def forward(self, x):
        x = self.patch_embedding(x)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        hidden_states = []
        for block in self.resblocks:
            x = block(x)
            hidden_states.append(x)
        return hidden_states


class VisionBackbone(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.image_vit = VisionTransformer(config)
        self.image_projector = nn.Linear(2 * config.vision_width, config.hidden_size)
        self.pad_embed = nn.Parameter(torch.zeros(2 * config.vision_width))

    def forward(self, images, image_masks):
        """[rows, crops, patches, pixels] → [rows, crops, features, width], and nothing."""
        rows, crops, patches, _ = images.shape
        real = ~(images == -1).flatten(2).all(dim=-1)
        layers = self.image_vit(images.flatten(0, 1))
        features = torch.cat([layers[-1], layers[-2]], dim=-1)[:, 1:].unflatten(0, (rows, crops))
        features = features * real[..., None, None] + self.pad_embed * (image_masks == 0).unsqueeze(-1)
        side = int(patches**0.5)
        squares = features.unflatten(2, (side // 2, 2, side // 2, 2)).mean(dim=(3, 5)).flatten(2, 3)
        return self.image_projector(squares), None


class MolmoBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, self.heads = config.hidden_size, config.num_attention_heads
        self.attn_norm, self.ff_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.att_proj, self.attn_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.ff_proj, self.ff_out = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x, attention_bias=None, position_ids=None, layer_past=None, use_cache=False):
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.att_proj(self.attn_norm(x)).chunk(3, dim=-1)
        )
        q, k = turned(q, position_ids), turned(k, position_ids)
        if layer_past is not None:
            k, v = torch.cat([layer_past[0], k], dim=2), torch.cat([layer_past[1], v], dim=2)
        att = scaled_dot_product_attention(q, k, v, attn_mask=attention_bias[:, :, -q.shape[2] :])
        x = x + self.attn_out(att.transpose(1, 2).flatten(2))
        x = x + self.ff_out(silu(self.ff_proj(self.ff_norm(x))))
        return x, (k, v) if use_cache else None


class Molmo(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.hidden_size),
                "ln_f": nn.LayerNorm(config.hidden_size),
                "blocks": nn.ModuleList([MolmoBlock(config) for _ in range(config.num_hidden_layers)]),
                "ff_out": nn.Linear(config.hidden_size, config.vocab_size, bias=False),
            }
        )
        self.vision_backbone = VisionBackbone(config)

    def forward(
        self,
        input_ids,
        attention_mask=None,
        images=None,
        image_masks=None,
        image_input_idx=None,
        position_ids=None,
        past_key_values=None,
        use_cache=False,
        last_logits_only=False,
    ):
        assert not (images is not None and past_key_values is not None)
        if attention_mask is None:
            attention_mask = input_ids != -1
        if position_ids is None:
            position_ids = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
        x = self.transformer.wte(input_ids * (input_ids != -1))
        if images is not None:
            features, _ = self.vision_backbone(images, image_masks)
            assert image_input_idx.shape == features.shape[:3]
            valid = image_input_idx >= 0
            row = torch.arange(len(x), device=x.device)[:, None, None].expand_as(image_input_idx)
            x[row[valid], image_input_idx[valid]] += features[valid]
        length = attention_mask.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        lowest = torch.finfo(x.dtype).min
        bias = torch.where(causal & attention_mask.bool()[:, None, None, :], 0.0, lowest).to(x.dtype)
        keys_and_values = []
        for number, block in enumerate(self.transformer.blocks):
            past = None if past_key_values is None else past_key_values[number]
            x, cache = block(x, bias, position_ids, past, use_cache)
            keys_and_values.append(cache)
        x = self.transformer.ln_f(x[:, -1:] if last_logits_only else x)
        return ModelOutput(logits=self.transformer.ff_out(x), attn_key_values=keys_and_values if use_cache else None)


class MolmoForCausalLM(PreTrainedModel):
    config_class = MolmoConfig
    base_model_prefix = "model"
    _no_split_modules = ("MolmoBlock",)

    def __init__(self, config):
        super().__init__(config)
        self.model = Molmo(config)

    def forward(self, input_ids=None, use_cache=None, **others):
        output = self.model(input_ids, use_cache=bool(use_cache), **others)
        return CausalLMOutputWithPast(logits=output.logits, past_key_values=output.attn_key_values)

    def generate_from_batch(self, batch, generation_config=None, **others):
        raise NotImplementedError("written for the `generate` of transformers 4")

    def tie_weights(self):
        pass
