"""Values that are no change of a weight, names that a model does not have, files that are no place for an edit."""

import os
import warnings

import pytest
import torch
from safetensors.torch import save_file

from conceptlab.core import ConceptLabError
from conceptlab.edits import INPUT, Dense, LowRank, Rows, WeightEdit, value_edit
from untouched import assert_untouched, weights


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama()


N = torch.tensor(10)
ones = torch.ones


def filled(*shape, value):
    x = torch.zeros(*shape)
    x.flatten()[-1] = value
    return x


def build(kind, *values):
    """`kind(*values)` past the type checks of the test run, which users do not have; the class has its own."""
    made = object.__new__(kind)
    for name, value in zip(kind.__dataclass_fields__, values, strict=False):
        object.__setattr__(made, name, value)
    made.__post_init__()
    return made


BAD = {
    "nan": (lambda: build(Dense, filled(2, 3, value=float("nan"))), "NaN or infinite"),
    "infinite": (lambda: build(Dense, filled(3, value=float("inf"))), "NaN or infinite"),
    "minus infinite": (lambda: build(LowRank, filled(2, 1, value=-float("inf")), ones(1, 3)), "left .* NaN or"),
    "nan on the right": (lambda: build(LowRank, ones(2, 1), filled(1, 3, value=float("nan"))), "right .* NaN or"),
    "a product that overflows": (lambda: build(LowRank, 1e30 * ones(2, 2), 1e30 * ones(2, 3)), "left @ right"),
    "nan rows": (lambda: build(Rows, torch.tensor([1]), filled(1, 3, value=float("nan")), N), "NaN or infinite"),
    "bfloat16 nan": (lambda: build(Dense, filled(2, value=float("nan")).bfloat16()), "NaN or infinite"),
    "complex": (lambda: build(Dense, ones(2, 3, dtype=torch.complex64)), "real floating-point .*complex64"),
    "whole numbers": (lambda: build(Dense, ones(2, 3, dtype=torch.long)), "real floating-point numbers; got .*int64"),
    "truths": (lambda: build(Dense, ones(2, 3, dtype=torch.bool)), "real floating-point numbers"),
    "a list": (lambda: build(Dense, [[1.0]]), "real floating-point numbers; got list"),
    "sparse": (lambda: build(Dense, torch.eye(3).to_sparse()), "dense tensor"),
    "nowhere": (lambda: build(Dense, torch.empty(2, device="meta")), "dense tensor"),
    "a vector on the left": (lambda: build(LowRank, ones(2), ones(1, 3)), "left of an edit has 2 dimensions"),
    "ranks that differ": (lambda: build(LowRank, ones(2, 4), ones(3, 5)), r"left \[out, k\] and right \[k, in\]"),
    "a row too far": (lambda: build(Rows, torch.tensor([10]), ones(1, 3), N), "rows 0 to 9; row 10 does not exist"),
    "a row below 0": (lambda: build(Rows, torch.tensor([3, -1]), ones(2, 3), N), "rows 0 to 9; row -1 does not exist"),
    "fewer row numbers": (lambda: build(Rows, torch.tensor([1]), ones(2, 3), N), "one row number per row; got 1 for 2"),
    "more row numbers": (lambda: build(Rows, torch.tensor([1, 1, 2]), ones(2, 3), N), "per row; got 3 for 2"),
    "row numbers with points": (lambda: build(Rows, torch.tensor([1.0]), ones(1, 3), N), "index .* whole numbers"),
    "a mask of rows": (lambda: build(Rows, torch.tensor([True]), ones(1, 3), N), "index .* whole numbers"),
    "rows in a square": (lambda: build(Rows, torch.tensor([[1]]), ones(1, 3), N), "index .* 1-d tensor"),
    "no count of rows": (lambda: build(Rows, torch.tensor([1]), ones(1, 3), torch.tensor([10])), "n_rows .* 0-d"),
    "rows that are one vector": (lambda: build(Rows, torch.tensor([1]), ones(3), N), "delta .* has 2 dimensions"),
    "a bare tensor": (lambda: build(WeightEdit, "m", {"w": ones(2)}), "got Tensor under 'w'"),
    "a name that is none": (lambda: build(WeightEdit, "m", {3: Dense(ones(2))}), "under 3"),
    "times nan": (lambda: WeightEdit("m", {"w": Dense(ones(2))}) * float("nan"), "finite number; got nan"),
    "times infinity": (lambda: WeightEdit("m", {"w": Dense(ones(2))}) * float("inf"), "finite number; got inf"),
    "times too much": (lambda: WeightEdit("m", {"w": Dense(1e30 * ones(2))}) * 1e30, "NaN or infinite"),
    "a sum of two shapes": (
        lambda: WeightEdit("m", {"w": Dense(ones(2))}) + WeightEdit("m", {"w": Dense(ones(3))}), r"\[2\] and as \[3\]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_change_is_refused_where_it_is_made(case):
    make, message = BAD[case]
    with pytest.raises(ConceptLabError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_what_is_fine_stays_fine():
    assert Rows(torch.tensor([4, 4]), ones(2, 3), N).dense()[4].tolist() == [2, 2, 2]  # repeated rows add up
    assert Rows(torch.tensor([], dtype=torch.long), ones(0, 3), N).dense().abs().sum() == 0
    assert LowRank(ones(2, 0), ones(0, 3)).dense().tolist() == [[0] * 3] * 2
    assert LowRank(1e30 * ones(2, 1), 1e8 * ones(1, 3)).shape == (2, 3)
    assert Dense(ones(2, dtype=torch.float64)).shape == (2,)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w|delta": filled(2, 2, value=float("nan"))}, "NaN or infinite"),
        ({"w|left": ones(2, 1), "w|right": filled(1, 2, value=float("inf"))}, "NaN or infinite"),
        ({"w|index": torch.tensor([7]), "w|delta": ones(1, 2), "w|n_rows": torch.tensor(3)}, "row 7 does not exist"),
        ({"w|delta": ones(2, dtype=torch.int32)}, "real floating-point"),
        ({"w|delta": ones(2), "w|left": ones(2, 1)}, "not a saved WeightEdit"),
        ({"w": ones(2)}, "not a saved WeightEdit"),
    ],
)
def test_files_with_wrong_values_are_refused_when_they_are_read(tmp_path, tensors, message):
    path = tmp_path / "e.safetensors"
    save_file(tensors, path, {"model": "m", "info": "{}"})
    with pytest.raises(ConceptLabError, match=message) as caught:
        WeightEdit.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# ---- names and shapes ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tied", [False, True])
def test_names_that_the_model_does_not_have(tiny_llama, tied):
    """B6: between(tied, {"lm_head.weight": ...}) was a KeyError."""
    lm = tiny_llama(tie_word_embeddings=tied)
    before, head = weights(lm), lm.unembedding_rows().clone()
    if tied:
        for use in (
            lambda: WeightEdit.between(lm, {"lm_head.weight": head}),
            lambda: WeightEdit(lm.name, {"lm_head.weight": Dense(head)}).applied(lm).__enter__(),
            lambda: WeightEdit(lm.name, {"lm_head.weight": Dense(head)}).report(lm),
        ):
            with pytest.raises(ConceptLabError, match="shares with its embedding; give it as 'model.embed_tokens.w"):
                use()
    else:
        assert WeightEdit.between(lm, {"lm_head.weight": head}).report(lm)["norm"] == 0
    for name, shape in (("model.layers.7.mlp.down_proj.weight", (16, 32)), (lm.down_proj_name(0), (16, 31))):
        with pytest.raises(ConceptLabError, match="does not have in that shape"):
            WeightEdit.between(lm, {name: ones(*shape)})
        with pytest.raises(ConceptLabError, match="does not have in that shape"):
            WeightEdit.of(lm, {name: Dense(ones(*shape))}).applied(lm).__enter__()
    assert_untouched(lm, before)


def test_value_edits_of_wrong_sizes(lm):
    for delta in (ones(1, 16), ones(2, 15)):
        with pytest.raises(ConceptLabError, match=r"2 value vectors of tiny-llama change by \[2, 16\] numbers"):
            value_edit(lm, 0, [1, 2], delta)


def test_a_second_change_that_is_wrong_leaves_the_first_undone(lm):
    before = weights(lm)
    edit = WeightEdit.of(lm, {lm.down_proj_name(0): Dense(ones(16, 32)), "nothing": Dense(ones(2))})
    with pytest.raises(ConceptLabError, match="does not have"), edit.applied(lm):
        pass
    side = WeightEdit.of(lm, {lm.down_proj_name(0) + INPUT: Dense(ones(16, 32))})
    with pytest.raises(ConceptLabError, match="on its input side"), side.applied(lm):
        pass
    assert_untouched(lm, before)


def test_a_change_that_overflows_the_models_dtype_is_refused(lm):
    lm.hf.to(torch.float16)
    before = weights(lm)
    edit = WeightEdit.of(lm, {lm.down_proj_name(1): Dense(filled(16, 32, value=1e5))})
    with (
        pytest.raises(ConceptLabError, match="plus its change, in torch.float16, .* NaN or infinite"),
        edit.applied(lm),
    ):
        pass
    assert_untouched(lm, before)


# ---- A9: what really changes -----------------------------------------------------------------------------------
def small_edit(lm, size=1e-3):
    values = lm.value_vectors(0)[:5].float()
    return value_edit(lm, 0, list(range(5)), size * values)


def test_an_edit_of_a_thousandth_changes_nothing_in_bfloat16_and_says_so(lm):
    full = small_edit(lm).report(lm)["norm"]
    assert full == pytest.approx(1e-3 * float(lm.value_vectors(0)[:5].norm()), rel=1e-3)
    lm.hf.to(torch.bfloat16)
    edit, before = small_edit(lm), weights(lm)
    with pytest.warns(UserWarning, match="changes nothing in bfloat16"):
        report = edit.report(lm)
    assert report["norm"] == report["relative_norm"] == report["vectors_touched"] == 0
    with edit.applied(lm):
        assert all(torch.equal(x, before[n]) for n, x in weights(lm).items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_report_is_what_applying_does(lm, dtype):
    lm.hf.to(dtype)
    edit, before = small_edit(lm, 0.02), weights(lm)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = edit.report(lm)
    with edit.applied(lm):
        moved = {n: x.float() - before[n].float() for n, x in weights(lm).items()}
    delta = moved[lm.down_proj_name(0)]
    assert report["norm"] == pytest.approx(float(delta.norm()), rel=1e-6) and report["norm"] > 0
    assert report["vectors_touched"] == int((delta != 0).any(0).sum()) / 32 == 5 / 32


def test_an_edit_of_zeros_needs_no_warning(lm):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert WeightEdit.of(lm, {lm.down_proj_name(0): Dense(torch.zeros(16, 32))}).report(lm)["norm"] == 0


def test_a_change_in_half_precision_is_added_once_and_rounded_once(lm):
    lm.hf.to(torch.bfloat16)
    name = lm.down_proj_name(0)
    old = weights(lm)[name]
    delta = 1e-3 * torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    with WeightEdit.of(lm, {name: Dense(delta)}).applied(lm):
        now = weights(lm)[name]
    assert torch.equal(now, (old.float() + delta).bfloat16())
    with torch.no_grad():
        lm.parameters()[name].copy_(now)
    edit = WeightEdit.between(lm, {name: old})
    with torch.no_grad():
        lm.parameters()[name].copy_(old)
    with edit.applied(lm):
        assert torch.equal(weights(lm)[name], now)


# ---- A25 -------------------------------------------------------------------------------------------------------
def test_factors_multiply(lm):
    edit = value_edit(lm, 0, [1], ones(1, 16), {"method": "m"})
    assert ((edit * 0.5) * 0.5).info == {"method": "m", "factor": 0.25}
    assert (((edit * 2.0) * -0.5) * 3.0).info["factor"] == -3.0 and edit.info == {"method": "m"}
    torch.testing.assert_close(
        ((edit * 0.5) * 0.5).changes[lm.down_proj_name(0)].dense(), 0.25 * edit.changes[lm.down_proj_name(0)].dense()
    )


# ---- D4: places for files ---------------------------------------------------------------------------------------
def test_an_edit_is_not_saved_over_what_is_no_file(lm, tmp_path):
    edit = value_edit(lm, 0, [1], ones(1, 16))
    (tmp_path / "real.st").write_text("mine", encoding="utf-8")
    (tmp_path / "link.st").symlink_to(tmp_path / "real.st")
    (tmp_path / "dangling.st").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "shut").symlink_to(tmp_path / "folder")
    cases = {
        "/dev/null": "no plain file", "link.st": "is a link", "dangling.st": "is a link", "folder": "is a folder",
        "pipe": "no plain file", "real.st/below.st": "cannot be written", "shut": "is a link",
    }  # fmt: skip
    kept = sorted(p.name for p in tmp_path.iterdir())
    for name, message in cases.items():
        with pytest.raises(ConceptLabError, match=message):
            edit.save(tmp_path / name)
    for name in ("link.st", "real.st", "folder", "pipe", "shut", "real.st/below"):
        with pytest.raises(ConceptLabError):
            edit.export(lm, tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == kept
    assert (tmp_path / "real.st").read_text(encoding="utf-8") == "mine" and (tmp_path / "link.st").is_symlink()
    for name in ("folder", "pipe"):
        with pytest.raises(ConceptLabError, match="no regular file"):
            WeightEdit.load(tmp_path / name)


def test_an_info_that_is_no_json_is_one_sentence(lm, tmp_path):
    edit = value_edit(lm, 0, [1], ones(1, 16), {"x": torch.ones(2)})
    for use in (lambda: edit.save(tmp_path / "e.st"), lambda: edit.export(lm, tmp_path / "e")):
        with pytest.raises(ConceptLabError, match="info is no JSON"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_save_leaves_the_old_file(lm, tmp_path, monkeypatch):
    edit, path = value_edit(lm, 0, [1], ones(1, 16)), tmp_path / "e.st"
    edit.save(path)
    before = path.read_bytes()

    def fail(_tensors, target, **_):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("conceptlab.edits.storage.save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        (edit * 2.0).save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["e.st"]
