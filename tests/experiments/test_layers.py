"""The sweep over layers on a tiny model."""

import sys

import pytest
import torch

from conceptlab.core import ConceptLabError, read_table
from conceptlab.data import load_concept
from conceptlab.experiments import layers
from conceptlab.experiments.layers import contrast_directions, turned


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


def test_turning_directions_reflects_what_a_layer_writes(lm):
    Q = torch.linalg.qr(torch.randn(lm.d_model, 3, generator=torch.Generator().manual_seed(0)))[0]
    rows = lm.down_proj(1).clone()
    with turned(lm, 1, Q, 2.0).applied(lm):
        after = lm.down_proj(1).clone()
    assert torch.allclose(after @ Q, -(rows @ Q), atol=1e-5)
    rest = torch.eye(lm.d_model) - Q @ Q.T
    assert torch.allclose(after @ rest, rows @ rest, atol=1e-5)
    assert torch.equal(lm.down_proj(1), rows)


def test_the_sweep_fills_every_cell_and_resumes(lm, tmp_path, monkeypatch, capsys):
    path, sizes = tmp_path / "layers_tiny.csv", {"k": 2, "n_questions": 2, "n_texts": 6}
    experiment, change = sys.modules["conceptlab.experiments.layers"], []

    def counted(*arguments):
        change.append(arguments[1])
        if len(change) == 3:
            raise KeyboardInterrupt
        return turned(*arguments)

    monkeypatch.setattr(experiment, "turned", counted)
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
