"""Texts of random words."""

import torch

WORDS = "the cat sat on a mat and looked at red moon while old men sang of rivers stones and bread in rain".split()


def sentences(n, seed):
    g = torch.Generator().manual_seed(seed)
    return [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (40,), generator=g)) for _ in range(n)]
