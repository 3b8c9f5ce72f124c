"""The sweep over layers on a tiny model."""

import sys

import pytest
import torch

from conceptlab.core import ConceptLabError, read_table
from conceptlab.data import load_concept
from conceptlab.erasure import Feature, ablation_edit, directional_edit
from conceptlab.experiments import layers
from conceptlab.experiments.layers import contrast_directions
from dictionaries import make_sae


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


@pytest.mark.parametrize("c", [1.0, 2.0])
def test_the_sweep_makes_the_edit_that_directional_makes_of_the_same_directions(lm, c):
    sae = make_sae(lm, 1)
    features = [Feature(1, index) for index in (3, 8, 20)]
    Q = torch.linalg.qr(sae.directions(torch.tensor([3, 8, 20])).detach().T)[0]
    before = lm.down_proj(1).clone()
    name = lm.down_proj_name(1)
    ours = ablation_edit(lm, {("mlp_output", 1): Q.T}, c).changes[name].dense()
    theirs = directional_edit(lm, {1: sae}, features, c).changes[name].dense()
    assert torch.allclose(ours, theirs, atol=1e-6) and float(ours.norm()) > 0.1 * float(before.norm())
    with ablation_edit(lm, {("mlp_output", 1): Q.T}, c).applied(lm):
        after = lm.down_proj(1).clone()
    assert torch.allclose(after @ Q, (1 - c) * (before @ Q), atol=1e-5), "c = 2 turns what is written round"
    rest = torch.eye(lm.d_model) - Q @ Q.T
    assert torch.allclose(after @ rest, before @ rest, atol=1e-5)
    assert torch.equal(lm.down_proj(1), before)


def test_the_sweep_fills_every_cell_and_resumes(lm, tmp_path, monkeypatch, capsys):
    path, sizes = tmp_path / "layers_tiny.csv", {"k": 2, "n_questions": 2, "n_texts": 6}
    experiment, change = sys.modules["conceptlab.experiments.layers"], []

    def counted(*arguments):
        change.append(arguments[1])
        if len(change) == 3:
            raise KeyboardInterrupt
        return ablation_edit(*arguments)

    monkeypatch.setattr(experiment, "ablation_edit", counted)
    with pytest.raises(KeyboardInterrupt):
        layers(lm, path, ["japan"], **sizes)
    assert not path.exists() and len(read_table(path)) == 6
    assert layers(lm, path, ["japan"], **sizes) == path and len(change) == 5
    assert "layers: 4 of 4 cells" in capsys.readouterr().out
    rows = read_table(path)
    assert {(r["method"], r["budget"]) for r in rows} == {(m, str(i)) for m in ("contrast", "random") for i in (0, 1)}
    assert {r["metric"] for r in rows} == {"target", "neighbour", "general"}
    layers(lm, path, ["golf"], **sizes)  # another concept is added to the finished table
    assert len(change) == 9 and {r["concept"] for r in read_table(path)} == {"japan", "golf"}
    with torch.no_grad():
        lm.parameters()[lm.down_proj_name(1)].add_(1)
    with pytest.raises(ConceptLabError, match=r"layers_tiny.csv is a finished table .* \(fingerprint\)"):
        layers(lm, path, ["japan"], **sizes)
    layers(lm, path, ["japan"], **sizes, replace=True)
    assert {r["concept"] for r in read_table(path)} == {"japan"}
    directions = contrast_directions(lm, load_concept("japan"), 2, n_texts=6)
    for Q in (*directions["contrast"], *directions["random"]):
        assert torch.allclose(Q.T @ Q, torch.eye(2), atol=1e-5)
