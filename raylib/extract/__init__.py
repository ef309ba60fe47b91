"""Hidden states of vision-language models, as in HALP (Hallucination prediction via probing)."""
