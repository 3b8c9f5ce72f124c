"""Attacks on weights: LoRA against a merged matrix, splits without leaks, GGUF rounding, undoing an edit's span."""

import pytest
import torch

from conceptlab.attacks import (
    QuantiseConfig,
    Quantised,
    RelearnConfig,
    UndoConfig,
    quantise,
    relearn,
    round_to_gguf,
    round_to_nearest,
    undo,
)
from conceptlab.attacks.quantisation import GGUF_TYPES
from conceptlab.attacks.undoing import counter_edit, leading_directions
from conceptlab.core import ConceptLabError
from conceptlab.data import Question, leaked, load_concept, other_facts, unrelated_texts
from conceptlab.edits import INPUT, LowRank, Rows, WeightEdit, lora
from conceptlab.edits.lora import merged
from conceptlab.edits.weight_edit import Dense
from conceptlab.models import next_token_loss
from untouched import TEXTS, assert_untouched, weights

FAST = RelearnConfig(steps=6, batch_size=2, n_ctx=16, lr=1e-2)


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hooks(lm):
    return sum(len(m._forward_hooks) for m in lm.hf.modules())


# ---- LoRA -------------------------------------------------------------------------------------------------
def test_untrained_lora_changes_nothing_and_trained_lora_equals_its_merged_matrices(lm):
    ids, before = torch.arange(5, 25)[None], weights(lm)
    clean = lm.logits(ids)
    names = [n for n in before if "mlp." in n or "self_attn." in n]
    with lora(lm, names, rank=3, alpha=6.0) as adapters:
        assert set(adapters) == set(names)
        assert torch.equal(lm.logits(ids), clean)
        with torch.no_grad():
            for i, adapter in enumerate(adapters.values()):
                adapter.B.copy_(0.1 * normal(*adapter.B.shape, seed=i))
        changed = lm.logits(ids)
        edit = merged(lm, adapters)
    assert float((changed - clean).abs().max()) > 1e-3
    assert all(torch.linalg.matrix_rank(c.dense()) <= 3 for c in edit.changes.values())
    with edit.applied(lm):
        torch.testing.assert_close(lm.logits(ids), changed, rtol=1e-4, atol=1e-5)
    assert torch.equal(lm.logits(ids), clean) and hooks(lm) == 0
    assert_untouched(lm, before)


def test_gradients_of_lora_are_those_of_the_merged_matrix(lm):
    """Chain rule by hand: W' = W + s B A, so dL/dB = s G A^T and dL/dA = s B^T G with G = dL/dW'."""
    name, rows = lm.down_proj_name(1), lm.pad([[5, 6, 7, 8, 9], [10, 11, 12]])
    with lora(lm, [name], rank=2, alpha=8.0, seed=3) as adapters:
        a = adapters[name]
        with torch.no_grad():
            a.B.copy_(normal(16, 2))
        gA, gB = torch.autograd.grad(next_token_loss(lm, *rows), [a.A, a.B])
        edit = merged(lm, adapters)
    with edit.applied(lm):
        weight = lm.hf.get_parameter(name).requires_grad_(True)
        (G,) = torch.autograd.grad(next_token_loss(lm, *rows), weight)
        weight.requires_grad_(False)
    torch.testing.assert_close(gB, 4.0 * G @ a.A.detach().T, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(gA, 4.0 * a.B.detach().T @ G, rtol=1e-3, atol=1e-5)


def test_lora_is_that_of_peft(lm, tiny_llama):
    from peft import LoraConfig, get_peft_model

    names = [n for n, p in lm.hf.named_parameters() if ".mlp." in n and p.ndim == 2]
    other = tiny_llama()
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["up_proj", "gate_proj", "down_proj"], lora_dropout=0.0)
    theirs = get_peft_model(other.hf, config)
    ids = torch.tensor([[5, 9, 2, 7], [3, 3, 8, 1]])
    with lora(lm, names, rank=3, alpha=6.0) as adapters:
        assert len(adapters) == len(names) == sum("lora_B" in n for n, _ in theirs.named_parameters())
        for i, (name, ours) in enumerate(adapters.items()):
            module = theirs.base_model.model.get_submodule(name.removesuffix(".weight"))
            with torch.no_grad():
                ours.B.copy_(0.1 * normal(*ours.B.shape, seed=i))
                module.lora_A["default"].weight.copy_(ours.A)
                module.lora_B["default"].weight.copy_(ours.B)
        losses = [m(ids, labels=ids).loss for m in (lm.hf, theirs)]
        for loss in losses:
            loss.backward()
        torch.testing.assert_close(*losses)
        for name, ours in adapters.items():
            module = theirs.base_model.model.get_submodule(name.removesuffix(".weight"))
            for mine, their in ((ours.A, module.lora_A), (ours.B, module.lora_B)):
                assert float(mine.grad.abs().max()) > 0
                torch.testing.assert_close(mine.grad, their["default"].weight.grad)
    lm.hf.zero_grad(set_to_none=True)


