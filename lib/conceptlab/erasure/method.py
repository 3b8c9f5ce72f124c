"""What a method of erasure is, the registry of all methods, and how the strength of any of them is chosen.

A method is one file: its equation and source on top, a frozen configuration, and `fit(lm, concept, config, shared)`,
which returns an intervention for the model. What several methods need (dictionaries, evidence, texts to forget and to
keep, the judge) comes from `shared` (`shared.py`), computed once on the original weights. No method looks at dev
questions to set its own strength: `choose` does that from outside, in the same way for all, with as many settings to
try for each. Controls and combinations are methods too.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from ..core import ConceptLabError, cache_dir
from ..data import Concept
from ..edits import Intervention, WeightEdit
from ..evaluation import closest, score_questions, search_settings
from ..models import LanguageModel, fingerprint

if TYPE_CHECKING:
    from .shared import Shared

Axes = dict[str, Sequence[float | int]]  # knob -> values from weak to strong
SETTINGS = 12  # that are tried for every method that has a knob (settings ruled out by a tried one count as tried)
GROUP = "conceptlab.methods"  # entry points through which another package adds methods
KINDS = ("dictionary", "words", "vectors", "fine-tuning", "localised", "run-time", "combination", "control")


@dataclass(frozen=True)
class Method:
    """One way to erase a concept."""

    name: str  # lower case; combinations are joined with "+"
    kind: str  # one of KINDS
    source: str  # paper, section, equation; or "ours"
    config: Any  # a frozen dataclass, at a usable strength
    fit: Callable[[LanguageModel, Concept, Any, Shared], Intervention]
    knobs: Mapping[str, Sequence[float | int]] = field(default_factory=dict)  # field of config -> weak to strong
    needs: tuple[str, ...] = ()  # parts of `Shared`, or methods whose chosen edit it starts from
    cost: str = ""  # of one fit, in words
    axes: Callable[[Axes, Shared], Axes] | None = None  # the knobs as this concept and model allow them
    match: str | None = None  # take as much of the target as this method does, instead of the best objective

    def __post_init__(self) -> None:
        if not is_dataclass(self.config) or isinstance(self.config, type):
            raise ConceptLabError(f"The config of {self.name} must be an instance of a frozen dataclass.")
        if self.kind not in KINDS:
            raise ConceptLabError(f"Unknown kind {self.kind!r} of {self.name}; choose one of {', '.join(KINDS)}.")
        if unknown := [knob for knob in self.knobs if not hasattr(self.config, knob)]:
            raise ConceptLabError(f"{self.name} has a knob {unknown[0]!r} that its config does not have.")

    def at(self, setting: Mapping[str, float | int]) -> Any:
        """The configuration at a setting, its numbers in the types that the fields have."""
        typed = {knob: type(getattr(self.config, knob))(value) for knob, value in setting.items()}
        return replace(self.config, **typed)


@dataclass(frozen=True)
class Fitted:
    """An intervention at the strength chosen on dev."""

    method: str
    config: Any
    intervention: Intervention
    setting: dict[str, float]  # what was chosen; empty: the method has no knob
    passed: bool = True  # the gates of the dev search
    tried: int = 0  # settings of the grid

    @property
    def edit(self) -> WeightEdit:
        """The intervention, for what starts from an edit of weights. Raises ConceptLabError where it is none."""
        if not isinstance(self.intervention, WeightEdit):
            raise ConceptLabError(f"{self.method} works at run time and leaves no edit of weights to start from.")
        return self.intervention


# ---- registry ---------------------------------------------------------------------------------------------
_METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Add a method; raises ConceptLabError where another one has its name."""
    if methods().get(method.name, method) is not method:
        raise ConceptLabError(f"There is a method {method.name!r} already; give yours another name.")
    return _METHODS.setdefault(method.name, method)


def methods() -> dict[str, Method]:
    """Every method by name: those of the library, then those that other packages bring by an entry point."""
    if not _METHODS:
        from .registry import METHODS  # which imports every method, and those import this module

        for method in [*METHODS, *(entry.load() for entry in entry_points(group=GROUP))]:
            if _METHODS.setdefault(method.name, method) is not method:
                raise ConceptLabError(f"Two methods are named {method.name!r}; one of the two packages must rename it.")
    return dict(_METHODS)


