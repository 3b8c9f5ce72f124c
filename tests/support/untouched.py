"""For tests of what changes a model: its weights before, and that nothing is left of the change afterwards."""

import torch

TEXTS = ["Helium is a noble gas, lighter than air.", "Copper is a red metal.", "Tin melts at a low temperature."]


def weights(lm):
    return {name: p.detach().clone() for name, p in lm.hf.named_parameters()}


def assert_untouched(lm, before):
    now = dict(lm.hf.named_parameters())
    assert all(torch.equal(now[name], old) for name, old in before.items())
    assert not any(p.requires_grad or p.grad is not None for p in now.values())
