"""Layers that are replaced for a while."""

import pytest
import torch
from torch import nn

from conceptlab.models import layers_replaced


class Doubled(nn.Module):
    """Twice the layer, or its like once `scale` is 1."""

    def __init__(self, linear, scale=1.0):
        super().__init__()
        self.linear, self.scale = linear, scale

    def forward(self, x):
        return self.scale * self.linear(x)


def test_layers_are_replaced_inside_the_block_and_back_after_an_error(tiny_llama):
    lm = tiny_llama()
    names = [n for n in lm.parameters() if ".mlp." in n]
    ids, _ = lm.tokens(["The capital of Japan"])
    before, layers = lm.logits(ids), [lm.linear(name) for name in names]
    with layers_replaced(lm, names, lambda linear: Doubled(linear)) as adapters:
        assert len(adapters) == len(names) and all(isinstance(a, Doubled) for a in adapters)
        assert torch.equal(lm.logits(ids), before), "the same function"
        adapters[0].scale = 2.0
        assert not torch.equal(lm.logits(ids), before)
    with pytest.raises(ZeroDivisionError), layers_replaced(lm, names, lambda linear: Doubled(linear)):
        raise ZeroDivisionError
    assert [lm.linear(name) for name in names] == layers and torch.equal(lm.logits(ids), before)