def get_method(name: str) -> Method:
    """One method; raises ConceptLabError with the names nearest to a wrong one."""
    known = methods()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or list(known)[:3]
        raise ConceptLabError(
            f"Unknown method {name!r}; nearest are {', '.join(near)}. `conceptlab methods` lists all {len(known)}."
        )
    return known[name]


def needs_dictionaries(name: str) -> bool:
    """Whether a method, or one that it starts from, edits features of dictionaries."""
    return any(
        need in ("dictionaries", "features") or (need in methods() and needs_dictionaries(need))
        for need in get_method(name).needs
    )


# ---- strength ---------------------------------------------------------------------------------------------
def choose(method: Method | str, lm: LanguageModel, concept: Concept, shared: Shared) -> Fitted:
    """Fit a method at the strength that is best on dev questions.

    All methods are judged by `shared.judge` on the same questions and texts, with the same gates; finished cells are
    kept in the cache, keyed by the weights, the concept, the settings and the strongest edit itself. Raises
    NotPossible where the method cannot be applied to this concept, ConceptLabError for everything else.
    """
    method = get_method(method) if isinstance(method, str) else method
    shared.check(lm, concept)
    axes = grid(method, shared)

    def make(**setting: float | int) -> Intervention:
        return method.fit(lm, concept, method.at(setting), shared)

    if not axes:
        return Fitted(method.name, method.config, make(), {})
    if method.match is not None:
        return _matched(method, lm, axes, make, shared)
    strongest = make(**{knob: float(values[-1]) for knob, values in axes.items()})
    path = cache_dir() / "search" / f"{_key(method, axes, strongest, lm, concept, shared)}.json"
    found = search_settings(lm, concept, axes, make, shared.cfg.search, path, judge=shared.judge)
    best = found.best
    tried = math.prod(len(values) for values in axes.values())
    config = method.at(best.setting)
    return Fitted(method.name, config, make(**best.setting), best.setting, best.passed, tried)


def grid(method: Method, shared: Shared) -> Axes:
    """The knobs of a method for one concept: its own, or those of `shared.cfg.grids`, cut to what there is."""
    axes: Axes = {knob: tuple(values) for knob, values in dict(shared.cfg.grids).get(method.name, method.knobs).items()}
    return axes if method.axes is None or not axes else method.axes(axes, shared)


def _matched(
    method: Method, lm: LanguageModel, axes: Axes, make: Callable[..., Intervention], shared: Shared
) -> Fitted:
    """The setting of one knob whose loss on known dev questions comes closest to that of the method it follows."""
    (knob, values), wanted = next(iter(axes.items())), shared.lost(shared.chosen(str(method.match)).intervention)
    settings: list[float | int] = []

    def edits() -> Iterable[Intervention]:
        for value in values:
            settings.append(value)
            yield make(**{knob: value})

    edit, place = closest(shared.lost, edits(), wanted, rising=True)
    setting = {knob: float(settings[place])}
    return Fitted(method.name, method.at(setting), edit, setting, tried=len(values))


def _key(
    method: Method, axes: Axes, strongest: Intervention, lm: LanguageModel, concept: Concept, shared: Shared
) -> str:
    """What the cells of a search depend on."""
    near = concept.neighbour
    questions = [q.id + q.q + "|".join(q.options) for c in (concept, near) if c is not None for q in c.dev]
    about = [
        lm.fingerprint(), method.name, axes, asdict(method.config), _content(strongest), asdict(shared.cfg.search),
        questions, shared.seed,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _content(intervention: Intervention) -> str:
    """What an intervention is: of an edit the numbers themselves, of others what they print."""
    if not isinstance(intervention, WeightEdit):
        return repr(intervention)
    parts = {f"{name} {part}": x for name, c in intervention.changes.items() for part, x in vars(c).items()}
    return fingerprint(parts)


def lost_on_dev(lm: LanguageModel, shared: Shared, edit: Intervention) -> float:
    """Nats of margin that known dev questions on the concept lose under an intervention."""
    with edit.applied(lm):
        now = score_questions(lm, shared.judge.questions["target"])
    before = shared.judge.base.scores["target"].margin[: len(now.margin)]  # behind them are those asked by a clue
    return float((before - now.margin).mean())
