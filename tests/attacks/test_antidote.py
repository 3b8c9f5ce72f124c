"""Pruning after an attack: scores by hand, exact shares, controls, and what it does to a model that relearned."""

import pytest
import torch

from conceptlab.attacks import AntidoteConfig, RelearnConfig, antidote, prune_after_relearning, relearn
from conceptlab.attacks.antidote import highest
from conceptlab.core import ConceptLabError
from conceptlab.models import next_token_loss
from untouched import TEXTS, assert_untouched, weights

OTHER = ["The bus stops at the town hall every day, and the children wave at it.", "A letter came in the morning."]


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.3)


def test_scores_by_hand(lm):
    edit = antidote(lm, TEXTS, cfg=AntidoteConfig(share=0.1, layers=(1,), n_ctx=16))
    names = {n for n in lm.parameters() if "layers.1.mlp" in n}
    assert set(edit.changes) == names and len(names) == 3
    rows = [lm.encode(t)[:16] for t in TEXTS]
    down = lm.down_proj_name(1)
    for name, site in ((down, "neurons"), ("model.layers.1.mlp.up_proj.weight", "mlp_input")):
        x = torch.cat([lm.capture(torch.tensor([r]), [(site, 1)])[site, 1][0] for r in rows])
        W = lm.parameters()[name].detach()
        scores = W.abs() * x.norm(dim=0)
        pruned = edit.changes[name].dense() != 0
        assert int(pruned.sum()) == round(0.1 * W.numel())
        assert float(scores[pruned].min()) >= float(scores[~pruned].max()) - 1e-4
        torch.testing.assert_close(edit.changes[name].dense()[pruned], -W[pruned])
    with edit.applied(lm):
        assert int((lm.parameters()[down] == 0).sum()) == round(0.1 * lm.parameters()[down].numel())


def test_what_is_spared_is_not_pruned_and_controls_prune_as_many(lm):
    cfg = AntidoteConfig(share=0.1, layers=(1,), n_ctx=16)
    down = lm.down_proj_name(1)
    spared = antidote(lm, TEXTS, OTHER, AntidoteConfig(share=0.1, spare=0.5, layers=(1,), n_ctx=16))
    rows = [lm.encode(t)[:16] for t in OTHER]
    x = torch.cat([lm.capture(torch.tensor([r]), [("neurons", 1)])["neurons", 1][0] for r in rows])
    kept = highest(lm.parameters()[down].detach().abs() * x.norm(dim=0), 0.5)
    assert not bool(((spared.changes[down].dense() != 0) & kept).any())
    counts = {by: int((antidote(lm, TEXTS, cfg=AntidoteConfig(0.1, by, layers=(1,))).changes[down].dense() != 0).sum())
              for by in ("wanda", "magnitude", "random")}  # fmt: skip
    assert len(set(counts.values())) == 1
    assert antidote(lm, TEXTS, cfg=cfg).info == {"method": "antidote", "by": "wanda", "share": 0.1}


def test_it_is_made_on_the_relearned_model_and_leaves_no_trace(lm):
    before = weights(lm)
    rows = lm.pad([lm.encode(t)[:16] for t in TEXTS])
    attack = RelearnConfig(steps=20, batch_size=3, n_ctx=16, lr=1e-2)

    def measure(m):
        return float(next_token_loss(m, *rows))

    result = prune_after_relearning(lm, None, TEXTS, TEXTS, measure, attack, AntidoteConfig(n_ctx=16), (0.02, 0.3))
    plain = relearn(lm, None, TEXTS, attack, evaluate=measure).last
    assert result.steps == (0, 200, 3000) and result.labels == ("relearned", "2.00% pruned", "30.00% pruned")
    assert result.values[0] == pytest.approx(plain) == result.controls[0]
    assert result.values[2] > result.values[0] + 0.3
    assert result.values[1] > result.controls[1], "as many at random do less"
    assert_untouched(lm, before)


def test_bad_settings_are_refused(lm):
    for wrong, message in (({"by": "luck"}, "pruned by one of"), ({"weights": "all"}, "'mlp' or 'down_proj'"),
                           ({"share": 0.0}, "between 0 and 1"), ({"spare": 1.0}, "between 0 and 1")):  # fmt: skip
        with pytest.raises(ConceptLabError, match=message):
            AntidoteConfig(**wrong)
    with pytest.raises(ConceptLabError, match="texts to keep"):
        antidote(lm, TEXTS, cfg=AntidoteConfig(spare=0.1))
