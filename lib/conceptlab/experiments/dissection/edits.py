"""The edits that are dissected, and the random ones that they are compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...core import NotPossible, contents, table_path
from ...data import Concept
from ...dissection import Dissection, at_damage
from ...edits import WeightEdit, applied, random_direction_edit, random_like
from ...erasure import Shared, get_method
from ...evaluation import gold_logprobs
from ...models import LanguageModel
from .bench import Bench

# name -> steps and learning rate (a tenth of it for Gemma); all weights of all blocks are trained
RECIPES: dict[str, tuple[int, float]] = {
    "gradient_difference": (8, 1e-4),
    "npo": (4, 2e-4),
    "dpo": (4, 5e-5),
}
LEAST = 0.3  # nats per token; a recipe that does less is scaled up to it
CONTROLS = {  # edit -> the random edit of equal damage that it is compared with
    "gradient_difference": "random_damage",
    "npo": "random_damage",
    "dpo": "random_damage",
    "pisces": "pisces_random",
}
OWN_CONTROLS = {"gradient_difference": "random_own"}  # brought to the same raw distance on the original's own answers
EDITS = ("gradient_difference", "random_norm", "random_damage", "random_own", "npo", "dpo", "pisces", "pisces_random")


def live_recipe(lm: LanguageModel, concept: Concept, shared: Shared, name: str = "gradient_difference") -> WeightEdit:
    """A registered method of fine-tuning with this experiment's recipe: few steps on all weights of all blocks."""
    method, (steps, lr) = get_method(name), RECIPES[name]
    tuning = replace(method.config.tuning, steps=steps, lr=lr, weights="block")
    edit = method.fit(lm, concept, replace(method.config, tuning=tuning), shared)
    assert isinstance(edit, WeightEdit)
    return edit


class Edits:
    """The edits of one concept; each is made when it is needed, and the latest is kept."""

    def __init__(self, bench: Bench):
        self.bench = bench
        self._kept: dict[str, WeightEdit] = {}

    def get(self, name: str) -> WeightEdit:
        """The edit. Raises NotPossible where it cannot be made."""
        if name not in self._kept:
            made = self._make(name)
            for old in [n for n in self._kept if n != "gradient_difference"]:
                del self._kept[old]  # one weighs as much as the model
            self._kept[name] = made
        return self._kept[name]

    def _make(self, name: str) -> WeightEdit:
        bench = self.bench
        if name == "gradient_difference":
            trained = live_recipe(bench.lm, bench.concept, bench.shared)
            return trained if self.damage(trained) >= LEAST else at_damage(trained, self.damage, LEAST)
        if name == "pisces":
            return recorded_edit(bench.lm, bench.concept, bench.shared)
        if name == "pisces_random":
            pisces = self.get("pisces")
            return at_damage(random_direction_edit(pisces, bench.store.seed), self.damage, self.damage(pisces))
        reference = self.get("gradient_difference")
        if name.startswith("random"):
            noise = random_like(reference, bench.store.seed)
            if name == "random_norm":
                return noise
            damage = self.own_damage if name == "random_own" else self.damage
            return at_damage(noise, damage, damage(reference), tol=0.05)
        trained = live_recipe(bench.lm, bench.concept, bench.shared, name)
        return at_damage(trained, self.damage, self.damage(reference), tol=0.05)

    def damage(self, edit: WeightEdit | None) -> float:
        """Nats per token that the dissected right answers lose."""
        bench = self.bench
        n = bench.config.n_questions
        with applied(edit, bench.lm):
            now = gold_logprobs(bench.lm, bench.known.questions[:n])
        return float((bench.known.scores.gold[:n] - now).mean())

    def own_damage(self, edit: WeightEdit) -> float:
        """Raw distance from the original's logits, on its own answers: what the published score divides by."""
        bench = self.bench
        found = Dissection(bench.lm, edit, bench.forced["own"], bench.traces["own"])
        return float(found.lost.mse.mean())


def recorded_edit(lm: LanguageModel, concept: Concept, shared: Shared, method: str = "pisces") -> WeightEdit:
    """The edit of the lab's table: the file that is kept, or fitted anew at the setting that was chosen on dev.

    Raises NotPossible where the table has none of this method and concept.
    """
    path = table_path("lab", lm.name)
    file = Path(path.with_suffix("")) / f"{concept.name}_{method}.safetensors"
    if file.exists():
        return WeightEdit.load(file)
    records = contents(path).records if path.exists() else {}
    found = [r for key, r in records.items() if key[:3] == (concept.name, method, "fit") and "setting" in r]
    if not found:
        raise NotPossible(f"The lab's table has no setting of {method} for {concept.name} and {lm.name}.")
    known = get_method(method)
    edit = known.fit(lm, concept, known.at(found[0]["setting"]), shared)
    assert isinstance(edit, WeightEdit)
    return edit
