"""The embedding edit: planted factors, what it removes from which rows, both sides of a shared embedding."""

from dataclasses import replace

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import load_concept
from conceptlab.edits import INPUT
from conceptlab.erasure.embedding import (
    ConceptAtoms,
    EmberConfig,
    concept_atoms,
    concept_tokens,
    embedding_edit,
    refitted,
    sparse_factors,
)

SMALL = EmberConfig(n_atoms=12, keep=0.05, iterations=15, n_texts=40)


def planted(n=120, d=24, atoms=6, per_atom=12, seed=0):
    """Rows that are sums of few of `atoms` unit directions, each direction on `per_atom` rows of its own."""
    g = torch.Generator().manual_seed(seed)
    F = torch.nn.functional.normalize(torch.randn(d, atoms, generator=g), dim=0)
    G = torch.zeros(n, atoms)
    for k in range(atoms):
        rows = torch.arange(k * per_atom, (k + 1) * per_atom)
        G[rows, k] = 1 + torch.rand(per_atom, generator=g)
    return G @ F.T, F, G


def test_planted_factors_are_recovered():
    rows, F, G = planted()
    cfg = EmberConfig(n_atoms=6, keep=0.1, iterations=200)
    found_F, found_G = sparse_factors(rows, cfg)
    cosines = (found_F.T @ F).abs()
    assert bool((cosines.amax(0) > 0.99).all())
    assert (found_G != 0).sum(0).max() <= 12
    assert torch.allclose(found_F.norm(dim=0), torch.ones(6), atol=1e-5)
    error = float((rows - found_G @ found_F.T).square().sum() / rows.square().sum())
    assert error < 1e-6


def test_more_steps_never_end_worse():
    rows, _, _ = planted(seed=1)
    errors = []
    for steps in (1, 5, 40):
        F, G = sparse_factors(rows, EmberConfig(n_atoms=6, keep=0.1, iterations=steps))
        errors.append(float((rows - G @ F.T).square().sum()))
    slack = 1e-6 * float(rows.square().sum())  # the last fit of G may round differently
    assert errors[0] + slack >= errors[1] and errors[1] + slack >= errors[2]
    again = sparse_factors(rows, EmberConfig(n_atoms=6, keep=0.1, iterations=40))
    assert torch.equal(again[0], F) and torch.equal(again[1], G)


def test_without_sparsity_one_step_is_least_squares():
    rows = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    F, G = sparse_factors(rows, EmberConfig(n_atoms=8, keep=1.0, iterations=3))
    torch.testing.assert_close(G @ F.T, rows, atol=1e-3, rtol=0)


def test_which_tokens_are_the_concepts(tiny_llama):
    lm = tiny_llama()
    concept = replace(load_concept("golf"), words=("golf",), lookalikes=("tennis",))
    own = ["The golf bunker and the bunker and the tennis tennis court."] * 3
    others = ["The cat and the dog and the court sat on the mat."] * 3
    labels = concept_tokens(lm, concept, own, others, SMALL)
    token = lambda word: lm.tokenizer(word, add_special_tokens=False).input_ids[0]  # noqa: E731
    assert labels[token(" golf")] and labels[token(" bunker")]
    assert not labels[token(" the")] and not labels[token(" court")] and not labels[token(" cat")]
    assert not labels[token(" tennis")], "a look-alike is spared however frequent it is"
    assert not labels[token(".")]


@pytest.fixture(scope="module")
def golf():
    return load_concept("golf")


def test_the_edit_takes_the_parts_out_of_the_concepts_rows_alone(tiny_llama, golf):
    lm = tiny_llama(tie_word_embeddings=True)
    atoms = concept_atoms(lm, golf, replace(SMALL, mass_ratio=0.05, min_share=0.0))
    assert atoms.n_atoms == len(atoms.top) > 0 and 0 < atoms.fve <= 1
    before = lm.hf.get_input_embeddings().weight.detach().clone()
    with embedding_edit(lm, atoms, delta=2.0).applied(lm):
        after = lm.hf.get_input_embeddings().weight.detach().clone()
        assert torch.equal(lm.unembedding_rows(), before), "the model can still write the words"
    torch.testing.assert_close(after[atoms.ids], before[atoms.ids] - 2 * atoms.parts, atol=1e-6, rtol=0)
    others = torch.ones(len(before), dtype=torch.bool)
    others[atoms.ids] = False
    assert torch.equal(after[others], before[others])
    with embedding_edit(lm, atoms, 2.0, side="both").applied(lm):
        assert torch.equal(lm.unembedding_rows(), after)
    assert torch.equal(lm.unembedding_rows(), before)
    golfing = set(lm.single_tokens(golf.words).values())
    assert set(atoms.ids.tolist()) & golfing and not set(atoms.ids.tolist()) & set(
        lm.single_tokens(golf.lookalikes).values()
    )


def test_it_adds_up_with_another_edit(tiny_llama, golf):
    from conceptlab.erasure import Feature, pisces_edit
    from dictionaries import make_sae

    lm = tiny_llama()
    atoms = ConceptAtoms(torch.tensor([5, 9]), torch.ones(2, lm.d_model), 1, 0.5, (("x",),), {"method": "embedding"})
    edit = embedding_edit(lm, atoms, 0.5)
    both = pisces_edit(lm, {0: make_sae(lm, 0)}, [Feature(0, 3)], 0.3, 1.0) + edit
    assert set(both.changes) == {lm.down_proj_name(0), lm.embedding_name() + INPUT}
    assert both.report(lm)["rows_touched"] == 2 and both.report(lm)["vectors_touched"] > 0
    assert edit.info["delta"] == 0.5 and edit.info["side"] == "input"
    before = lm.hf.get_input_embeddings().weight.detach().clone()
    with both.applied(lm):
        now = lm.hf.get_input_embeddings().weight
        torch.testing.assert_close(now[[5, 9]], before[[5, 9]] - 0.5)
    with pytest.raises(ConceptLabError, match="has an unembedding of its own"):
        embedding_edit(lm, atoms, side="both")
    with pytest.raises(ConceptLabError, match='"input" or "both"'):
        embedding_edit(lm, atoms, side="output")


def test_no_atom_of_the_concept(tiny_llama, golf):
    with pytest.raises(ConceptLabError, match="No atom of the embeddings belongs to golf"):
        concept_atoms(tiny_llama(), golf, replace(SMALL, mass_ratio=1e9, iterations=2))


def test_coefficients_are_fitted_once_more_after_the_cut():
    g = torch.Generator().manual_seed(0)
    rows, F = torch.randn(20, 6, generator=g).double(), torch.randn(6, 4, generator=g).double()
    G = (torch.rand(20, 4, generator=g) < 0.5).double()
    G[0] = 0
    found = refitted(rows, F, G, 1e-9)
    assert torch.equal(found[0], torch.zeros(4).double()) and not found[G == 0].any()
    for row, coefficients, has in zip(rows[1:], found[1:], (G != 0)[1:], strict=True):
        if bool(has.any()):
            best = torch.linalg.lstsq(F[:, has], row[:, None]).solution[:, 0]
            torch.testing.assert_close(coefficients[has], best, atol=1e-6, rtol=0)
    assert bool(((rows - found @ F.T).square().sum(1) <= rows.square().sum(1) + 1e-9).all())