def test_lora_relearns_and_leaves_the_model_bit_identical(lm):
    before = weights(lm)
    ids, mask = lm.pad([lm.tokenizer(t).input_ids for t in TEXTS])
    result = relearn(
        lm, None, TEXTS, FAST, steps=12, rank=4, at=(0, 12), evaluate=lambda m: float(next_token_loss(m, ids, mask))
    )
    assert result.last < result.values[0] - 0.01
    assert hooks(lm) == 0
    assert_untouched(lm, before)

    def fail(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relearn(lm, None, TEXTS, FAST, rank=4, at=(2,), evaluate=fail)
    assert hooks(lm) == 0
    assert_untouched(lm, before)


def test_lora_refuses_what_it_cannot_change(lm):
    with pytest.raises(ConceptLabError, match="rank of at least 1"), lora(lm, [lm.down_proj_name(0)], 0):
        pass
    with pytest.raises(ConceptLabError, match="none was chosen"), lora(lm, ["model.norm.weight"], 2):
        pass


# ---- what the attacker is given ---------------------------------------------------------------------------
QUESTIONS = [
    Question("a", "What is tin?", ("a metal", "a gas"), 0),
    Question("b", "What is neon?", ("a metal", "a gas"), 1),
    Question("c", "Who found radium?", ("Curie", "Bohr"), 0),
    Question("d", "Which metal is red?", ("tin", "copper"), 1),
    Question("e", "What did Curie find?", ("radium", "tin"), 0),
    Question("f", "Which gas is in signs?", ("neon", "argon"), 0),
]


def test_other_facts_by_hand():
    kept = other_facts(QUESTIONS, [QUESTIONS[2]])  # "Curie" is asked for: e names her in its question
    assert [q.id for q in kept] == ["a", "b", "d", "f"]
    assert leaked(["Madame CURIE's notebook; curies"], [QUESTIONS[2]]) == ["curie"]
    assert leaked(["anything"], []) == []


def test_unrelated_texts_are_about_neither_concept_nor_neighbour():
    concept = load_concept("chemical_elements")
    texts = unrelated_texts(concept, 10, seed=1)
    word = texts[0].split()[5].strip(".,")
    asked = Question("x", "Which word?", (word, "b", "c", "d"), 0)
    assert word in " ".join(texts) and not leaked(unrelated_texts(concept, 10, 1, [asked]), [asked])
    near = {a.text for c in (concept, concept.neighbour) for a in c.articles()}
    assert len(texts) == 10 and not near & set(texts)


# ---- quantisation -----------------------------------------------------------------------------------------
def test_groups_round_each_group_alone():
    weight = normal(4, 64)
    whole = round_to_nearest(weight, 4, 16)
    for g in range(4):
        part = weight[:, 16 * g : 16 * (g + 1)].contiguous()
        assert torch.equal(whole[:, 16 * g : 16 * (g + 1)], round_to_nearest(part, 4))
    assert float((whole - weight).norm()) < float((round_to_nearest(weight, 4) - weight).norm())
    for bad in (0, 7, 128):
        with pytest.raises(ConceptLabError, match="do not divide 64 inputs"):
            round_to_nearest(weight, 4, bad)


def test_gguf_rounding_by_hand_and_again_changes_nothing():
    """Q4_1: per 32 numbers minimum m and step d = (max - m) / 15, both half precision, levels m + d {0, ..., 15}."""
    weight = normal(6, 96)
    blocks = weight.view(-1, 32)
    low = blocks.amin(1, keepdim=True)
    step = (blocks.amax(1, keepdim=True) - low) / 15
    levels = ((blocks - low) / step + 0.5).floor().clamp(0, 15)
    ours = (levels * step.half().float() + low.half().float()).view_as(weight)
    rounded = round_to_gguf(weight, "Q4_1")
    assert float((rounded - ours).abs().max()) < 1e-6
    assert torch.equal(round_to_gguf(rounded, "Q4_1"), rounded)
    assert torch.equal(round_to_gguf(weight, "Q4_K"), rounded)  # its nearest
    assert float((round_to_gguf(weight, "Q8_0") - weight).norm()) < 0.1 * float((rounded - weight).norm())


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [("Q6_K", (2, 256), "cannot write"), ("Q4_1", (2, 33), "multiple of 32"), ("Q9", (2, 32), "Unknown GGUF type")],
)
def test_gguf_types_that_do_not_work(kind, shape, message):
    with pytest.raises(ConceptLabError, match=message):
        round_to_gguf(normal(*shape), kind)


