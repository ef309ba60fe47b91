"""The config of a small model with Molmo's interface."""

from transformers import PretrainedConfig


class MolmoConfig(PretrainedConfig):
    model_type = "molmo"

    def __init__(
        self,
        vocab_size=700,
        hidden_size=32,
        num_hidden_layers=6,
        num_attention_heads=2,
        max_position_embeddings=1024,
        use_cache=True,
        use_position_ids=True,
        vision_width=24,
        pixels_per_patch=147,
        patches_per_side=4,
        **others,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.use_cache = use_cache
        self.use_position_ids = use_position_ids
        self.vision_width = vision_width
        self.pixels_per_patch = pixels_per_patch
        self.patches_per_side = patches_per_side
        super().__init__(**others)
