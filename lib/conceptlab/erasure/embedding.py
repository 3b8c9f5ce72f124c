"""Erasing a concept from the token embeddings: the embedding edit of EMBER (arXiv 2606.03695), from its description.

The MLPs of an edited model can be trained to read a concept again as long as the embeddings of its names still say
what they mean. So the embeddings of the tokens that occur in text about the concept and in other text are factorised,

    A = E[V'].T ~ F G.T      F [d_model, K] atoms, dense; G [|V'|, K] sparse, each atom keeps its strongest tokens,

atoms that belong to the concept are chosen, and their part is taken out of the embeddings of the concept's tokens:
`e_i <- e_i - delta F[:, k'] G[i, k']`.

Our choices, where the original asks a language model or generates sentences: texts are encyclopedia leads; a token
counts as the concept's when it is `rate_ratio` times as frequent there as elsewhere, or when it is one of its words;
an atom counts as the concept's by the share of its mass on such tokens, and by the original's ratio, taken per token.
Embeddings are scaled to unit mean square first, so that one ridge constant serves every model, and their mean is taken
off: it belongs to every token, and the few atoms of a token cannot hold it as well (in SmolLM2 it is a third of the
embeddings' energy; with it the factors explained less of the variance than the mean alone does). Each token's
coefficients are fitted once more after the cut. Names of several tokens are covered only as far as their pieces are.
Where a model shares embedding and unembedding, `side` says which of the two is edited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import ConceptLabError, NotPossible
from ..data import Concept, other_texts
from ..edits import INPUT, Rows, WeightEdit
from ..models import LanguageModel
from .method import Method

if TYPE_CHECKING:
    from .shared import Shared


@dataclass(frozen=True)
class EmberConfig:
    """How the embeddings are factorised and which atoms and tokens count as the concept's."""

    n_atoms: int = 100  # K (100 for Gemma-2-2B, 200 for Llama-3.1-8B in the original)
    keep: float = 0.01  # share of the tokens that each atom keeps (as there): about one atom a token, a third have none
    ridge: float = 1e-6  # of both least-squares steps (as there)
    iterations: int = 30  # at most; the original runs up to 20,000, here the error hardly falls after 20
    patience: int = 20  # stop after as many without improvement
    rate_ratio: float = 10.0  # a token of the concept is that much more frequent in its texts than elsewhere
    min_count: int = 2  # and occurs at least that often there
    mass_ratio: float = 2.0  # mean mass of a concept's atom on concept tokens over that on other tokens (as there)
    min_share: float = 0.15  # and share of its mass on concept tokens, in place of a reader who names its theme
    n_texts: int = 250  # leads on other subjects
    seed: int = 42  # of the draw of the first atoms (as there)


@dataclass(frozen=True)
class ConceptAtoms:
    """What the factorisation says belongs to the concept, per token; `embedding_edit` takes it out."""

    ids: Int[Tensor, " n"]  # tokens to be edited
    parts: Float[Tensor, "n d_model"]  # what their embeddings owe to the chosen atoms
    n_atoms: int  # chosen
    fve: float  # share of the embeddings' variance that all atoms explain
    top: tuple[tuple[str, ...], ...]  # strongest tokens of each chosen atom
    info: dict


