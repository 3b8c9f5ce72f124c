"""Scorecards made of given numbers."""

import torch

from conceptlab.evaluation import Fluency, QuestionScores, Scorecard


def scores(correct):
    """Four options each; a right answer scores -1 against -2, a wrong one -3 against -2."""
    table = torch.full((len(correct), 4), -2.0)
    table[:, 0] = torch.tensor([-1.0 if c else -3.0 for c in correct])
    return QuestionScores(table, torch.zeros(len(correct), dtype=torch.long))


def card(target, neighbour, general, nll=None):
    text = None if nll is None else Fluency(torch.tensor(nll), torch.full((len(nll),), 10.0))
    sets = {"target": scores(target), "neighbour": scores(neighbour), "general": scores(general)}
    return Scorecard("golf", "dev", sets, text)


def right(n, of=20):
    return [True] * n + [False] * (of - n)
