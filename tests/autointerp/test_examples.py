"""Autointerp on planted activations: a unit that fires on known tokens gets their label, and the label tells."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch


class Words:
    """A tokenizer of whole words: id i is the i-th word."""

    def __init__(self, words):
        self.words = words

    def __len__(self):
        return len(self.words)

    def decode(self, ids):
        return "".join(self.words[int(i)] for i in ids)


VOCABULARY = [" Rome", " Nile", " gold", " the", " of", " war", " king", " sea", " empire", " river", "</s>"]


@pytest.fixture
def corpus(tmp_path):
    """200 texts of 20 random words; texts are packed into rows of 42 tokens (two texts, each with a separator)."""
    from conceptlab.autointerp import Corpus
    from conceptlab.data import Harvest, TokenRows
    from conceptlab.models import LanguageModel

    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 10, (200, 20), generator=generator)
    ids = torch.cat([words, torch.full((200, 1), 10)], 1).view(100, 42)
    docs = torch.arange(200)[:, None].expand(200, 21).clone()
    docs[:, 20] = -1
    docs = docs.reshape(100, 42)
    keep = docs >= 0
    keep[:, 0] = False
    row, pos = (x.numpy() for x in keep.nonzero(as_tuple=True))
    harvest = Harvest(tmp_path, TokenRows(ids, docs), (0,), row, pos, 4, "mlp_output")
    lm = LanguageModel.__new__(LanguageModel)  # only its tokenizer is used
    lm.tokenizer, lm.hf = Words(VOCABULARY), SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(11, 2))
    return Corpus(lm, harvest, before=6, after=3)


@pytest.fixture
def planted(corpus):
    """Unit 0 fires on Rome, 1 on Nile, 2 on gold after "king", 3 at random on one token in ten."""
    from conceptlab.autointerp import dense_firings

    ids = corpus.token_ids
    same_text = torch.cat([torch.tensor([False]), corpus.docs[1:] == corpus.docs[:-1]])
    after_king = torch.cat([torch.tensor([False]), ids[:-1] == 6]) & same_text
    random = torch.rand(len(ids), generator=torch.Generator().manual_seed(1)) < 0.1
    columns = torch.stack([ids == 0, ids == 1, (ids == 2) & after_king, random], 1).float()
    noise = torch.rand(columns.shape, generator=torch.Generator().manual_seed(2))
    return dense_firings(columns * (1 + noise), columns.mean(0))


def test_firings_by_hand():
    from conceptlab.autointerp import dense_firings

    x = torch.tensor([[1.0, -1.0], [3.0, -2.0], [2.0, 5.0], [0.5, -3.0]])
    found = dense_firings(x, torch.tensor([0.5, 0.5]))
    assert len(found) == 2
    token, value = found.of(0)
    assert token.tolist() == [1, 2] and value.tolist() == [2.0, 1.0]  # above the third largest value, 1
    assert found.of(1)[0].tolist() == [2]  # the second largest value is negative: no firing
    assert found.counts().tolist() == [2, 1] and found.rates().tolist() == [0.5, 0.25]
    assert found.counts(torch.tensor([True, False, True, True])).tolist() == [1, 1]
    assert found.dense(0).tolist() == [0, 2, 1, 0]


def test_sae_firings_equal_the_dense_features():
    from conceptlab.autointerp import random_dictionary, sae_firings
    from conceptlab.sae import SAEConfig, TopKSAE

    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) + 2
    sae = random_dictionary(TopKSAE(SAEConfig("topk", 8, 20, 3, "m", 0, "h")), x, seed=1)
    found, dense = sae_firings(sae, x, chunk=7), sae.encode(x)
    assert torch.allclose(torch.stack([found.dense(j) for j in range(20)], 1), dense, atol=1e-5)
    assert torch.equal(found.counts(), (dense > 0).sum(0))
    assert torch.allclose(sae.b_dec, x.mean(0))


def test_the_untrained_dictionary_is_as_sparse_as_the_trained_one():
    from conceptlab.autointerp import random_dictionary, sae_firings
    from conceptlab.sae import BatchTopKSAE, SAEConfig

    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    trained = BatchTopKSAE(SAEConfig("batchtopk", 8, 40, 3, "m", 0, "h")).requires_grad_(False)
    trained.threshold.fill_(1.0)
    control = random_dictionary(trained, x, seed=1)
    rates = [float((s.encode(x) > 0).sum(1).float().mean()) for s in (trained, control)]
    assert abs(rates[0] - rates[1]) <= 0.5 and torch.allclose(control.b_dec, x.mean(0))
    assert len(sae_firings(control, x)) == 40


def test_unknown_unit_and_too_few_units(planted, corpus):
    from conceptlab.autointerp import sample_by_rate
    from conceptlab.core import ConceptLabError

    with pytest.raises(ConceptLabError, match="units 0 to 3"):
        planted.of(4)
    with pytest.raises(ConceptLabError, match="lower `least`"):
        sample_by_rate(planted, corpus.halves(), 4, least=10_000)


def test_sample_takes_equally_from_each_band(corpus):
    from conceptlab.autointerp import dense_firings, sample_by_rate

    x = torch.rand(len(corpus.token_ids), 40, generator=torch.Generator().manual_seed(3))
    firings = dense_firings(x, torch.linspace(0.05, 0.4, 40))
    chosen = sample_by_rate(firings, corpus.halves(), 8, bands=4, least=5, seed=0)
    assert [sum(10 * b <= u < 10 * b + 10 for u in chosen) for b in range(4)] == [2, 2, 2, 2]
    assert chosen == sample_by_rate(firings, corpus.halves(), 8, bands=4, least=5, seed=0)
    assert chosen != sample_by_rate(firings, corpus.halves(), 8, bands=4, least=5, seed=1)


def test_halves_share_no_text(corpus):
    a, b = corpus.halves()
    assert not set(corpus.docs[a].tolist()) & set(corpus.docs[b].tolist())
    assert bool((a ^ b).all()) and abs(int(a.sum()) - int(b.sum())) < 100


def test_windows_stay_inside_their_text(corpus):
    from conceptlab.autointerp import Example

    first_of_second_text = int(((corpus.harvest.row == 0) & (corpus.harvest.pos == 21)).nonzero()[0][0])
    example = corpus.example(first_of_second_text)
    assert isinstance(example, Example) and example.before == "" and example.place == 0
    last = corpus.example(first_of_second_text - 1)
    assert len(last.tokens) == 7 and last.place == 6 and "</s>" not in last.tokens
    start = corpus.example(0)  # token 1 of the row; token 0 is not kept but belongs to the text
    assert start.place == 1 and start.pos == 1 and start.doc == 0


def test_provenance(corpus, planted):
    activations = planted.dense(0)
    for index in (5, 777, 2000):
        example = corpus.example(index, "top", activations)
        ids = corpus.harvest.rows.ids[example.row]
        assert example.token == VOCABULARY[int(ids[example.pos])]
        assert example.activation == pytest.approx(float(activations[index]))
        for offset, value in enumerate(example.activations):
            pos = example.pos - example.place + offset
            if pos:
                assert (value > 0) == (int(ids[pos]) == 0)  # unit 0 fires on every Rome


def test_every_token_has_one_shape():
    from conceptlab.autointerp import Example

    shapes = {
        " Rome": "capitalised words", "Rome": "word endings", " the": "short words", " river": "longer words",
        "7": "digits", " 19": "digits", ",": "punctuation", " (": "punctuation", " ": "blanks", "\n": "blanks",
    }  # fmt: skip
    for token, shape in shapes.items():
        assert Example(0, 0, 0, 0, "top", ("x", token), 1).shape == shape


def test_judge_uses_the_shape_only_of_unlisted_tokens():
    from conceptlab.autointerp import EvidenceJudge, Example, Label

    label = Label(0, "m", "t", {" Rome": 2.0}, {"capitalised words": 0.5}, {" in": 0.25}, {"king": 1.0})
    contexts = [
        Example(0, 0, 0, 0, "top", (" the", " king", " in", " Rome"), 3),
        Example(0, 0, 0, 0, "top", (" in", " Nile"), 1),
        Example(0, 0, 0, 0, "top", (" Kings", " the"), 1),
    ]
    assert EvidenceJudge().judge(label, contexts).tolist() == [3.25, 0.75, 0.0]


def test_thin_keeps_order_and_limit(corpus):
    indices = torch.arange(100)
    kept = corpus.thin(indices, 10, per_doc=2)
    docs = corpus.docs[kept].tolist()
    assert max(docs.count(d) for d in docs) <= 2 and kept.tolist() == sorted(kept.tolist()) and len(kept) == 10


def test_examples_are_what_they_say(corpus, planted):
    from conceptlab.autointerp import unit_examples

    label, score = corpus.halves()
    for unit in range(4):
        found = unit_examples(corpus, planted, unit, score, n=50)
        on = planted.dense(unit) > 0
        for kind in ("top", "spread", "matched"):
            assert all(on[e.index] and score[e.index] and e.kind == kind for e in getattr(found, kind))
        for kind in ("silent", "hard"):
            assert all(not on[e.index] and score[e.index] and e.kind == kind for e in getattr(found, kind))
        assert [e.token for e in found.matched] == [e.token for e in found.hard]
        strengths = [e.activation for e in found.top]
        assert strengths == sorted(strengths, reverse=True)
    assert unit_examples(corpus, planted, 0, score).hard == []  # Rome always fires: no hard negative
    gold = unit_examples(corpus, planted, 2, score)
    assert gold.hard and {e.token for e in gold.hard} == {" gold"}


def test_a_unit_that_never_fires_is_refused(corpus):
    from conceptlab.autointerp import Firings, unit_examples
    from conceptlab.core import ConceptLabError

    empty = torch.zeros(0, dtype=torch.long)
    silent = Firings(empty, torch.zeros(0), torch.zeros(2, dtype=torch.long), len(corpus.token_ids))
    with pytest.raises(ConceptLabError, match="never fires"):
        unit_examples(corpus, silent, 0, corpus.halves()[0])


@pytest.fixture
def scored(corpus, planted):
    """Labels, examples of both halves, and detections of the four planted units."""
    from conceptlab.autointerp import EvidenceJudge, InputExplainer, background_examples, detect, unit_examples

    label, score = corpus.halves()
    explainer = InputExplainer(background_examples(corpus, label, n=1_500))
    seen = [unit_examples(corpus, planted, u, label, strong=1.0) for u in range(4)]
    new = [unit_examples(corpus, planted, u, score, strong=1.0, seed=5) for u in range(4)]
    labels = [explainer.explain(examples) for examples in seen]
    return labels, new, detect(EvidenceJudge(), labels, seen, new, n_resamples=300)


def test_planted_units_get_the_right_label(scored):
    labels, _, _ = scored
    assert list(labels[0].tokens) == [" Rome"] and list(labels[1].tokens) == [" Nile"]
    assert list(labels[2].tokens) == [" gold"] and list(labels[2].previous) == [" king"]
    assert labels[0].text.startswith("on ' Rome'") and labels[0].method == "rule_based"
    assert "after ' king'" in labels[2].text


def test_planted_units_are_detected_and_shuffled_labels_are_not(scored):
    _, new, found = scored
    for detection in found[:3]:
        assert detection.auroc.value > 0.97 and detection.auroc.low <= detection.auroc.value <= detection.auroc.high
        assert detection.balanced_accuracy.value > 0.9
        assert detection.explained and detection.text == detection.label.text
    assert found[0].hard is None  # Rome always fires
    assert found[2].hard.value > 0.9  # gold without a king in front is told apart
    assert found[0].foreign_hard == () and len(found[2].foreign_hard) == 3
    foreign = torch.tensor([d.foreign for d in found])
    assert foreign.shape == (4, 3) and abs(float(foreign.mean()) - 0.5) < 0.07


def test_a_random_unit_is_unexplained(scored):
    _, _, found = scored
    assert 0.35 < found[3].auroc.value < 0.65
    assert found[3].text == "unexplained" or found[3].auroc.value < 0.6


def test_topics_are_read_from_the_articles(corpus, planted):
    from conceptlab.autointerp import InputExplainer, background_examples, dense_firings, unit_examples
    from conceptlab.data import Article

    articles = [Article(f"t{i}", "x", "History" if i % 4 == 0 else "Arts", "") for i in range(200)]
    unit = (corpus.docs % 4 == 0).float() * torch.rand(len(corpus.docs), generator=torch.Generator().manual_seed(4))
    firings = dense_firings(unit[:, None], torch.tensor([0.1]))
    explainer = InputExplainer(background_examples(corpus, corpus.halves()[0], 1_000), articles)
    label = explainer.explain(unit_examples(corpus, firings, 0, corpus.halves()[0]))
    assert list(label.topics) == ["History"] and "in texts on History" in label.text


def test_output_labels_are_the_promoted_tokens(tiny_llama, corpus, planted):
    from conceptlab.autointerp import OutputExplainer, unit_examples
    from conceptlab.models import project

    lm = tiny_llama()
    directions = torch.randn(4, lm.d_model, generator=torch.Generator().manual_seed(0))
    label = OutputExplainer(lm, directions, n_items=5).explain(
        unit_examples(corpus, planted, 2, corpus.halves()[0], strong=1.0)
    )
    expected = lm.words(project(lm, directions[2:3], k=5).top_ids[0])
    assert label.method == "output_side" and set(label.tokens) == set(expected) and label.unit == 2


def test_log_odds_by_hand():
    from conceptlab.autointerp import log_odds

    value, z = log_odds(9, 10, 1, 10, prior=0.0)
    assert value == pytest.approx(2 * np.log(9)) and z == pytest.approx(2 * np.log(9) / (1 / 9 + 1) ** 0.5)
    assert log_odds(5, 50, 10, 100)[0] == pytest.approx(0, abs=0.05)
    assert log_odds(0, 10, 5, 10)[0] < 0
    value, z = log_odds(20, 20, 1900, 2000)  # the figures of the docstring
    counts = (20.5, 0.5, 1900.5, 100.5)
    assert z == pytest.approx(3.5, abs=0.05) and value / sum(1 / x for x in counts) ** 0.5 == pytest.approx(
        0.5, abs=0.05
    )


def test_auroc_counts_pairs():
    from conceptlab.core import ConceptLabError, auroc_interval

    firing, silent = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0, 3.0])
    assert auroc_interval(firing, silent, 10).value == pytest.approx(
        (2 + 1.5) / 6
    )  # 2 beats 0 and 1; 1 beats 0 and ties with 1
    interval = auroc_interval(firing, silent, 200)
    assert interval.low <= interval.value <= interval.high and interval.value == pytest.approx(3.5 / 6)
    assert auroc_interval(torch.ones(5) * 2, torch.ones(9), 50) == (1.0, 1.0, 1.0, 14)
    with pytest.raises(ConceptLabError, match="both sides"):
        auroc_interval(torch.zeros(0), silent)


def test_interval_covers_the_truth():
    """95 % intervals of normal scores, one unit apart: the true AUROC is Phi(1 / sqrt 2) = 0.760."""
    from conceptlab.core import auroc_interval

    generator = torch.Generator().manual_seed(0)
    hits = 0
    for i in range(100):
        firing = torch.randn(40, generator=generator) + 1
        silent = torch.randn(60, generator=generator)
        interval = auroc_interval(firing, silent, 300, seed=i)
        hits += interval.low <= 0.760 <= interval.high
    assert hits >= 88


def test_balanced_accuracy_by_hand():
    from conceptlab.core import balanced_accuracy_interval, best_threshold

    firing, silent = torch.tensor([3.0, 2.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 5.0])
    assert best_threshold(firing, silent) == 1.0
    found = balanced_accuracy_interval(firing, silent, 1.0, 200)
    assert found.value == pytest.approx((2 / 3 + 3 / 4) / 2) and found.low <= found.value <= found.high


def test_one_label_cannot_be_shuffled(scored):
    from conceptlab.autointerp import EvidenceJudge, detect
    from conceptlab.core import ConceptLabError

    labels, new, _ = scored
    with pytest.raises(ConceptLabError, match="two units"):
        detect(EvidenceJudge(), labels[:1], new[:1], new[:1])


def test_neuron_values_are_the_model_s(tiny_llama, tmp_path, monkeypatch):
    from conceptlab.autointerp import keep_neurons, neuron_values
    from conceptlab.data import harvest, token_rows

    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    lm = tiny_llama()
    rows = token_rows(lm, ["The river Nile flows north.", "Rome was an empire."] * 8, n_ctx=16)
    data = harvest(lm, rows, [0], folder=tmp_path / "harvest", progress=False)
    first = neuron_values(lm, data, 1, [3, 0], batch_size=2, progress=False)
    full = lm.capture(rows.ids, [("neurons", 1)])["neurons", 1]
    expected = full[torch.from_numpy(data.row), torch.from_numpy(data.pos)][:, [3, 0]]
    assert torch.allclose(first, expected, atol=1e-5)
    assert torch.equal(neuron_values(lm, data, 1, [3, 0], progress=False), first)
    keep_neurons(lm, data, {0: [5], 1: [2, 3]}, progress=False)
    monkeypatch.setattr(lm, "capture", None)  # one pass has filled the cache for both layers
    assert torch.equal(neuron_values(lm, data, 1, [2, 3], progress=False)[:, 1], first[:, 0])
    assert neuron_values(lm, data, 0, [5], progress=False).shape == (data.n_tokens, 1)


# ---- exercise checks and figures --------------------------------------------------------------------------
def by_ranks(firing, silent):
    both = torch.cat([firing, silent]).sort().values
    low = torch.searchsorted(both, firing)
    high = torch.searchsorted(both, firing, right=True)
    ranks = (low + high + 1).double() / 2
    n, m = len(firing), len(silent)
    return (ranks.sum() - n * (n + 1) / 2) / (n * m)


def test_check_auroc(capsys):
    from conceptlab.course.checks.nb03_autointerp import check_auroc

    check_auroc(by_ranks)
    assert "PASSED" in capsys.readouterr().out
    wrong = {
        "nothing yet": lambda a, b: None,
        "count as lost": lambda a, b: (a[:, None] > b).float().mean(),
        "count as won": lambda a, b: (a[:, None] >= b).float().mean(),
        "are swapped": lambda a, b: 1 - by_ranks(a, b),
        "raised ZeroDivisionError": lambda a, b: 1 / 0,
    }
    for message, answer in wrong.items():
        check_auroc(answer)
        out = capsys.readouterr().out
        assert "NOT YET" in out and message in out


def test_check_hard_negatives(capsys):
    from conceptlab.autointerp import hard_negatives
    from conceptlab.course.checks.nb03_autointerp import check_hard_negatives

    check_hard_negatives(hard_negatives)
    assert "PASSED" in capsys.readouterr().out

    def first_place(ids, on, off):  # uses the same place again and again
        return torch.tensor([int(off[ids[off] == t][0]) if (ids[off] == t).any() else -1 for t in ids[on]])

    wrong = {
        "raised TypeError": lambda ids, on, off: None + 1,
        "integers": lambda ids, on, off: off.float(),
        "same token id": lambda ids, on, off: off[: len(on)],
        "was chosen": lambda ids, on, off: on,
        "several firings": first_place,
        "are possible": lambda ids, on, off: torch.full_like(on, -1),
    }
    for message, answer in wrong.items():
        check_hard_negatives(answer)
        out = capsys.readouterr().out
        assert "NOT YET" in out and message in out


def test_check_label(scored, capsys):
    from conceptlab.autointerp import text_label
    from conceptlab.course.checks.nb03_autointerp import check_label

    _, new, found = scored
    examples = new[0]
    tokens = " ".join(sorted({e.token.strip() for e in examples.spread}))
    foreign = [text_label(9, "m", "zebra"), text_label(8, "m", "quartz")]
    check_label(tokens, examples, foreign)
    assert "PASSED" in capsys.readouterr().out
    for wrong, said in (("zebra", "look at the darkest token"), ("the of", "a few words"), (3, "a few words")):
        check_label(wrong, examples, foreign)
        out = capsys.readouterr().out
        assert "NOT YET" in out and said in out


def test_check_wrong_place(capsys):
    from conceptlab.course.checks.nb03_autointerp import check_wrong_place

    def right(heat, place, generator):
        silent = [i for i, value in enumerate(heat) if value == 0]
        return silent[int(torch.randint(len(silent), (1,), generator=generator))] if silent else -1

    check_wrong_place(right)
    assert "PASSED" in capsys.readouterr().out
    wrong = {
        "raised ZeroDivisionError": lambda h, p, g: 1 / 0,
        "the marked token itself": lambda h, p, g: p,
        "more weakly": lambda h, p, g: int(torch.randint(3, (1,), generator=g)),
        "400 draws": lambda h, p, g: 0,
        "return -1": lambda h, p, g: right(h, p, g) if 0.0 in h else 0,
    }
    for message, answer in wrong.items():
        check_wrong_place(answer)
        out = capsys.readouterr().out
        assert "NOT YET" in out and message in out


def test_figures_are_drawn():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from conceptlab.course.plots.autointerp import context_heat_map, score_strips

    tokens = ["The", " river", " Nile", "\n", " 漢"]
    fig = context_heat_map(
        "t", [tokens, tokens[1:]], [[0.0, 0.0, 2.0, 1.0, 0.0], [0.0, 2.0, 1.0, 0.0]], [2, 1], ["a", "bb"]
    )
    boxes = [p for p in fig.axes[0].patches if p.get_width() in (5, 1)]
    assert len(boxes) == 4 and {b.get_x() for b in boxes if b.get_width() == 5} == {50}  # aligned at the token
    names = {"features": [0.7, 0.9], "shuffled": [0.5, 0.4]}
    fig = score_strips("t", names, {k: (0.6, 0.5, 0.7) for k in names}, dict.fromkeys(names, "#000000"))
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == list(names)
    plt.close("all")
