"""Methods without a training loop: a redirect in closed form, and a deletion that throws adapters away.

The closed form's peer is the textbook's: the singular values of all kept keys, and a change as large as the weights.
The deletion's peer is what it replaces: training once more on the slices that still count.
"""

from collections.abc import Iterator

import torch

from harness import Case

LAYER, RIDGE, LEAST = 3, 0.1, 1e-5


def bench_redirect() -> Iterator[Case]:
    from conceptlab.data import evidence_texts, load_concept
    from conceptlab.erasure import gather_keys
    from conceptlab.erasure.localised.solve import key_update, null_space
    from conceptlab.models import load_model

    lm, concept = load_model("smollm2-135m", device="cpu"), load_concept("golf")
    own, near, far = evidence_texts(concept, 12, 0)
    found = gather_keys(lm, own, near + far, concept.words, [LAYER])[LAYER]
    rows = lm.down_proj(LAYER).float()
    wanted = 2 * (found.kept.mean(0) @ rows - found.own @ rows)

    def ours():
        return key_update(found.own, wanted, null_space(found.moment), RIDGE)

    @torch.no_grad()
    def textbook():
        K, kept = found.own.double(), found.kept.double()
        _, values, basis = torch.linalg.svd(kept, full_matrices=False)
        basis = basis[values > LEAST * values[0]]
        seen = K - K @ basis.T @ basis
        gram = seen @ K.T
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(K), dtype=torch.float64)
        return (torch.linalg.solve(gram, wanted.double()).T @ seen).float()

    n = f"{len(found.own)} keys, {len(found.kept):,} kept"
    yield Case(f"edit in closed form (one layer, {n}), peer: singular values of the kept keys", ours, textbook)


def bench_deletion() -> Iterator[Case]:
    from conceptlab.data import load_fiction
    from conceptlab.erasure import SliceConfig, train_sliced
    from conceptlab.models import load_model

    lm, lessons = load_model("smollm2-135m", device="cpu"), load_fiction().lessons()
    slices = [lessons[:4], lessons[4:8]]
    cfg = SliceConfig("down_proj", rank=4, steps=1, batch_size=2, n_ctx=16)
    whole = train_sliced(lm, slices, cfg, n_groups=10)

    def again():
        return train_sliced(lm, slices[:1], cfg, n_groups=10)

    title = "edit by exact deletion of one slice of two, peer: training on the slice that is left"
    yield Case(title, lambda: whole.without({1}), again, target=10)