def concept_atoms(lm: LanguageModel, concept: Concept, cfg: EmberConfig = EmberConfig()) -> ConceptAtoms:
    """Factorise the embeddings of the tokens in the concept's and in other texts, and choose the concept's atoms.

    Raises NotPossible when no atom is the concept's: then there is nothing to take out.
    """
    near = concept.neighbour.texts() if concept.neighbour else []
    others = [*near, *other_texts(concept, cfg.n_texts, cfg.seed)]
    tokens = concept_tokens(lm, concept, concept.texts(), others, cfg)
    ids = torch.tensor(sorted(tokens))
    is_concept = torch.tensor([tokens[i] for i in ids.tolist()])
    rows = lm.embedding()[ids.to(lm.device)].float().cpu()
    centred, scale = rows - rows.mean(0), rows.square().mean().sqrt()
    F, G = sparse_factors(centred / scale, cfg)
    mass = G.abs()
    share = mass[is_concept].sum(0) / mass.sum(0).clamp_min(1e-12)
    n, m = int(is_concept.sum()), int((~is_concept).sum())  # few of the tokens are the concept's: means, not sums
    ratio = share / (1 - share).clamp_min(1e-12) * m / max(n, 1)
    chosen = ((ratio >= cfg.mass_ratio) & (share >= cfg.min_share) & (share > 0)).nonzero()[:, 0]
    edited = is_concept & (G[:, chosen] != 0).any(1)
    if not len(chosen) or not bool(edited.any()):
        raise NotPossible(
            f"No atom of the embeddings belongs to {concept.name}: at most {float(share.max()):.0%} of the mass of one "
            f"lies on its tokens, needed {cfg.min_share:.0%}; use more atoms or a smaller min_share."
        )
    parts = scale * (G[edited][:, chosen] @ F[:, chosen].T)
    top = tuple(tuple(lm.words(ids[mass[:, k].topk(min(8, len(ids))).indices])) for k in chosen.tolist())
    error = (centred / scale - G @ F.T).square().sum() / (centred / scale).square().sum()
    info = {"method": "embedding", "concept": concept.name, "tokens": int(edited.sum()), "atoms": len(chosen)}
    return ConceptAtoms(ids[edited], parts, len(chosen), float(1 - error), top, info)


def embedding_edit(lm: LanguageModel, atoms: ConceptAtoms, delta: float = 1.0, side: str = "input") -> WeightEdit:
    """`e_i <- e_i - delta c_i` for the concept's tokens; adds up with any other edit of the model.

    `side`: "input" changes what the model reads and, in a model that shares embedding and unembedding, unties them
    while the edit is applied, so that it can still write the words; "both" lets the unembedding change with it, as an
    edit of the shared matrix does. Raises ConceptLabError for "both" where the two are different matrices.
    """
    if side not in ("input", "both"):
        raise ConceptLabError(f'The side is "input" or "both"; got {side!r}.')
    weight = lm.embedding()
    if side == "both" and not lm.is_tied:
        raise ConceptLabError(f'{lm.name} has an unembedding of its own, which this edit does not reach; use "input".')
    change = Rows(atoms.ids, -delta * atoms.parts, torch.tensor(len(weight)))
    name = lm.embedding_name() + (INPUT if side == "input" else "")
    return WeightEdit.of(lm, {name: change}, atoms.info | {"delta": delta, "side": side})


# ---- tokens ------------------------------------------------------------------------------------------------
def concept_tokens(
    lm: LanguageModel, concept: Concept, own: Sequence[str], others: Sequence[str], cfg: EmberConfig = EmberConfig()
) -> dict[int, bool]:
    """Every token of the texts, and whether it is the concept's.

    It is when it is one of the concept's words (with or without a leading space), or at least two letters long and
    `rate_ratio` times as frequent in the concept's texts; look-alike words never are.
    """
    counts, background = token_counts(lm, own), token_counts(lm, others)
    n, m = max(counts.total(), 1), max(background.total(), 1)
    named, spared = bare_or_spaced_tokens(lm, concept.words), bare_or_spaced_tokens(lm, concept.lookalikes)
    labels = {}
    for token in {*counts, *background, *named}:
        often = counts[token] >= cfg.min_count and counts[token] / n >= cfg.rate_ratio * background[token] / m
        word = lm.words([token])[0].strip()
        labels[token] = token not in spared and (token in named or (often and len(word) > 1 and word.isalpha()))
    return labels


def token_counts(lm: LanguageModel, texts: Sequence[str]) -> Counter[int]:
    """How often each token occurs in the texts."""
    return Counter(token for row in lm.encode_all(texts) for token in row)


def bare_or_spaced_tokens(lm: LanguageModel, words: Iterable[str]) -> set[int]:
    """Ids of those words that are one token, with or without a space in front."""
    forms = (form for word in words for form in (word, f" {word}"))
    return {row[0] for row in lm.encode_all(forms) if len(row) == 1}


