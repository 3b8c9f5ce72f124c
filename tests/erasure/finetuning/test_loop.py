"""The training loop: what it leaves behind, what it trains, when it stops, and that old methods are what they were."""

from dataclasses import replace

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import AnswerRow, row_batches, text_rows
from conceptlab.edits import trainable, trained_parameters
from conceptlab.erasure import (
    GradientAscent,
    GradientDescent,
    KeepDistribution,
    KeepLoss,
    Loss,
    MarkedRows,
    Material,
    NegativePreference,
    Step,
    TuningConfig,
    finetune,
    finetune_texts,
    npo_loss,
)
from conceptlab.erasure.finetuning.terms import cross_entropy, row_logprobs, row_means
from conceptlab.models import next_token_loss, scored_logits
from untouched import TEXTS, assert_untouched, weights

SHORT = TuningConfig(steps=8, batch_size=1, lr=3e-3, n_ctx=16, layers=(1,))


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.3)


def marked(lm, *rows, start=1):
    return MarkedRows.of(lm, [AnswerRow(list(row), start) for row in rows])


def equal(a, b):
    return a.changes.keys() == b.changes.keys() and all(
        torch.equal(a.changes[n].dense(), c.dense()) for n, c in b.changes.items()
    )


# ---- rows and terms ---------------------------------------------------------------------------------------
def test_what_is_scored_is_what_the_whole_model_says(lm):
    rows = MarkedRows.of(lm, [AnswerRow([5, 6, 7, 8], 2), AnswerRow([9, 10], 1)])
    logits, targets, where = scored_logits(lm, rows.ids, rows.mask, rows.scored)
    assert targets.tolist() == [7, 8, 10] and where.tolist() == [0, 0, 1] and rows.lengths.tolist() == [2, 1]
    whole = lm.logits(torch.tensor([[5, 6, 7, 8]]))[0]
    torch.testing.assert_close(logits[:2], whole[1:3], rtol=1e-4, atol=1e-5)
    for wrong in (rows.mask, ~rows.mask, rows.scored & False):
        with pytest.raises(ConceptLabError, match="cannot be scored|No token to predict"):
            scored_logits(lm, rows.ids, rows.mask, wrong)


