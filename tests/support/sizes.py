"""Sizes at which a whole erasure of a tiny model takes seconds."""

from conceptlab.erasure import ErasureConfig
from conceptlab.erasure.embedding import EmberConfig
from conceptlab.evaluation import SearchConfig
from conceptlab.experiments.erasure import FinalConfig

SMALL = ErasureConfig(
    taus=(0.4, 0.1), mus=(1.0, 4.0), deltas=(1.0,), needle_n=(2, 5), matched_n=(2, 20, 10**9), word_mus=(0.5, 1.0),
    turns=(1.0, 2.0), n_candidates=4, counts=(1, 2),
    n_evidence=4, n_asked=4, min_share=0.0, n_questions=2, search=SearchConfig(n_questions=3, n_texts=1, n_clues=2),
    ember=EmberConfig(12, 0.05, iterations=4, mass_ratio=0.05, min_share=0.0, n_texts=20),
)  # fmt: skip
FINAL = FinalConfig(
    n_target=4, n_spared=4, n_texts=2, n_vectors=3, forms=("cloze",), n_forms=4, writing_of=("pisces",), n_mmlu=2
)
