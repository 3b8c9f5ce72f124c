"""Other ways of asking under noise: each is compared with the clean model under the same prompt."""

import torch

from conceptlab.concept_vectors import ConceptVector
from conceptlab.data import general_questions, load_concept
from conceptlab.experiments import shifts_under_prompts


def test_every_way_and_strength_has_a_shift_per_question(tiny_llama):
    lm, japan = tiny_llama(d_model=32, n_layers=2), load_concept("japan")
    before = {name: p.detach().clone() for name, p in lm.hf.named_parameters()}
    vectors = [ConceptVector(1, j, 1, 0.0) for j in range(3)]
    found = shifts_under_prompts(lm, japan, vectors, japan.test[:3], general_questions("test")[:2], (0.0, 30.0))
    assert list(found) == ["directly", "role", "story", "article in the prompt", "unrelated, directly"]
    for way, by_strength in found.items():
        n = 2 if way.startswith("unrelated") else 3
        assert all(x.shape == (n,) for x in by_strength.values())
        assert float(by_strength[0.0].abs().max()) < 1e-3 < float(by_strength[30.0].max()), way
    assert all(torch.equal(p, before[name]) for name, p in lm.hf.named_parameters())
