"""Tasks from real text, states on disk, tokens that stop, facts read by layer: on tiny models."""

import numpy as np
import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import Question
from conceptlab.early_exit import (
    TASKS,
    Lens,
    Task,
    centre_of_loss,
    describe,
    fit_lens,
    letter_features,
    load_task,
    passage_ids,
    rank_correlation,
    right_at_layers,
    run_with_exits,
    separable,
    task_states,
    text_states,
)
from sentences import sentences


# ---- tasks ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_real_text_with_labels_and_no_item_twice(name):
    task = load_task(name, 200)
    assert len(task.texts) == len(task.labels) == len(set(task.texts)) == 200
    assert task.n_train == 120 and set(task.labels) <= set(range(len(task.classes)))
    assert 1 / len(task.classes) <= task.most_common + 0.1 and task.most_common < 0.7
    assert load_task(name, 200) == task and load_task(name, 200, seed=1).texts != task.texts
    assert describe(name).endswith((".", "?"))


def test_answers_of_a_task_are_not_in_its_text():
    task = load_task("verb", 300)
    assert not any(text.split()[-1] in task.classes for text in task.texts)


@pytest.mark.parametrize("n", [0, 29, 10**6, -5])
def test_a_task_says_how_many_items_it_has(n):
    with pytest.raises(ConceptLabError, match="ask for 30"):
        load_task("truth", n)


def test_unknown_tasks_are_named():
    for function in (load_task, describe):
        with pytest.raises(ConceptLabError, match="topic, title, verb, order, truth, follows"):
            function("weather")


# ---- states ---------------------------------------------------------------------------------------------
def task_of(texts):
    return Task("made", tuple(texts), tuple(i % 2 for i in range(len(texts))), ("a", "b"), len(texts) - 2)


def test_states_are_those_of_the_model_whatever_the_batch(tiny_llama):
    lm = tiny_llama()
    texts = ["one", "a much longer text of several tokens", "two words", "x"]
    by_one = text_states(lm, texts, batch_tokens=1)
    for together in (text_states(lm, texts, batch_tokens=8), text_states(lm, texts, batch_tokens=999)):
        assert torch.allclose(by_one.float(), together.float(), atol=2e-3)
    for i, text in enumerate(texts):
        ids, mask = lm.tokens(text)
        want = lm.capture(ids, [("resid_post", 1)], mask)["resid_post", 1][0, -1]
        want = want / want.square().mean().sqrt()
        assert torch.allclose(by_one[1, i].float(), want, atol=5e-3)


def test_the_mean_leaves_the_first_token_out(tiny_llama):
    lm = tiny_llama()
    found = text_states(lm, ["some words of a text", "x"], "mean")
    ids, mask = lm.tokens("some words of a text")
    want = lm.capture(ids, [("resid_post", 0)], mask)["resid_post", 0][0, 1:].mean(0)
    assert torch.allclose(found[0, 0].float(), want / want.square().mean().sqrt(), atol=5e-3)
    assert found[0, 1].float().square().mean() == pytest.approx(1, abs=0.01)  # one token: there is no other


def test_states_are_computed_once_and_keyed_by_weights_and_texts(tiny_llama, tmp_path, monkeypatch):
    lm = tiny_llama()
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    texts = [f"text number {i}" for i in range(6)]
    first = task_states(lm, task_of(texts), progress=False)
    assert first.train.shape == (2, 4, 16) and first.test.shape == (2, 2, 16) and first.y_test.tolist() == [0, 1]
    monkeypatch.setattr(lm, "capture", None)  # a second pass would fail
    again = task_states(lm, task_of(texts), progress=False)
    assert torch.equal(first.train, again.train)
    files = tmp_path / "cache" / "early_exit"
    assert len(list(files.iterdir())) == 1
    monkeypatch.undo()
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    task_states(lm, task_of([*texts[:-1], "other"]), progress=False)
    task_states(tiny_llama(seed=1), task_of(texts), progress=False)
    task_states(lm, task_of(texts), "mean", progress=False)
    assert len(list(files.iterdir())) == 4


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "another shape", "a pickle"])
def test_damaged_states_are_computed_anew(tiny_llama, tmp_path, monkeypatch, damage):
    lm = tiny_llama()
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    task = task_of([f"text number {i}" for i in range(6)])
    first = task_states(lm, task, progress=False)
    (path,) = (tmp_path / "cache" / "early_exit").iterdir()
    whole = path.read_bytes()
    if damage in ("another shape", "a pickle"):
        np.save(path, np.zeros(3, np.float16) if damage == "another shape" else np.array([print]), allow_pickle=True)
    else:
        path.write_bytes({"empty": b"", "cut": whole[:150], "text": b"text"}[damage])
    assert torch.equal(task_states(lm, task, progress=False).train, first.train) and path.read_bytes() == whole


