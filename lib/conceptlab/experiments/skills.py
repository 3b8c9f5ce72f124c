"""A skill forgotten by random labels: how far does the forgetting reach, and do the states still hold the skill?

In miniature what *Unforgettable Generalization in Language Models* asks (Zhang, Choshen and Andreas 2024, arXiv
2409.02228). The `original` is the model after one light tuning on the true labels of all tasks, for a small model
cannot do them untold. For every task it is then trained on the same items with `random` labels (as many draws as
`random_draws`), and in two controls with equally many steps: with their `true` labels, and with the random labels of
`salad`, words drawn at random in place of the texts.

Cells: task x arm x task that is asked ("": its own) x draw. Those of the budget "all" are means over the draws, from
the records of the items: losses against the original and against the `true` arm, and the forget gap.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Cell, ConceptLabError, Interval, Store, bootstrap, say, table_path
from ..data import vital_articles
from ..dissection import (
    SKILL_PROMPT,
    Answered,
    Items,
    Skill,
    answered,
    by_group,
    dealt_labels,
    label_rows,
    tuned,
    word_salad,
)
from ..early_exit import (
    TEMPLATES,
    States,
    Task,
    fit_exits,
    fit_heads,
    letter_features,
    load_task,
    read_exits,
    text_states,
)
from ..erasure import TuningConfig
from ..models import LanguageModel
from .skill_losses import pool_draws, share_right

# task -> the words that answer it; None: the first word of each class' name
WORDS: dict[str, tuple[str, ...] | None] = {
    "agreement": None, "sentiment": ("bad", "good"), "sense": None, "verb": None, "two_hops": None, "topic": None,
    "entailment": ("no", "yes"),
}  # fmt: skip
SKILLS = ("agreement", "sentiment", "verb", "two_hops", "topic")  # a tuned SmolLM2-135M can do these
ARMS = ("random", "true", "salad")
Metrics = dict[str, Interval]
Record = dict[str, list]  # per item: right (0 or 1), margin, and the same of the probe


@dataclass(frozen=True)
class SkillsConfig:
    """How many items, how long is trained, how often is dealt."""

    n_taught: int = 64  # items of every task that make the original
    n_trained: int = 60  # items that the forgetting trains on
    n_probed: int = 100  # items that probes are fitted on, and nothing else is
    n_heldout: int = 60  # items that nothing is trained or fitted on
    n_others: int = 40  # of these, asked after another task was forgotten
    random_draws: int = 2  # of the random labels
    shuffles: int = 5  # of the labels of the probe's control
    probe_every: int = 3  # layers between two probes
    tuning: TuningConfig = field(
        default_factory=lambda: TuningConfig(steps=32, batch_size=24, n_ctx=64, lr=3e-4, weights="down_proj")
    )
    forgetting: TuningConfig = field(
        default_factory=lambda: TuningConfig(steps=15, batch_size=20, n_ctx=64, lr=3e-4, weights="down_proj")
    )

    def draws(self, arm: str) -> range:
        return range(self.random_draws if arm == "random" else 1)


def skills(
    lm: LanguageModel,
    path: Path | None = None,
    methods: Sequence[str] = ARMS,
    tasks: Sequence[str] = SKILLS,
    config: SkillsConfig | None = None,
    seed: int = 0,
    replace: bool = False,
) -> Path:
    """Forget every task in turn, in each of the arms `methods`.

    The table is written to `path` (default: its place in data/results), see `Store` for interruptions and `replace`.
    The tasks are part of what the original is tuned on, so a table goes on with more arms, not with more tasks. `seed`:
    choice of items, draws of labels. Raises ConceptLabError for an unknown arm or task.
    """
    config = config or SkillsConfig()
    for kind, names, known in (("arm", methods, ARMS), ("task", tasks, tuple(WORDS))):
        if unknown := [name for name in names if name not in known]:
            raise ConceptLabError(f"skills has no {kind} {unknown[0]!r}; there are {', '.join(known)}.")
    with Store(
        path or table_path("skills", lm.name), experiment="skills", model=lm.name, fingerprint=lm.fingerprint(),
        settings=asdict(config) | {"tasks": list(tasks)}, seed=seed, device=str(lm.device), replace=replace,
    ) as store:  # fmt: skip
        plan = [Cell(t, arm, "", k) for arm in methods for k in config.draws(arm) for t in tasks]
        store.progress([*(Cell(t, "original") for t in tasks), *plan])
        loaded = {t: load_skill(t, config, seed) for t in tasks}
        if any(map(store.missing, plan)):
            _Bench(lm, store, config, loaded).run(plan)
        for arm in methods:
            for task in tasks:
                pool_draws(store, loaded, task, arm, config.draws, config.n_others)
        return store.finish()


def load_skill(name: str, config: SkillsConfig, seed: int = 0) -> Skill:
    """Taught, trained and probed items from the front of a task's training part, held-out ones from that of its test.

    Raises ConceptLabError where the task has too few.
    """
    task = load_task(name, seed=seed)
    a, b, c = config.n_taught, config.n_taught + config.n_trained, task.n_train
    parts = [(0, a), (a, b), (b, b + config.n_probed), (c, c + config.n_heldout)]
    if b + config.n_probed > c or parts[-1][1] > len(task.texts):
        raise ConceptLabError(f"{name} has {c} items to train on and {len(task.texts) - c} to test; ask for fewer.")
    groups = _groups(task, seed)
    found = [Items(task.texts[i:j], task.labels[i:j], groups[i:j]) for i, j in parts]
    return Skill(name, WORDS[name] or tuple(label.split()[0] for label in task.classes), *found)


def _groups(task: Task, seed: int) -> tuple[int, ...]:
    """The word that an item shares with others, as a number; none for tasks from real text."""
    if task.name not in TEMPLATES:
        return ()
    word = {item.text: item.group for item in TEMPLATES[task.name](random.Random(f"{task.name} {seed}"))}
    names = sorted(set(word.values()))
    return tuple(names.index(word[text]) for text in task.texts)


# ---- one model ------------------------------------------------------------------------------------------------
class _Bench:
    """The original and what is trained from it, one cell after another."""

    def __init__(self, lm: LanguageModel, store: Store, config: SkillsConfig, skills: Mapping[str, Skill]):
        self.lm, self.store, self.config, self.skills = lm, store, config, skills

    def run(self, plan: Sequence[Cell]) -> None:
        rows = [r for s in self.skills.values() for r in label_rows(self.lm, s.taught.texts, s.taught.labels, s.words)]
        with tuned(self.lm, rows, self.config.tuning).applied(self.lm):
            for skill in self.skills.values():
                if self.store.missing(cell := Cell(skill.name, "original")):
                    metrics, record = self._own(skill, None)
                    self.store.add(cell, metrics | self._letters(skill), record)
                    say(f"{skill.name}, original: {metrics['accuracy_heldout']}")
            for cell in filter(self.store.missing, plan):
                self._forget(self.skills[cell.concept], cell.method, int(cell.budget))

    def _forget(self, skill: Skill, arm: str, draw: int) -> None:
        texts, labels = skill.trained.texts, skill.trained.labels
        if arm != "true":
            labels = dealt_labels(labels, len(skill.words), self.store.seed + draw)
        if arm == "salad":
            texts = word_salad(texts, [a.text for a in vital_articles()], self.store.seed)
        edit = tuned(self.lm, label_rows(self.lm, texts, labels, skill.words), self.config.forgetting)
        with edit.applied(self.lm):
            found = {Cell(skill.name, arm, "", draw): self._own(skill, labels)}
            for other in self.skills.values():
                if other is not skill:
                    found[Cell(skill.name, arm, other.name, draw)] = self._other(other)
        self.store.add_all({c: m for c, (m, _) in found.items()}, {c: r for c, (_, r) in found.items()})
        own = found[Cell(skill.name, arm, "", draw)][0]
        say(f"{skill.name}, {arm} {draw}: trained {own['accuracy_trained']}, held out {own['accuracy_heldout']}")

    def _own(self, skill: Skill, given: Sequence[int] | None) -> tuple[Metrics, Record]:
        """What the model answers on its own task, and what a probe reads; `given`: the labels it was trained on."""
        metrics: Metrics = {}
        record: Record = {}
        for part, items in (("trained", skill.trained), ("heldout", skill.heldout)):
            said = answered(self.lm, items, skill.words)
            metrics[f"accuracy_{part}"] = share_right(said.right, items.groups)
            metrics[f"margin_{part}"] = bootstrap(by_group(said.margin, items.groups))
            record |= {f"{k}_{part}": v for k, v in _kept(said).items()}
            if part == "trained" and given is not None:
                metrics["fitted"] = share_right(said.says(given), items.groups)
        probed, read = self._probe(skill)
        return metrics | probed, record | read

    def _other(self, skill: Skill) -> tuple[Metrics, Record]:
        said = answered(self.lm, _first(skill.heldout, self.config.n_others), skill.words)
        groups = skill.heldout.groups[: self.config.n_others]
        return {"accuracy": share_right(said.right, groups), "margin": bootstrap(by_group(said.margin, groups))}, _kept(
            said
        )

    def _probe(self, skill: Skill) -> tuple[Metrics, Record]:
        """A logistic probe per layer on true labels of the probed items, the layer chosen out of fold."""
        texts = [SKILL_PROMPT.format(t) for part in (skill.probed, skill.heldout) for t in part.texts]
        x = text_states(self.lm, texts)[:: self.config.probe_every].float()
        states = _standardised(x, skill)
        folds, test = fit_exits(states)
        layer = int(folds.correct.double().mean(0).argmax())
        right, dealt = test.correct[:, layer], _shuffled(states, layer, self.config.shuffles)
        groups = skill.heldout.groups
        metrics = {
            "probe": share_right(right, groups), "probe_shuffled": bootstrap(by_group(dealt, groups)),
            "probe_layer": _layer(layer * self.config.probe_every),
            "probe_minus_shuffled": bootstrap(by_group(right.double() - dealt, groups)),
        }  # fmt: skip
        return metrics, {"probe": right.int().tolist()}

    def _letters(self, skill: Skill) -> Metrics:
        """The two baselines without a model: letters in place of states, and the most common class."""
        texts = [t for part in (skill.probed, skill.heldout) for t in part.texts]
        states = _standardised(letter_features(texts), skill)
        read = read_exits(fit_heads(states.train, states.y_train, states.n_classes), states.test, states.y_test)
        common = states.y_train.bincount().argmax() == states.y_test
        groups = skill.heldout.groups
        return {"letters": share_right(read.correct[:, 0], groups), "most_common": share_right(common, groups)}


def _standardised(x: Float[Tensor, "layers n d"], skill: Skill) -> States:
    """Probed items to fit on, held-out ones to test; every number standardised over the former."""
    k, y = len(skill.probed), skill.probed.labels
    z = (x - x[:, :k].mean(1, keepdim=True)) / x[:, :k].std(1, keepdim=True).clamp_min(1e-3)
    return States(z[:, :k], z[:, k:], torch.tensor(y), torch.tensor(skill.heldout.labels), len(skill.words))


def _shuffled(states: States, layer: int, n: int) -> Float[Tensor, " n_test"]:
    """The probe's control at its layer: per item the share of probes of shuffled labels that are right."""
    one = States(states.train[[layer]], states.test[[layer]], states.y_train, states.y_test, states.n_classes)
    found = []
    for seed in range(n):
        dealt = one.shuffled_labels(seed)
        read = read_exits(fit_heads(dealt.train, dealt.y_train, dealt.n_classes), dealt.test, dealt.y_test)
        found.append(read.correct[:, 0].double())
    return torch.stack(found).mean(0)


# ---- small things ---------------------------------------------------------------------------------------------
def _kept(said: Answered) -> Record:
    return {"right": said.right.int().tolist(), "margin": [round(x, 4) for x in said.margin.tolist()]}


def _first(items: Items, n: int) -> Items:
    return Items(items.texts[:n], items.labels[:n], items.groups[:n])


def _layer(layer: int) -> Interval:
    return Interval(layer, layer, layer, 1)
