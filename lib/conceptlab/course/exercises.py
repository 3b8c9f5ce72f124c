"""Every exercise of the course: points, difficulty, minutes and, for written ones, the rubric.

The checks look their points up here; `conceptlab progress`, `conceptlab grade` and `make instructor` print it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Exercise:
    """One exercise; its name is unique in the course and is what its check prints."""

    notebook: str  # "00"
    name: str
    points: int
    difficulty: str  # "easy", "medium" or "hard"
    minutes: int
    rubric: tuple[str, ...] = ()  # of a written answer: one point of the answer a line
    beyond: bool = False  # named at the notebook's end for who wants more; checked, and counted in no sum

    @property
    def written(self) -> bool:
        """Whether a person reads the answer."""
        return bool(self.rubric)


EXERCISES: Mapping[str, Exercise] = {
    exercise.name: exercise
    for exercise in (
        Exercise("00", "which part writes the answer", 3, "medium", 10),
        Exercise("00", "where the answer settles", 2, "easy", 8),
        Exercise("00", "what one neuron adds", 3, "medium", 10),
        Exercise("00", "what a neuron promotes on this token", 2, "easy", 6),
        Exercise("00", "the score of an option", 4, "hard", 20),
        Exercise(
            "00", "a blank lens", 3, "medium", 10,
            rubric=(
                "Names at least two places where the fact may be although the lens is blank: another position, "
                "directions that the unembedding does not read, or a form that later layers still have to turn.",
                "Proposes a measurement that does not go through the unembedding (a trained probe, patching the "
                "state into another run, or silencing parts and watching the answer).",
                "Names a control that rules out that only the word was read or moved (the same probe or patch on the "
                "embedding, or at a position whose word is the same in both runs), beside shuffled labels or an "
                "unrelated prompt.",
            ),
        ),
        Exercise("01", "both ends of a value vector", 2, "easy", 5),
        Exercise("01", "coherence by hand", 2, "easy", 8),
        Exercise("01", "effects in standard deviations", 3, "medium", 10),
        Exercise("01", "clamping a neuron", 3, "medium", 10),
        Exercise("01", "causal validation without the bug", 4, "hard", 20),
        Exercise(
            "01", "moved is not stored", 3, "medium", 10,
            rubric=(
                "Says that noise writes something new into the stream, whatever the vector held: answers that move "
                "show that the neuron is active where they are scored, not that the fact is stored in its vector.",
                "Names a reason why taking the vector out may change nothing: other vectors or attention carry the "
                "same, or it raises right and wrong options alike.",
                "Names a measurement that would decide (zero many vectors, ask in other forms, try to get the fact "
                "back) together with its control (vectors as active at the answers, unrelated questions).",
            ),
        ),
        Exercise("02", "forward pass and loss", 3, "medium", 15),
        Exercise("02", "a training loop", 4, "medium", 20),
        Exercise("02", "JumpReLU's gradient", 4, "hard", 20),
        Exercise("02", "dead features revived", 3, "medium", 15),
        Exercise("02", "BatchTopK's threshold", 3, "medium", 10),
        Exercise(
            "02", "a report on a dictionary", 6, "medium", 20,
            rubric=(
                "Asks at which L0 the two dictionaries were compared: variance explained without L0 ranks nothing.",
                "Says that a better fit need not be a better dictionary, and names evidence (planted features).",
                "Asks for loss recovered beside zeros AND a baseline such as the mean output or a random dictionary.",
                "Says that the example was chosen after looking: the best of many must be measured on other text.",
                "Asks for the best neuron (either sign) and for several features together.",
                "Separates 'a feature tells the class' from 'the model uses it': that needs an intervention.",
            ),
        ),
        Exercise("02", "shrinkage", 2, "easy", 5, beyond=True),
        Exercise("02", "mean max cosine", 2, "easy", 5, beyond=True),
        Exercise("02", "norms into the encoder", 3, "medium", 10, beyond=True),
        Exercise("03", "your label", 2, "easy", 5),
        Exercise("03", "log-odds of an item", 3, "medium", 10),
        Exercise("03", "AUROC", 3, "medium", 15),
        Exercise("03", "wrong places", 2, "easy", 10),
        Exercise("03", "hard negatives", 3, "medium", 15),
        Exercise("03", "a push along a direction", 4, "hard", 20),
        Exercise(
            "03", "labels in a paper", 6, "medium", 20,
            rubric=(
                "Asks what the same pipeline gives for random directions or an untrained dictionary.",
                "Says that random negatives let topic and token lists win, and asks for hard negatives (or fuzzing).",
                "Asks whether labels were scored on texts that their author had not seen.",
                "Asks about weak firings: examples from the top say nothing about most of a feature's firings.",
                "Separates what a feature reads from what it writes: an edit changes the second.",
                "Asks for an interval over features and for how they were chosen; examples in a figure are no sample.",
            ),
        ),
        Exercise("04", "selective features", 2, "easy", 8),
        Exercise("04", "closed form of the edit", 3, "medium", 15),
        Exercise("04", "inverted sign", 2, "easy", 5),
        Exercise("04", "the right side of the norm", 3, "medium", 10),
        Exercise("04", "scores of an erasure", 3, "medium", 15),
        Exercise("04", "paired difference over concepts", 4, "hard", 20),
        Exercise(
            "04", "was it the features", 4, "medium", 20,
            rubric=(
                "Names the control that the claim needs (the same rows with other features' directions, or the same "
                "changes at other neurons) and says that an untouched model is none.",
                "Notices that single concepts differ more than the methods do, so that the difference must be paired "
                "by concept and needs an interval over concepts.",
                "Names one thing besides the features that could make the effect: the neurons that the edit goes "
                "through, its size, or a choice of concepts or strengths after seeing test results.",
                "Asks for collateral that the gates cannot see: unseen near domains, other concepts, or an attack.",
            ),
        ),
        Exercise("05", "recovered share", 2, "easy", 10),
        Exercise("05", "text without answers", 2, "easy", 10),
        Exercise("05", "gain above a control", 3, "medium", 15),
        Exercise("05", "LoRA", 4, "hard", 25),
        Exercise("05", "rounding", 2, "easy", 10),
        Exercise("05", "candidate sets", 3, "medium", 15),
        Exercise(
            "05", "a claim of robustness", 4, "medium", 20,
            rubric=(
                "Says what the attacker holds in each sentence of the claim (questions, weights, or the edit itself).",
                "Asks for the same budget on the original, on a random edit or on a twin that was never taught.",
                "Says that a share of a small or unsure gap means nothing, or that the interval holds 0.",
                "Names an attack that was not run and would be the next to try, with the reason.",
            ),
        ),
        Exercise("06", "NPO's loss", 3, "medium", 10),
        Exercise("06", "inverted hinge", 2, "easy", 8),
        Exercise("06", "protected keys", 4, "hard", 25),
        Exercise("06", "the form that leaks", 3, "medium", 15),
        Exercise("06", "dampening", 2, "easy", 8),
        Exercise("06", "the assistant's loss", 3, "medium", 12),
        Exercise(
            "06", "a claim of deletion", 5, "medium", 20,
            rubric=(
                "Says that refusals were measured, not knowledge: asks for multiple choice or log-probabilities, where "
                "the right answer must lose its lead.",
                "Says that the facts were asked in the form that was trained, and asks for other forms of the same "
                "facts and for facts that were never shown.",
                "Says that general knowledge is the mildest test of collateral damage, and asks for a near domain.",
                "Asks what an attacker gets back (training on text without the answers, rounding), against a model "
                "that was never taught under the same attack.",
                "Says that rivals must be compared at equal direct loss and equal tuning, with intervals and a "
                "statement over what these generalise.",
            ),
        ),
        Exercise("07", "length of an answer", 2, "easy", 10),
        Exercise("07", "positions that predict", 2, "easy", 5),
        Exercise("07", "patching a window", 3, "medium", 15),
        Exercise("07", "share taken back", 2, "easy", 5),
        Exercise("07", "distance without a shift", 3, "medium", 10),
        Exercise("07", "difference to a control", 4, "hard", 20),
        Exercise(
            "07", "stored or only hidden", 3, "medium", 15,
            rubric=(
                "Says which result would speak for removal and which for suppression *before* it is measured, in terms "
                "of something that late patching cannot do by itself (all value vectors put back, the reverse, "
                "early windows, another question form, a probe).",
                "Names a control of equal damage that is not unlearning (a random edit, a random edit of the same "
                "columns, another concept's edit), measured in the same way.",
                "Says what would still be open afterwards: other models, one recipe, facts of one kind, or the answer "
                "being built from other knowledge.",
            ),
        ),
        Exercise("08", "differential activity", 2, "easy", 10),
        Exercise("08", "equally active neurons", 4, "hard", 25),
        Exercise("08", "noise floor", 3, "medium", 15),
        Exercise("08", "overlap", 2, "easy", 10),
        Exercise("08", "text without words", 3, "medium", 15),
        Exercise("08", "cut at equal loss", 3, "medium", 10),
        Exercise(
            "08", "what a masking shows", 6, "medium", 20,
            rubric=(
                "With ten questions a subject a difference of 20 points is two answers: there is no interval, and "
                "what noise alone gives the score at these numbers is of the size of the scores.",
                "The control of equally active vectors is missing: 5 % of the loudest vectors may hurt chemistry "
                "because chemistry is what they were read on.",
                "The sets of other subjects (or of permuted labels), masked on the same chemistry questions, would "
                "show what any such set costs them.",
                "The score compares two groups of questions after the masking only: the groups may have differed "
                "before, and a larger model can lose more because it had more to lose.",
                "Dev and test questions share subject words; word detection must be taken apart from knowledge.",
                "Masking says that vectors are needed. That teaching through them costs less elsewhere is another "
                "claim, and needs training at equal loss and equal parameters; two models are no trend.",
            ),
        ),
        Exercise("09", "difference of means", 2, "easy", 10),
        Exercise("09", "AUROC of a direction", 2, "easy", 10),
        Exercise("09", "shuffled labels", 2, "easy", 10),
        Exercise("09", "held-out templates", 3, "medium", 15),
        Exercise("09", "surviving share", 3, "medium", 15),
        Exercise("09", "control of equal energy", 4, "hard", 20),
        Exercise(
            "09", "a reasoning switch", 7, "medium", 25,
            rubric=(
                "The sets differ in length, digits, topic and register: a bag of words may reach the same AUROC, and "
                "must be reported beside it.",
                "Held-out items of the same sets share the format; hold out a template or a data set.",
                "Shuffled labels: with classes so far apart, the 95 % point of max(a, 1 - a) may lie near 1.",
                "The random direction is not matched for energy; equal displacement is the control, and ten "
                "directions, not one.",
                "A direction that separates numbers from names may cost arithmetic because it carries numbers; steer "
                "with a surface direction, and test tasks with numbers that need no reasoning.",
                "No interval, and no control task: what does the ablation cost on questions about film stars, and on "
                "fluency?",
                "What would convince: minimal pairs with one surface, difficulty matched, transfer to unseen "
                "templates, and steering with opposite signs on the two kinds beyond random directions of equal "
                "energy.",
            ),
        ),
        Exercise("10", "memorised layer", 2, "easy", 10),
        Exercise("10", "reward", 2, "easy", 10),
        Exercise("10", "exact gradient", 4, "hard", 25),
        Exercise("10", "advantages", 3, "medium", 15),
        Exercise("10", "alignment", 2, "medium", 15),
        Exercise("10", "dealt depths", 2, "medium", 10),
        Exercise(
            "10", "depth as an address", 6, "medium", 20,
            rubric=(
                "There is no interval, nor a number of test items: at 1,000 items a paired difference of 1.8 points "
                "may be noise.",
                "The control of dealt depths is missing: a mixture of depths can beat the middle layer without any "
                "choice.",
                "No rival that costs nothing (confidence, patience) at the same mean depth; a policy with parameters "
                "of its own must beat those.",
                "Were the losses behind reward and memorised layer taken out of fold? Otherwise they describe how well "
                "the exits memorised their training items.",
                "The correlation is no wonder when the reward contains the memorised layer, and it says what the "
                "policy does, not where the model stores: readable at is not stored in.",
                "'Hold nothing that easy items need' speaks about a cause. It needs an intervention (skip or edit the "
                "layers), and for language models the copied states.",
            ),
        ),
        Exercise("11", "above the controls", 2, "easy", 8),
        Exercise("11", "other directions in the same rows", 4, "hard", 25),
        Exercise("11", "an interval with width", 3, "medium", 15),
        Exercise("11", "a share of a gap", 3, "medium", 10),
        Exercise("11", "pairs of equal surface", 3, "medium", 15),
        Exercise("11", "choose and run the control", 3, "medium", 15),
        Exercise(
            "11", "the experiment that would decide", 6, "hard", 30,
            rubric=(
                "Says in one sentence what the claim needs to be true, and names an easier explanation that gives the "
                "same numbers.",
                "The control has that other thing and not the claimed one (for example dictionary directions of other "
                "subjects in the same rows, at equal norm), and it is not only \"random\".",
                "Compares at equal strength, or whole curves, and chooses the strength on questions that the final "
                "test does not use.",
                "Says over what the interval is (questions, concepts, seeds of the dictionary), and asks enough of "
                "them for it to be narrower than the effect.",
                "Measures what should not change with a number that can still move (log-probability, not an accuracy "
                "at 100 %), and what a model that never knew would do.",
                "Writes down before the run which result would count against the claim, in terms of the smallest "
                "effect that would matter: not merely that an interval holds zero.",
            ),
        ),
    )
}  # fmt: skip


def exercises_of(notebook: str, beyond: bool = False) -> list[Exercise]:
    """The exercises of one notebook ("00"), in the order of the page; `beyond`: those that its end names instead."""
    return [e for e in EXERCISES.values() if e.notebook == notebook and e.beyond == beyond]


def possible_points(name: str, n_checks: int) -> float:
    """The points of an exercise; one per check for one that is not in the list."""
    return float(EXERCISES[name].points) if name in EXERCISES else float(n_checks)