def sequence_logprobs(lm, ids, mask):
    """Summed log-probability of every real token but the first of its row, from the logits of all positions."""
    logprobs = lm.head(lm.final_hidden(ids, mask))[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return (logprobs * mask[:, 1:]).sum(1)


def test_on_whole_texts_the_terms_are_the_losses_of_the_models_room(lm):
    rows = marked(lm, [5, 6, 7, 8], [9, 10], [11, 12, 13])
    assert torch.equal(cross_entropy(lm, rows), next_token_loss(lm, rows.ids, rows.mask))
    torch.testing.assert_close(row_logprobs(lm, rows), sequence_logprobs(lm, rows.ids, rows.mask), rtol=1e-6, atol=0)
    means = row_means(rows, torch.tensor([1.0, 2.0, 6.0, 5.0, 1.0, 3.0]), torch.tensor([0, 0, 0, 1, 2, 2]))
    assert means.tolist() == [3.0, 5.0, 2.0]


@pytest.mark.parametrize("head_moves", [False, True])
def test_the_kl_term_counts_scored_tokens_only(lm, head_moves):
    """Padding a batch by one long row, or a question in front, changes nothing: faults of the TOFU family of codes."""
    term, short = KeepDistribution(), marked(lm, [5, 6, 7], start=2)
    long = MarkedRows(
        torch.nn.functional.pad(short.ids, (0, 6)),
        *(torch.nn.functional.pad(x, (0, 6)) for x in (short.mask, short.scored)),
    )
    with torch.no_grad():
        kept = [term.reference(lm, Step(rows, keep=rows), head_moves) for rows in (short, long)]
        assert float(term(lm, Step(short, keep=short), kept[0])) == pytest.approx(0, abs=1e-6)
        before = lm.logits(short.ids)[0, 1].log_softmax(-1)
        with trainable(lm, chosen := trained_parameters(lm, "down_proj")):
            for p in chosen.values():
                p.mul_(1.5)
            found = [float(term(lm, Step(r, keep=r), k)) for r, k in zip((short, long), kept, strict=True)]
            after = lm.logits(short.ids)[0, 1].log_softmax(-1)
    truth = float((before.exp() * (before - after)).sum())  # KL(p_0 || p) by its definition, at the one scored token
    assert truth > 1e-3 and found == pytest.approx([truth, truth], rel=1e-3)


def test_the_kl_term_holds_the_distribution_when_everything_is_trained(lm):
    """With the unembedding trained as well, its hidden states would be read by another head."""
    cfg = replace(SHORT, weights="all", layers=None, lr=3e-4, steps=6)
    free, held = (
        finetune_texts(lm, Loss(GradientAscent(), KeepDistribution(), w), TEXTS[:1], TEXTS[1:], cfg)
        for w in (0.0, 20.0)
    )
    rows = lm.pad(text_rows(lm, TEXTS[1:], 16))
    before = lm.logits(*rows).log_softmax(-1)
    off = []
    for edit in (free, held):
        with edit.applied(lm):
            now = lm.logits(*rows).log_softmax(-1)
        off.append(float((before.exp() * (before - now)).sum(-1)[rows[1]].mean()))
    assert off[1] < 0.7 * off[0]


# ---- the edits are those of before ------------------------------------------------------------------------
def by_hand(lm, method, cfg):
    """The training as the one function of two methods wrote it, before there was a loop."""
    chosen = trained_parameters(lm, cfg.weights, cfg.layers)
    forget = row_batches(text_rows(lm, TEXTS[:2], cfg.n_ctx), cfg.batch_size, cfg.seed)
    keep = row_batches(text_rows(lm, TEXTS[2:], cfg.n_ctx), cfg.batch_size, cfg.seed)
    plan = [lm.pad(next(forget)) for _ in range(cfg.steps)]
    with torch.no_grad():
        reference = [sequence_logprobs(lm, *batch) for batch in plan]
    before = {n: p.detach().clone() for n, p in chosen.items()}
    with trainable(lm, chosen):
        optimiser = torch.optim.AdamW(list(chosen.values()), lr=cfg.lr, weight_decay=0.0)
        for batch, known in zip(plan, reference, strict=True):
            if method == "npo":
                loss = npo_loss(sequence_logprobs(lm, *batch), known, 0.1)
            else:
                loss = -next_token_loss(lm, *batch)
            loss = loss + next_token_loss(lm, *lm.pad(next(keep)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return {n: p.detach() - before[n] for n, p in chosen.items()}


@pytest.mark.parametrize(("method", "term"), [("gradient_difference", GradientAscent()), ("npo", NegativePreference())])
def test_gradient_difference_and_npo_are_what_they_were(lm, method, term):
    cfg = TuningConfig(steps=5, batch_size=2, n_ctx=16, lr=1e-3)
    old, new = by_hand(lm, method, cfg), finetune_texts(lm, Loss(term), TEXTS[:2], TEXTS[2:], cfg)
    for name, delta in old.items():
        if method == "npo":  # a row's sum leaves out its padding now, so the last bits may differ
            torch.testing.assert_close(new.changes[name].dense(), delta, rtol=0, atol=1e-5 * 1e-3 * 100)
        else:
            assert torch.equal(new.changes[name].dense(), delta), name


# ---- the loop ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "loss",
    [
        Loss(GradientAscent()), Loss(NegativePreference()), GradientAscent(), NegativePreference(),
        Loss(GradientAscent(), KeepDistribution()), Loss(NegativePreference(), KeepDistribution(), 2.0),
    ],
    ids=["gd", "npo", "ga", "npo alone", "ga kl", "npo kl"],
)  # fmt: skip
@pytest.mark.parametrize("rank", [None, 2])
def test_what_is_to_be_forgotten_gets_less_likely_and_the_model_is_untouched(lm, loss, rank):
    before, rows = weights(lm), lm.pad(text_rows(lm, TEXTS[:1], 16))
    plain = float(next_token_loss(lm, *rows))
    cfg = SHORT if rank is None else replace(SHORT, rank=rank, lr=3e-2)
    edit = finetune_texts(lm, loss, TEXTS[:1], TEXTS[1:], cfg)
    assert_untouched(lm, before)
    assert sorted(edit.changes) == [f"model.layers.1.mlp.{m}_proj.weight" for m in ("down", "gate", "up")]
    with edit.applied(lm):
        assert float(next_token_loss(lm, *rows)) > plain + 0.1
    assert_untouched(lm, before)
    assert equal(finetune_texts(lm, loss, TEXTS[:1], TEXTS[1:], cfg), edit)


def test_what_is_trained_is_a_field(lm):
    def names(**fields):
        cfg = replace(SHORT, layers=None, steps=1, **fields)
        return set(finetune_texts(lm, GradientAscent(), TEXTS[:1], [], cfg).changes)

    down = {lm.down_proj_name(layer) for layer in (0, 1)}
    assert names(weights="down_proj") == down == names(weights="down_proj", rank=2)
    assert names() > down and len(names()) == 6
    assert names(weights="all") == set(lm.parameters())


def test_a_training_stops_when_it_is_enough(lm):
    before, asked = weights(lm), []

    def enough(model):
        asked.append(torch.is_grad_enabled())
        return len(asked) == 2

    cfg = replace(SHORT, steps=9, every=3)
    edit = finetune_texts(lm, Loss(GradientAscent()), TEXTS[:1], TEXTS[1:], cfg, enough)
    assert edit.info["steps"] == 6 and asked == [False, False]
    assert equal(finetune_texts(lm, Loss(GradientAscent()), TEXTS[:1], TEXTS[1:], replace(cfg, steps=6)), edit)
    assert_untouched(lm, before)


def test_references_are_computed_once_and_on_the_original(lm, monkeypatch):
    seen, real = [], NegativePreference.reference

    def spy(self, model, step, head_moves):
        seen.append(model.fingerprint())
        return real(self, model, step, head_moves)

    monkeypatch.setattr(NegativePreference, "reference", spy)
    finetune_texts(lm, Loss(NegativePreference()), TEXTS[:1], TEXTS[1:], SHORT)
    assert seen == [lm.fingerprint()] * SHORT.steps


def test_a_weight_of_nothing_reads_nothing_to_keep(lm, monkeypatch):
    monkeypatch.setattr(KeepLoss, "__call__", lambda *_: pytest.fail("what is to be kept was read"))
    finetune_texts(lm, Loss(GradientAscent(), weight=0.0), TEXTS[:1], TEXTS[1:], SHORT)
    finetune_texts(lm, Loss(GradientAscent()), TEXTS[:1], [], SHORT)


def test_a_scaled_change_is_a_share_of_the_way(lm):
    """The strength curve of one training: on a small change twice the share costs about twice the nats."""
    rows = lm.pad(text_rows(lm, TEXTS[:1], 16))
    edit = finetune_texts(lm, GradientAscent(), TEXTS[:1], [], replace(SHORT, lr=3e-4))
    lost = []
    for scale in (0.0, 0.25, 0.5, 1.0):
        with (edit * scale).applied(lm):
            lost.append(float(next_token_loss(lm, *rows)))
    lost = [x - lost[0] for x in lost]
    assert 0 < lost[1] < lost[2] < lost[3] and lost[2] == pytest.approx(2 * lost[1], rel=0.3)


def test_descent_is_the_other_way(lm):
    rows = lm.pad(text_rows(lm, TEXTS[:1], 16))
    plain, edit = float(next_token_loss(lm, *rows)), finetune_texts(lm, GradientDescent(), TEXTS[:1], [], SHORT)
    with edit.applied(lm):
        assert float(next_token_loss(lm, *rows)) < plain - 0.1
    with (edit * -1.0).applied(lm):
        assert float(next_token_loss(lm, *rows)) > plain + 0.1


def test_bad_input_is_refused_and_the_model_restored(lm):
    before = weights(lm)
    with pytest.raises(ConceptLabError, match="diverged at step"):
        finetune_texts(lm, NegativePreference(), TEXTS, [], TuningConfig(lr=1e25))
    for wrong in (dict(steps=0), dict(every=0), dict(lr=0.0), dict(batch_size=0)):
        with pytest.raises(ConceptLabError, match="of at least 1 and a positive lr"):
            TuningConfig(**wrong)
    with pytest.raises(ConceptLabError, match="at least 0; got -1"):
        Loss(GradientAscent(), weight=-1.0)
    row = AnswerRow([1, 2, 3], 1)
    for material in ({"forget": []}, {"forget": [row], "instead": [row, row]}):
        with pytest.raises(ConceptLabError, match="needs rows to forget"):
            Material(**material)
    with pytest.raises(ConceptLabError, match="Unknown weights 'nose'"):
        finetune(lm, GradientAscent(), Material([row]), TuningConfig(weights="nose"))
    assert_untouched(lm, before)