def test_an_unknown_pool_is_named(tiny_llama):
    with pytest.raises(ConceptLabError, match="last, mean"):
        task_states(tiny_llama(), task_of(["a", "b", "c"]), "max")


# ---- tokens that stop -------------------------------------------------------------------------------------
@pytest.fixture(params=["llama", "gemma2"])
def model(request, tiny_llama, tiny_gemma2):
    lm = tiny_llama(n_layers=4) if request.param == "llama" else tiny_gemma2(n_layers=4)
    ids = passage_ids(lm, sentences(4, 0), 12)
    return lm, ids


def loud(lm):
    """Embeddings of usual size: a random model's are so small that the eps of its norms counts."""
    lm.parameters()[lm.embedding_name()].data *= 50
    for name, p in lm.parameters().items():
        if "layers" in name and "norm" not in name:
            p.data *= 8  # random weights of usual size hardly attend
    return lm


def logit_lens(lm):
    return Lens(lm.final_gain().float())


def test_leaving_after_the_last_layer_is_the_model(model):
    lm, ids = model
    for rule, knob in (("layer", 4), ("confidence", 1.1), ("patience", 9)):
        found = run_with_exits(lm, ids, logit_lens(lm), rule, knob)
        assert found.depth.tolist() == [4.0] * len(ids) * 10  # of 12 tokens: not the first, and the last predicts none
        assert found.agrees.all() and torch.allclose(found.logprob, found.full, atol=1e-4)
    want = lm.logits(ids).log_softmax(-1)[:, 1:-1].gather(2, ids[:, 2:, None]).flatten()
    assert torch.allclose(found.full, want, atol=1e-4)


def test_stopped_tokens_hand_their_copied_state_to_the_keys_above(model):
    lm, ids = model
    copied = run_with_exits(lm, ids, logit_lens(lm), "layer", 2)
    apart = run_with_exits(lm, ids, logit_lens(lm), "layer", 2, copy=False)
    assert set(copied.depth.tolist()) == set(apart.depth.tolist()) == {2.0}
    # all tokens but the first leave after the same layer: what is read there has seen no copied state yet
    assert torch.allclose(copied.logprob, apart.logprob, atol=1e-4)
    probability = run_with_exits(lm, ids, logit_lens(lm), "confidence", 0.0)
    assert set(probability.depth.tolist()) == {1.0}


def test_copied_states_change_later_tokens(tiny_llama):
    lm = loud(tiny_llama(n_layers=4))
    ids = passage_ids(lm, sentences(4, 1), 16)
    lens, mixed = logit_lens(lm), False
    for knob in torch.logspace(-5, 0, 12).tolist():
        copied, kept = (run_with_exits(lm, ids, lens, "confidence", knob, copy=c) for c in (True, False))
        if 1 < kept.depth.mean() < 4:
            mixed = True
            assert not torch.equal(copied.logprob, kept.logprob)
    assert mixed, "no threshold mixed depths; the test tests nothing"


def test_a_copied_pass_equals_a_token_by_token_simulation(tiny_llama):
    """The reference: run layer by layer, attention of every token over the states that the others hold."""
    lm = loud(tiny_llama(n_layers=3))
    ids = passage_ids(lm, sentences(1, 2), 8)
    stop = torch.tensor([3, 1, 2, 3, 1, 1, 2, 3])  # layers that each token uses
    states = {}

    def keep(layer, state):
        old = states.get(layer - 1)
        new = state if old is None else torch.where((stop > layer)[None, :, None], state, old)
        states[layer] = new
        return new

    with lm.intervene({("resid_post", i): lambda s, i=i: keep(i, s) for i in range(3)}):
        lm.final_hidden(ids)
    want = lm.readout(states[2])[0, 1:-1].log_softmax(-1).gather(1, ids[0, 2:, None])[:, 0]

    from conceptlab.early_exit import tokens

    run = tokens._Run(lm, ids, logit_lens(lm), "confidence", 0.0, True)
    real = run._stop

    def stop_as_told(layer, state, alive, last):
        run.rule, run.knob = "layer", 0  # everyone in `alive` leaves
        real(layer, state[:, :], alive[stop[alive] == layer + 1], last)

    run._stop = stop_as_told
    with lm.intervene({("resid_post", i): lambda s, i=i: run.after(i, s) for i in range(3)}):
        lm.final_hidden(ids)
    assert run.depth.tolist()[1:] == stop[1:-1].tolist()
    assert torch.allclose(run.logprob[1:], want, atol=1e-3)