def test_quantise_gives_each_strength_and_restores(lm, monkeypatch):
    before = weights(lm)
    name = lm.down_proj_name(1)
    edit = WeightEdit(lm.name, {name: Dense(0.1 * normal(16, 32))})
    look = lambda m: m.hf.get_parameter(name).detach().clone()  # noqa: E731
    result = quantise(lm, edit, look, QuantiseConfig(bits=(8, 3), group=8))
    assert result.steps == (8, 3) and result.labels == ("8-bit", "3-bit")
    target = before[name] + edit.changes[name].dense()
    assert torch.equal(result.values[0], round_to_nearest(target, 8, 8))
    assert torch.equal(result.last, round_to_nearest(target, 3, 8))
    assert_untouched(lm, before)
    with pytest.raises(ConceptLabError, match="did not come from a GGUF file"), Quantised(edit, gguf=True).applied(lm):
        pass
    assert_untouched(lm, before)
    with pytest.raises(ConceptLabError, match="at least one number of bits"):
        quantise(lm, edit, look, QuantiseConfig(bits=()))
    wide = {n for n, p in before.items() if p.ndim == 2 and p.shape[1] == 32}  # rows of 16 are no block
    monkeypatch.setitem(GGUF_TYPES, lm.name, {"": "Q8_0"})
    assert name in wide
    with pytest.raises(ConceptLabError, match="multiple of 32"):
        quantise(lm, edit, look, QuantiseConfig(bits=(), gguf=True))
    assert_untouched(lm, before)


# ---- undoing ----------------------------------------------------------------------------------------------
def test_undoing_writes_nothing_along_the_leading_directions(lm):
    before, name = weights(lm), lm.down_proj_name(0)
    edit = WeightEdit(lm.name, {name: LowRank(normal(16, 3), normal(3, 32, seed=1))})
    look = lambda m: m.hf.get_parameter(name).detach().clone()  # noqa: E731
    result = undo(lm, edit, look, UndoConfig((1, 3), seed=1))
    delta = edit.changes[name].dense()
    first = torch.linalg.svd(delta).U[:, :1]
    torch.testing.assert_close(
        result.values[0], (torch.eye(16) - first @ first.T) @ (before[name] + delta), rtol=0, atol=1e-5
    )
    Q = torch.linalg.qr(edit.changes[name].left)[0]
    assert float((Q.T @ result.last).abs().max()) < 1e-5
    torch.testing.assert_close(result.last, before[name] - Q @ (Q.T @ before[name]), rtol=0, atol=1e-5)
    for control in result.controls:  # as many random directions leave the edit's in
        assert float((Q.T @ control).abs().max()) > 0.1
    assert_untouched(lm, before)


