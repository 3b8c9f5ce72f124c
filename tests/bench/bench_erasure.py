"""Erasing one concept from SmolLM2: the edit against the row-by-row loop, one concept's card, the prefix cache.

The features are those of the shipped edit of a concept, in the shipped dictionaries. At the course's tau each of them
is changed in a row or two, so that a loop over rows is short too; the low end of the published range, where it is long,
is the one with a target.
"""

from collections.abc import Iterator

import torch

from harness import Case

CONCEPT, MU = "chemical_elements", 10.0
TAUS = ((0.1, 20.0), (0.5, None))  # and the least ratio wanted
SAMPLE = 64  # rows per layer of the row-by-row loop; its time is scaled up to all the rows that the edit changes


def bench_edit() -> Iterator[Case]:
    from conceptlab.data import load_concept
    from conceptlab.erasure import Feature, pisces_edit, pisces_rows, shipped_dictionaries
    from conceptlab.experiments import shipped_edit
    from conceptlab.models import load_model

    lm = load_model("smollm2-135m", device="cpu")
    features = [Feature(*place) for place in shipped_edit(lm, load_concept(CONCEPT)).info["features"]]
    index = {
        layer: torch.tensor([f.index for f in features if f.layer == layer]) for layer in {f.layer for f in features}
    }
    saes = shipped_dictionaries(lm, sorted(index))
    for tau, target in TAUS:
        picked = {
            layer: pisces_rows(sae, lm.down_proj(layer), index[layer], tau)[0].any(1).nonzero()[:, 0]
            for layer, sae in saes.items()
        }
        n_rows, sample = (sum(min(most, len(rows)) for rows in picked.values()) for most in (lm.d_mlp, SAMPLE))

        def ours(tau=tau):
            return pisces_edit(lm, saes, features, tau, MU)

        @torch.no_grad()
        def loop(picked=picked):
            """Encode, write the activations, decode, add the residual: as published, one row after another."""
            for layer, sae in saes.items():
                for row in lm.down_proj(layer)[picked[layer][:SAMPLE]]:
                    activations = sae.encode(row)
                    residual = row - sae.decode(activations)
                    activations[index[layer]] = -MU
                    sae.decode(activations) + residual

        what = f"{len(features)} features, {len(saes)} layers, tau {tau}, {n_rows:,} rows"
        title = f"edit of one concept ({what}), peer: encode-edit-decode row by row"
        yield Case(title, ours, loop, target=target, peer_scale=n_rows / sample)

        def applied(ours=ours):
            with ours().applied(lm):
                pass

        yield Case(f"edit of one concept, tau {tau}, applied and reverted, peer: 1 s", applied, lambda: 1.0, target=1)


def bench_score() -> Iterator[Case]:
    from conceptlab.data import FEW_SHOT, load_concept, question_stem
    from conceptlab.evaluation import score_questions, scorecard
    from conceptlab.models import load_model

    lm = load_model("smollm2-135m", device="cpu")
    concept = load_concept("golf")
    title = "score one concept's card (40 questions per set, 16 texts, writing), peer: 60 s"
    card = lambda: scorecard(lm, concept, "test", 40, 16, writing=True)  # noqa: E731
    yield Case(title, card, lambda: 60.0, target=1, warmup=0)

    questions = concept.test[:16]

    @torch.no_grad()
    def whole_prompts():
        """Each option in a row with the full prompt."""
        for i in range(0, len(questions), 4):
            rows = [FEW_SHOT + question_stem(q) + f" {option}" for q in questions[i : i + 4] for option in q.options]
            ids, mask = lm.tokens(rows)
            lm.logits(ids, mask).log_softmax(-1).gather(2, ids[..., None])

    title = "score 16 questions with the prefix cache, peer: a row with the whole prompt per option"
    yield Case(title, lambda: score_questions(lm, questions), whole_prompts)
