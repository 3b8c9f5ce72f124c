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
        "needed for models of this size; a written answer measures form and recall, too",
    ),
    Decision(
        "01", "vocabulary projection", "Which tokens does a single vector promote?",
        "minutes for all vectors", "random vectors, and random ones with the same covariance",
        "blind to names of several tokens and to what other layers do with the vector",
        "few vectors are coherent; those that are can be searched by words",
    ),
    Decision(
        "01", "clamping a neuron", "Does the neuron write what its list says?",
        "a pass per value", "random neurons at the same values; the activations that text reaches",
        "large effects at values that no text reaches",
        "writes its list; at natural values the effect is small",
    ),
    Decision(
        "01", "noise on a concept vector", "Is this neuron active where answers about a concept are scored?",
        "a pass per question and vector", "neurons as active at the answers; edits of the same length",
        "the noise is the same whatever the vector holds, so it says nothing about what is written",
        "says when a neuron is active, not what it holds; taking the vectors out lowered no margin",
    ),
    Decision(
        "02", "sparse autoencoder", "Which directions add up to what a layer writes?",
        "seconds (live) to minutes per layer (shipped)",
        "neurons, PCA, refitted directions; recall on planted features; a random dictionary in the model's loss",
        "a better fit may recover fewer true features; features split and absorb each other; many die in training",
        "rebuilds a layer better than its rivals; a random dictionary already recovers much of the loss",
    ),
    Decision(
        "02", "best single feature as a detector", "Is there one unit for this class?",
        "one pass over labelled text", "best neuron of either sign, best random direction, chosen on other texts",
        "silent on most members of a broad class; without its threshold the same feature detects better",
        "no better than the best neuron; sixteen lose to sixteen neurons and do no better than random directions",
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
        "drowns rather than removes; can hit a near subject that no choice looked at; facts asked by a clue survive",
        "erases nearly half and mostly spares what is near; which rows matters, which directions less surely",
    ),
    Decision(
        "04", "editing the words' embeddings", "Can a model be kept from reading or writing a concept's names?",
        "seconds", "as many other words of the same frequency, on the same side",
        "what is asked without the names is untouched; tied embeddings are edited on both sides",
        "more specific than PISCES at like efficacy; together they take more and spare less",
    ),
    Decision(
        "05", "relearning on T, test on V", "Is erased knowledge still in the weights?",
        "seconds per ten steps", "unrelated text, a random edit of equal damage, a never-taught twin: the same budget",
        "teaches or repairs what it is said to recover; leaks of tested answers",
        "more than unrelated text brings back; recovery only as far as it beats equal damage: see the headline",
    ),
    Decision(
        "05", "prompts and rounding", "Does the erasure survive other words, other languages, other bits?",
        "a pass per question and prompt", "the original, another subject, a random edit: the same prompt or rounding",
        "a prompt or rounding that the original fails is no test; clues find more than any prompt",
        "little comes back after PISCES; rewriting a 4-bit file undoes fine-tuning by tiny steps",
    ),
    Decision(
        "05", "reading inside", "Is the answer still readable in the states?",
        "one pass per question", "the output's own best tokens, random labels, the options behind other questions",
        "finds any plausible word once the candidates are many; reads nothing where the original is unreadable",
        "dev questions only, and nearly as well behind other questions; the lens adds nothing to the output's own list",
    ),
    Decision(
        "06", "fine-tuning (gradient difference, NPO, DPO, ...)", "Can a model be trained not to say it?",
        "12 steps, half a minute",
        "neighbour, a near domain nobody tuned on, other forms, relearning; equal direct loss, in margins too",
        "costs the neighbour half of the target's loss or more; rounding to the old weights' grid undoes it",
        "at equal loss most cost the neighbour more than PISCES (on four concepts surely NPO); an unseen domain none",
    ),
    Decision(
        "06", "localised and closed forms (RMU, SSD, ROCR, ...)", "Can chosen weights be rewritten in one go?",
        "a pass over the texts, a solve of seconds", "the same keys with random targets; equal direct loss",
        "what is to be spared must be among the protected keys",
        "exact protection of the keys that were given, of no others; on four concepts RMU costs the neighbour more",
    ),
    Decision(
        "06", "run-time guards (ECO, ULD, refusal by prompt)", "Can it be kept from coming out, without a change?",
        "a detector or an assistant, seconds", "false alarms on the neighbour; latency; unguarded weights",
        "all of the residue stays by construction; whoever has the weights leaves the guard away",
        "near zero side effects only where the detector is silent",
    ),
    Decision(
        "06", "exact deletion (sliced adapters)", "Was it never there?",
        "training prepared for it", "bit-identity with a model that never saw the slice",
        "slices behind the deleted one go, too", "the only row with a proof",
    ),
    Decision(
        "07", "parts put back (knowledge recovery score)", "Which part of an unlearned model was changed?",
        "a pass per part and window", "noise of equal distance, in the measure that is reported",
        "late activations replace the output, so they repair any damage",
        "raw distance: late coefficients take back more after noise; in KL more after training",
    ),
    Decision(
        "07", "parts put in (the reverse)", "Which part carries the damage by itself?",
        "a pass per part and window", "the same parts of a randomly damaged model",
        "parts that only work together carry nothing alone",
        "value vectors bring nearly nothing; late coefficients more than half, whatever was edited",
    ),
    Decision(
        "08", "differential activity, masking", "Which vectors are busy on a concept, and does it depend on them?",
        "a pass per list of questions and per set", "equally active vectors of the same layers; permuted labels",
        "ranks loud vectors and word detectors, too; hurts what every question needs",
        "surely more than equally active vectors cost, less surely more than permuted labels; the rest suffers too",
    ),
    Decision(
        "08", "specialisation score (PSS)", "How differently do the concept and the rest suffer?",
        "two accuracies", "the noise floor at the same numbers of questions; the margin version",
        "an absolute value and few questions make noise positive",
        "for one concept it says nothing; over sixteen most of it is its floor, the signed difference is not",
    ),
    Decision(
        "08", "teaching through chosen vectors", "Does it matter where a fact is learnt?",
        "a short training per set", "as many parameters at equal loss; equally active and random vectors",
        "sets compared after equal steps have learnt different amounts",
        "active vectors learn faster; that the concept's own are gentler was not seen, at the fastest rate the reverse",
    ),
    Decision(
        "09", "difference-of-means direction", "Do two sets of prompts differ linearly in the state?",
        "one pass and a mean", "bag of words, shuffled labels, held-out templates, equal difficulty",
        "finds what differs most between the sets, which is mostly format",
        "little or nothing of it is left when the surface is matched",
    ),
    Decision(
        "09", "steering along a direction", "Does the model use the direction?",
        "a pass per dose", "ten random directions of equal length or energy, shuffled labels, a surface direction",
        "any large push changes answers; kinds that share their options move against each other",
        "no switch shown: in SmolLM2 what adding does multiplying reverses, in Gemma random pushes mostly harm more",
    ),
    Decision(
        "10", "exit per layer, memorised layer", "From which layer on can the answer be read?",
        "one pass, seconds of fitting", "shuffled labels, random features, losses out of fold",
        "reads what is there, not what the model uses; an exit may be right by luck",
        "many items are settled early, most facts late; that is no address for an edit",
    ),
    Decision(
        "10", "stopping policy (ConsistentEE)", "Which items need depth?",
        "seconds on cached states", "dealt depths, confidence and patience at equal mean depth, a blind policy",
        "no incentive in the released reward; where depth does not help, there is nothing to choose",
        "chooses a little better than chance on some tasks; a threshold does as well",
    ),
    Decision(
        "10", "early exit per token", "How much work does a token need?",
        "one reading per layer and token", "states copied and kept",
        "copied states change later tokens; the readings cost more than the blocks they save",
        "too optimistic where undisturbed states are read",
    ),
    Decision(
        "11", "the strictest control", "How much of a result is left beside its best rival?",
        "the measurement, once more per rival", "several rivals, named before the run; the hardest one decides",
        "a weak control (noise elsewhere, shuffled labels) lets everything pass",
        "six results: most shrink, of one nothing sure is left in SmolLM2",
    ),
    Decision(
        "11", "an interval with width", "What else is compatible with a perfect score?",
        "a formula", "a measure that can still move, on the same items",
        "a bootstrap of items that are all right is certain after a few",
        "a score of 1.00 can hide a sure loss of log-probability",
    ),
)  # fmt: skip

DECISION_COLUMNS = ("method", "question it answers", "cost", "control to demand", "known failure", "verdict here")


def decision_table(notebook: str | None = None) -> Grid:
    """The rows of one notebook ("00"), or all of them."""
    chosen = [d for d in DECISIONS if notebook in (None, d.notebook)]
    rows = [(d.method, d.question, d.cost, d.control, d.failure, d.verdict) for d in chosen]
    return Grid(rows, DECISION_COLUMNS, "" if notebook is None else "Rows for the course's decision table")