# ---- factorisation -----------------------------------------------------------------------------------------
@torch.no_grad()
def sparse_factors(
    rows: Float[Tensor, "n d_model"], cfg: EmberConfig = EmberConfig()
) -> tuple[Float[Tensor, "d_model atoms"], Float[Tensor, "n atoms"]]:
    """`rows ~ G F.T` by alternating ridge least squares, each column of G cut to its largest entries by size.

    Columns of F have length 1. Of the best pair met (its squared error is the lowest) G is fitted again to the entries
    that the cut left, so that no row is further from its fit than from 0.
    """
    kind, rows = rows.dtype, rows.double()  # in single precision the ridge is lost where two atoms become alike
    n, atoms = len(rows), min(cfg.n_atoms, len(rows))
    kept = max(1, round(cfg.keep * n))
    F, eye = _start(rows, atoms, cfg.seed), cfg.ridge * torch.eye(atoms).to(rows)
    best, error, waited = None, float("inf"), 0
    for _ in range(cfg.iterations):
        G = _strongest(torch.linalg.solve(F.T @ F + eye, F.T @ rows.T).T, kept)
        now = float((rows - G @ F.T).square().sum())
        waited = 0 if now < error * (1 - 1e-6) else waited + 1
        if now < error:
            best, error = (F, G), now
        if waited >= cfg.patience:
            break
        F = torch.linalg.solve(G.T @ G + eye, G.T @ rows).T
        F = F / F.norm(dim=0).clamp_min(1e-12)
    if best is None:
        raise ConceptLabError("The factorisation did not converge; use fewer atoms or a larger ridge.")
    F, G = best
    return F.to(kind), refitted(rows, F, G, cfg.ridge).to(kind)


def refitted(
    rows: Float[Tensor, "n d_model"], F: Float[Tensor, "d_model atoms"], G: Float[Tensor, "n atoms"], ridge: float
) -> Float[Tensor, "n atoms"]:
    """The ridge least-squares coefficients of each row on those atoms that it has in `G`; the others stay 0."""
    gram, eye, parts = F.T @ F, torch.eye(F.shape[1]).to(F), []
    for x, g in zip(rows.split(512), G.split(512), strict=True):
        has = (g != 0).to(F)
        system = gram * has[:, :, None] * has[:, None, :] + eye * (ridge * has + 1 - has)[:, :, None]
        parts.append(torch.linalg.solve(system, (x @ F * has)[..., None])[..., 0])
    return torch.cat(parts)


def _start(rows: Float[Tensor, "n d_model"], atoms: int, seed: int) -> Float[Tensor, "d_model atoms"]:
    """Rows as first atoms, each drawn with a chance in proportion to what those before leave of it, squared.

    From a random G, as in the original, several atoms can end up alike (planted ones then are not recovered).
    """
    generator, left, found = torch.Generator().manual_seed(seed), rows.clone(), []
    for _ in range(atoms):
        chance = left.square().sum(1)
        chance = chance if float(chance.max()) > 1e-12 else torch.ones_like(chance)
        i = int(torch.multinomial(chance.cpu(), 1, generator=generator))
        found.append(rows[i])
        direction = left[i] / left[i].norm().clamp_min(1e-12)
        left -= (left @ direction)[:, None] * direction
    F = torch.stack(found, 1)
    return F / F.norm(dim=0).clamp_min(1e-12)


def _strongest(G: Float[Tensor, "n atoms"], kept: int) -> Float[Tensor, "n atoms"]:
    """Each column with all but its `kept` largest entries by size set to 0."""
    mask: Bool[Tensor, "n atoms"] = torch.zeros_like(G, dtype=torch.bool)
    return G * mask.scatter_(0, G.abs().topk(kept, dim=0).indices, True)


# ---- method -----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class EmbeddingConfig:
    """Strength of the edit, and how the atoms are made."""

    delta: float = 20.0
    ember: EmberConfig = EmberConfig()


def fit_embedding(lm: LanguageModel, concept: Concept, config: EmbeddingConfig, shared: Shared) -> WeightEdit:
    """The atoms of the concept are taken out of its tokens' input embeddings."""
    atoms = shared.made(("atoms", config.ember), lambda: concept_atoms(lm, concept, config.ember))
    return embedding_edit(lm, atoms, config.delta)


STRENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0)
EMBEDDING = Method(
    "embedding",
    "words",
    "EMBER (arXiv 2606.03695), the embedding edit alone, from its description",
    EmbeddingConfig(),
    fit_embedding,
    {"delta": STRENGTHS},
    cost="20 s of factorising",
)
