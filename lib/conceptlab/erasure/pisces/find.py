"""Finding the features that carry a concept: by what they read (input side) and by what they write (output side)."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from ...core import NotPossible, auroc
from ...data import Concept, evidence_texts, text_means
from ...models import LanguageModel, project
from ...sae import SAE, sae_site
from .features import Dictionaries, Feature, check_saes


def find_features(
    lm: LanguageModel,
    saes: Dictionaries,
    concept: Concept,
    n: int = 20,
    *,
    min_auroc: float = 0.7,
    n_texts: int = 60,
    n_ctx: int = 96,
    k_tokens: int = 50,
    min_tokens: int = 2,
    seed: int = 0,
) -> list[Feature]:
    """The `n` best candidates over all dictionaries, best first.

    Input-side evidence: the mean activation per text tells `n_texts` texts of the concept from as many of its
    neighbour and of the rest of the encyclopedia (AUROC >= `min_auroc`, positive contrast). Output-side evidence
    (section 3.1 there): at least `min_tokens` concept words among the `k_tokens` tokens that `d` (or `-d`) promotes;
    it also gives the sign. A feature that never fires on the concept's texts is dropped (activation filter).
    Candidates by input-side evidence come first, ordered by contrast; then those by projection alone.
    """
    check_saes(lm, saes)
    means = activation_means(lm, saes, concept, n_texts, n_ctx, seed)
    found = []
    for layer, sae in saes.items():
        target, near, far = means[layer]
        others = torch.cat([near, far])
        is_target = torch.arange(len(target) + len(others)) < len(target)
        scores = auroc(torch.cat([target, others]), is_target)
        counts, ids = concept_token_counts(lm, sae, concept, k_tokens)  # [d_sae, 2], [d_sae, 2, k]
        a, b, c = target.mean(0), near.mean(0), far.mean(0)
        reads = (scores >= min_auroc) & (a > torch.maximum(b, c))
        writes = counts.amax(1) >= min_tokens
        for f in ((reads | writes) & (a > 0)).nonzero()[:, 0].tolist():
            end = int(counts[f, 1] > counts[f, 0] and writes[f])
            found.append(
                Feature(
                    layer, f, -1 if end else 1, float(scores[f]), float(a[f]), float(b[f]), float(c[f]),
                    int(counts[f, end]), tuple(lm.words(ids[f, end, :8])),
                )
            )  # fmt: skip
    found.sort(key=lambda x: (x.auroc >= min_auroc, x.contrast), reverse=True)
    return found[:n]


@torch.no_grad()
def activation_means(
    lm: LanguageModel, saes: Dictionaries, concept: Concept, n_texts: int = 60, n_ctx: int = 96, seed: int = 0
) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """Per layer: mean feature activation of each text `[texts, d_sae]` of concept, neighbour and background.

    The first position of a text, an attention sink, is left out.
    """
    sites = {layer: sae_site(sae) for layer, sae in saes.items()}
    encode = {sites[layer]: sae.strengths for layer, sae in saes.items()}
    groups = [text_means(lm, texts, list(encode), encode, n_ctx) for texts in evidence_texts(concept, n_texts, seed)]
    own, near, far = groups
    return {layer: (own[site], near[site], far[site]) for layer, site in sites.items()}


def concept_token_counts(
    lm: LanguageModel, sae: SAE, concept: Concept, k: int = 50
) -> tuple[Int[Tensor, "d_sae 2"], Int[Tensor, "d_sae 2 k"]]:
    """How many words of the concept are among the `k` tokens that each end of each feature promotes; those tokens.

    End 0 is `+d`, end 1 is `-d`. Words that are several tokens are left out.
    """
    wanted = torch.tensor(sorted(lm.single_tokens(concept.words).values()), dtype=torch.long)
    if not len(wanted):
        raise NotPossible(f"No word of {concept.name} is a single token for {lm.name}; add words to its file.")
    ids = project(lm, sae.residual_directions(lm), k).signed_ids()
    return torch.isin(ids, wanted).sum(-1), ids
