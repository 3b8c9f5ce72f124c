"""The course's decision table: one row per method, which the notebook that measures it closes with.

The site and the closing notebook print the whole of it; a notebook prints its own rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from .tables import Grid


@dataclass(frozen=True)
class Decision:
    """What a reader needs to know before choosing a method."""

    notebook: str  # "00", where it is measured
    method: str
    question: str  # that it answers
    cost: str  # with the bundled models on two CPU cores
    control: str  # to demand from anyone who reports it
    failure: str  # known, and seen in the course where possible
    verdict: str  # here, in one sentence


DECISIONS = (
    Decision(
        "00", "logit lens", "At which layer can a fact be read with the model's own output?",
        "one forward pass", "the answer of another prompt of the same kind",
        "blank in early layers although the fact may be there in another form",
        "reads facts late; a blank lens proves nothing",
    ),
    Decision(
        "00", "direct effects", "Which layer writes the answer into the stream?",
        "one forward pass", "the answer of another prompt, the same pieces",
        "counts only what goes straight to the output, not what other layers do with it",
        "exact as a sum; says who writes, not who knows",
    ),
    Decision(
        "00", "scoring by log-probability", "Does a small model know the answer?",
        "one pass per option", "the same options without the question",
        "likely words win where the options differ in frequency",
        "needed for models of this size; generation alone measures form",
    ),
    Decision(
        "01", "vocabulary projection", "Which tokens does a single vector promote?",
        "minutes for all vectors", "random vectors, and random ones with the same covariance",
        "blind to names of several tokens and to what other layers do with the vector",
        "few vectors are coherent; those that are can be searched by words",
    ),
    Decision(
        "01", "noise on a concept vector", "Do answers about a concept pass through this vector?",
        "a pass per question and vector", "equally active neurons, same questions",
        "noise writes something new; zeroing the same vector may change nothing",
        "specific in one model, no clear exception in the other",
    ),
    Decision(
        "02", "sparse autoencoder", "Which directions add up to what a layer writes?",
        "seconds (small) to hours (shipped)", "random directions, neurons, PCA; recall on planted features",
        "a better fit may recover fewer true features; classes are split or absorbed",
        "finds planted features; as a single detector a neuron is often better",
    ),
    Decision(
        "03", "label scored by detection", "Does a description say where a feature fires?",
        "seconds per feature", "random directions with labels of their own, and hard negatives",
        "lists of tokens score well for almost any direction",
        "features earn a margin over random directions; hard negatives take most of it",
    ),
    Decision(
        "04", "PISCES", "Can a concept be written out of the MLP weights without training?",
        "seconds per edit, minutes for the search",
        "the same rows along other features' directions; the same changes at other neurons",
        "drowns rather than removes; facts asked by a clue survive; one feature's name says little about its edit",
        "erases nearly half at high specificity; that the features' directions matter is shown in one of two models",
    ),
    Decision(
        "04", "editing the words' embeddings", "Can a model be kept from reading or writing a concept's names?",
        "seconds", "as many other words of the same frequency, on the same side",
        "what is asked without the names is untouched; tied embeddings are edited on both sides",
        "more specific than PISCES at like efficacy, and best together with it",
    ),
    Decision(
        "05", "relearning on T, test on V", "Is erased knowledge still in the weights?",
        "seconds per ten steps", "unrelated text, a random edit and a never-taught twin at the same budget",
        "teaches or repairs what it is said to recover; leaks of tested answers",
        "brings more back than unrelated text does, not surely more than a random edit gets back",
    ),
    Decision(
        "05", "prompts and rounding", "Does the erasure survive other words, other languages, other bits?",
        "a pass per question and prompt", "the original under the same prompt or rounding",
        "a prompt that the original fails is no test",
        "little comes back after PISCES; clues and other forms find more than any attack prompt",
    ),
    Decision(
        "05", "reading inside", "Is the answer still readable in the states?",
        "one pass per question", "another question's answer, probes of random labels, unedited layers",
        "finds any plausible word once the candidates are many; reads nothing where the original is unreadable",
        "part of the concept stays readable: by a probe, and among the candidates of the lens",
    ),
    Decision(
        "08", "differential activity, masking", "Which vectors are busy on a concept, and does it depend on them?",
        "a pass per list of questions and per set", "equally active vectors of the same layers; permuted labels",
        "ranks loud vectors and word detectors, too; hurts what every question needs",
        "costs the concept more than equally active vectors do; the rest suffers as well",
    ),
    Decision(
        "08", "specialisation score (PSS)", "How differently do the concept and the rest suffer?",
        "two accuracies", "the noise floor at the same numbers of questions; the margin version",
        "an absolute value and few questions make noise positive",
        "a third of it is noise over sixteen concepts; for one concept it says nothing",
    ),
)  # fmt: skip

DECISION_COLUMNS = ("method", "question it answers", "cost", "control to demand", "known failure", "verdict here")


def decision_table(notebook: str | None = None) -> Grid:
    """The rows of one notebook ("00"), or all of them."""
    chosen = [d for d in DECISIONS if notebook in (None, d.notebook)]
    rows = [(d.method, d.question, d.cost, d.control, d.failure, d.verdict) for d in chosen]
    return Grid(rows, DECISION_COLUMNS, "" if notebook is None else "Rows for the course's decision table")
