"""Random models made in code, with a tokenizer that needs no download: for checking a machine, not for measuring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..core import ConceptLabError
from .architecture import TEXT
from .language_model import LanguageModel
from .registry import quiet_transformers

# class in transformers -> what its configuration needs beside the sizes; soft caps and windows as in the real ones
RANDOM_KINDS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen3": {},
    "Olmo2": {},
    "Gemma2": {"sliding_window": 4_096},
    "Gemma3Text": {"sliding_window": 4_096},
}
SPECIAL = ("<unk>", "<s>", "</s>")  # ids 0, 1, 2


def random_model(
    kind: str = "Llama",
    texts: Sequence[str] = (),
    *,
    d_model: int = 64,
    n_layers: int = 2,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> LanguageModel:
    """A random decoder of a class of `RANDOM_KINDS` whose vocabulary is the words of `texts`.

    The same arguments give the same weights on every device (drawn on the CPU in float32, then rounded). Every number
    is moved, gains too, so that no factor hides behind a 1. Raises ConceptLabError for a kind that is not there.
    """
    import transformers

    if kind not in RANDOM_KINDS:
        raise ConceptLabError(f"There is no random model {kind!r}; choose one of {', '.join(RANDOM_KINDS)}.")
    tokenizer = word_tokenizer((*texts, TEXT), starts=kind.startswith("Gemma"))
    n_heads = max(1, d_model // 32)
    sizes = {
        "hidden_size": d_model, "intermediate_size": 3 * d_model, "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads, "num_key_value_heads": n_heads, "head_dim": 32, "vocab_size": len(tokenizer),
        "max_position_embeddings": 4_096, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
    }  # fmt: skip
    with quiet_transformers():
        config = getattr(transformers, f"{kind}Config")(**sizes | RANDOM_KINDS[kind])
        hf = getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in hf.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(noise * p.shape[1] ** -0.5 if p.ndim > 1 else p + 0.1 * noise)
    return LanguageModel(f"random {kind}", hf.to(device=device, dtype=dtype), tokenizer, "")


def word_tokenizer(texts: Sequence[str], starts: bool = False) -> Any:
    """A fast tokenizer whose tokens are the words of `texts`, those with a leading space apart (as in GPT-2).

    `starts`: whether it puts a start token before every text, as Gemma's does.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces = {piece for text in texts for piece, _ in split.pre_tokenize_str(text)}
    vocabulary = {piece: i for i, piece in enumerate((*SPECIAL, *sorted(pieces - set(SPECIAL))))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer, tokenizer.decoder = split, decoders.ByteLevel()
    if starts:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{SPECIAL[1]} $A", special_tokens=[(SPECIAL[1], vocabulary[SPECIAL[1]])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=SPECIAL[0], bos_token=SPECIAL[1], eos_token=SPECIAL[2]
    )
