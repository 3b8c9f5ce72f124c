"""Erasing one concept from SmolLM2: the edit against the row-by-row loop, one concept's card, the prefix cache.

The speed of an edit does not depend on what the dictionaries have learned, so they are random here: 4,096 features in
each of six layers, five features edited in each.
"""

from collections.abc import Iterator

import torch

from harness import Case

LAYERS = (4, 6, 8, 12, 18, 24)
TAU, MU = 0.1, 2.0
SAMPLE = 64  # rows per layer of the row-by-row loop; its time is scaled up to all the rows that the edit changes


def bench_edit() -> Iterator[Case]:
    from conceptlab.models import load_model
    from conceptlab.pisces import Feature, pisces_edit, pisces_rows
    from conceptlab.sae import SAEConfig, TopKSAE

    lm = load_model("smollm2-135m", device="cpu")
    saes = {
        layer: TopKSAE(SAEConfig("topk", lm.d_model, 4_096, 32, lm.name, layer, lm.mlp_output(layer)), layer)
        for layer in LAYERS
    }
    features = [Feature(layer, 10 * i) for layer in LAYERS for i in range(5)]
    index = torch.tensor([10 * i for i in range(5)])
    picked = {
        layer: pisces_rows(sae, lm.down_proj(layer), index, TAU)[0].any(1).nonzero()[:, 0]
        for layer, sae in saes.items()
    }
    n_rows = sum(map(len, picked.values()))

    def ours():
        return pisces_edit(lm, saes, features, TAU, MU)

    @torch.no_grad()
    def loop():
        """Encode, write the activations, decode, add the residual: the published procedure, one row after another."""
        for layer, sae in saes.items():
            for row in lm.down_proj(layer)[picked[layer][:SAMPLE]]:
                activations = sae.encode(row)
                residual = row - sae.decode(activations)
                activations[index] = -MU
                sae.decode(activations) + residual

    sample = sum(min(SAMPLE, len(rows)) for rows in picked.values())
    print(f"edit: {len(features)} features in {len(LAYERS)} layers, {n_rows:,} rows", flush=True)
    title = "edit of one concept across all layers, peer: encode-edit-decode row by row (from a sample)"
    yield Case(title, ours, loop, target=20, peer_scale=n_rows / sample)

    def applied():
        with ours().applied(lm):
            pass

    yield Case("edit of one concept, applied and reverted, peer: 1 s", applied, lambda: 1.0, target=1)


def bench_score() -> Iterator[Case]:
    from conceptlab.concepts import load_concept
    from conceptlab.evaluation import FEW_SHOT, question_stem, score_questions, scorecard
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
