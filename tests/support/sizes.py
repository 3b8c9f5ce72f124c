"""Sizes at which a whole erasure of a tiny model takes seconds."""

from conceptlab.erasure import SharedConfig, methods
from conceptlab.evaluation import SearchConfig

SMALL = SharedConfig(
    n_candidates=4, n_evidence=4, n_asked=4, min_share=0.0, n_questions=2, n_texts=4,
    search=SearchConfig(n_questions=3, n_texts=1, n_clues=2),
    grids={
        "pisces": {"n": (1, 2), "tau": (0.8, 0.6), "mu": (1.0, 4.0)}, "directional": {"c": (1.0, 2.0)},
        "words": {"delta": (1.0, 2.0)}, "words_both": {"delta": (1.0, 2.0)}, "embedding": {"delta": (1.0,)},
        "pisces+embedding": {"delta": (1.0,)}, "pisces+words": {"share": (0.5, 1.0)},
        "pisces+words_both": {"share": (0.5, 1.0)}, "zeroed_vectors": {"n": (2, 5)},
        "frozen_decoder": {"n": (2,), "tau": (0.4,), "mu": (1.0, 4.0)},
        "zeroed_vectors_matched": {"n": (2, 20, 10**9)}, "eco": {"factor": (0.5, 1.0)}, "uld": {"alpha": (0.5, 1.0)},
        "guard": {"penalty": (2.0, 4.0)}, "notes": {"n": (1, 2)}, "in_context_refusal": {"n": (1, 2)},
        **{name: {"rate": (1.0,), "scale": (0.5, 1.0)} for name, m in methods().items() if m.kind == "fine-tuning"},
    },
)  # fmt: skip