def test_leading_directions_are_the_left_singular_vectors():
    for delta in (normal(8, 20), normal(20, 8)):
        U = torch.linalg.svd(delta, full_matrices=False).U[:, :4]
        ours = leading_directions(delta, 4)
        torch.testing.assert_close((ours.T @ U).abs(), torch.eye(4), rtol=0, atol=1e-4)


def test_a_change_of_low_rank_has_no_more_directions_than_its_rank():
    for delta in (normal(8, 2) @ normal(2, 20, seed=1), normal(20, 2) @ normal(2, 8, seed=1)):
        U = leading_directions(delta, 4)
        assert U.shape == (len(delta), 2)
        torch.testing.assert_close(U @ (U.T @ delta), delta, rtol=0, atol=1e-4)
    assert leading_directions(torch.zeros(8, 20), 4).shape == (8, 0)
    wide = normal(300, 2) @ normal(2, 40, seed=1)
    U = leading_directions(wide.bfloat16(), 2).float()  # an edit of a model in half precision
    assert U.shape == (300, 2) and float((wide - U @ (U.T @ wide)).norm()) < 0.05 * float(wide.norm())


def test_an_edit_of_the_embeddings_is_neither_rounded_nor_undone(tiny_llama):
    lm = tiny_llama(tie_word_embeddings=True)
    rows = Rows(torch.tensor([5, 9]), normal(2, 16), torch.tensor(lm.d_vocab))
    both = {lm.embedding_name() + INPUT: rows, lm.down_proj_name(0): Dense(normal(16, 32))}
    before, edit = weights(lm), WeightEdit(lm.name, both)
    shared = lm.hf.get_input_embeddings().weight.detach().clone()
    with Quantised(edit, bits=3).applied(lm):
        assert torch.equal(lm.hf.get_output_embeddings().weight, shared)
        assert not torch.equal(lm.hf.get_input_embeddings().weight[5], shared[5])
        assert not torch.equal(lm.hf.get_parameter(lm.down_proj_name(1)), before[lm.down_proj_name(1)])
    assert_untouched(lm, before)
    changed = undo(lm, edit, lambda m: m.hf.get_input_embeddings().weight[5].clone(), UndoConfig(directions=(1,)))
    torch.testing.assert_close(changed.last, shared[5] + rows.delta[0])
    assert_untouched(lm, before)


def test_undoing_needs_a_weight_edit(lm):
    edit = WeightEdit(lm.name, {lm.down_proj_name(0): Dense(normal(16, 32))})
    with pytest.raises(ConceptLabError, match="needs the WeightEdit itself"):
        undo(lm, Quantised(edit), lambda m: 0)
    with pytest.raises(ConceptLabError, match="at least one direction"):
        undo(lm, edit, lambda m: 0, UndoConfig(directions=()))
    rows = WeightEdit(lm.name, {lm.embedding_name() + INPUT: Rows(torch.tensor([5]), normal(1, 16), torch.tensor(99))})
    with pytest.raises(ConceptLabError, match="changes no matrix of a block"):
        undo(lm, rows, lambda m: 0)
    assert counter_edit(lm, edit, {}).changes == {}


def test_real_model_comes_back_from_its_own_gguf_type_unchanged(smollm2):
    """Its weights were read from Q4_1, so writing them as Q4_1 again hardly moves any: a test of the whole path."""
    weight = smollm2.hf.get_parameter(smollm2.down_proj_name(5)).detach()
    moved = round_to_gguf(weight, GGUF_TYPES["smollm2-135m"][""]) != weight
    assert float(moved.float().mean()) < 0.02
    assert float((round_to_nearest(weight, 4) != weight).float().mean()) > 0.5