def test_the_model_is_as_before_after_a_run(model):
    lm, ids = model
    before = lm.logits(ids)
    run_with_exits(lm, ids, logit_lens(lm), "patience", 1)
    assert torch.equal(lm.logits(ids), before)


def test_a_lens_reads_better_than_none_and_leaves_the_last_layer_alone(tiny_llama):
    lm = loud(tiny_llama(n_layers=4))
    ids = passage_ids(lm, sentences(12, 3), 24)
    lens = fit_lens(lm, ids)
    state = lm.capture(ids, [("resid_post", 3), ("resid_post", 1)])
    last = state["resid_post", 3][:, 1:].flatten(0, 1)
    want = lm.readout(last)
    assert torch.allclose(lm.head(lens.final(last, 3)), want, atol=1e-3 * float(want.abs().max()))
    inner = state["resid_post", 1][:, 1:].flatten(0, 1)
    fitted, plain = ((lm.head(x.final(inner, 1)) - want).square().mean() for x in (lens, logit_lens(lm)))
    assert fitted < plain


def test_what_cannot_be_run_is_said_before_the_work(tiny_llama):
    lm = tiny_llama()
    ids = passage_ids(lm, sentences(2, 0), 8)
    with pytest.raises(ConceptLabError, match="layer, confidence, patience"):
        run_with_exits(lm, ids, logit_lens(lm), "entropy", 1)
    with pytest.raises(ConceptLabError, match="more than 16 tokens"):
        fit_lens(lm, ids)
    with pytest.raises(ConceptLabError, match="No text has 500 tokens"):
        passage_ids(lm, sentences(2, 0), 500)


# ---- facts --------------------------------------------------------------------------------------------
def test_the_last_layer_of_a_fact_is_the_models_own_choice(tiny_llama):
    lm = tiny_llama(n_layers=3)
    questions = [
        Question("a", "What is red?", ("blood", "grass", "snow", "coal"), 0),
        Question("b", "What is cold?", ("fire", "ice", "soup", "sun"), 1),
    ]
    found = right_at_layers(lm, questions)
    assert found.shape == (2, 3)
    from conceptlab.data import FEW_SHOT, question_stem

    for row, q in zip(found, questions, strict=True):
        ids, _ = lm.tokens(FEW_SHOT + question_stem(q))
        first = [lm.single_token(o) for o in q.options]
        assert bool(row[-1]) == (int(lm.logits(ids)[0, -1, first].argmax()) == q.answer)


def test_questions_whose_options_begin_alike_are_left_out(tiny_llama):
    lm = tiny_llama()
    same = Question("a", "Who?", ("New York", "New Jersey", "Ohio", "Iowa"), 0)
    other = Question("b", "Who?", ("New York", "New Jersey", "Ohio", "Iowa"), 2)
    assert separable(lm, [same, other]) == [other]


def test_centre_of_loss():
    losses = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 1.0], [-5.0, 0.0, 1.0], [-1.0, 0.0, -1.0]])
    found = centre_of_loss(losses)
    assert found[:3].tolist() == [2.0, 2.0, 3.0] and found[3].isnan()


def test_rank_correlation_sees_order_only():
    a = torch.arange(30).float()
    assert rank_correlation(a, a.exp()).value == pytest.approx(1)
    assert rank_correlation(a, -a.square()).value == pytest.approx(-1)
    tied = torch.tensor([1.0, 1.0, 2.0, 2.0])
    assert rank_correlation(tied, torch.tensor([3.0, 3.0, 9.0, 9.0])).value == pytest.approx(1)
    assert rank_correlation(torch.ones(5), torch.arange(5).float()).value == 0


def test_letters_are_counted_without_a_model():
    x = letter_features(["the lemurs", "the lemurs", "a koi"], 64)
    assert x.shape == (1, 3, 64) and torch.equal(x[0, 0], x[0, 1]) and not torch.equal(x[0, 0], x[0, 2])
    assert x.mean(1).abs().max() < 1e-5 and letter_features(["", "a"], 8).isfinite().all()
