"""Steps of fine-tuning erasers on SmolLM2 against plain ones: transformers' loss on the same batches, torch's AdamW.

A method with a reference also pays for one forward pass of the original per batch, so its peer does, too. The target
says that ours costs at most 1.15 of that. open-unlearning's trainer is no peer here: it is no package, and its
requirements (transformers 5.5.4, deepspeed, bitsandbytes) do not install beside this project's transformers on a CPU.
"""

from collections.abc import Iterator

import torch

from harness import Case

STEPS = 2
TARGET = 1 / 1.15


def bench_finetuning() -> Iterator[Case]:
    from conceptlab.data import AnswerRow, course_texts, text_rows
    from conceptlab.edits import trainable, trained_parameters
    from conceptlab.erasure import Loss, Material, TuningConfig, get_method
    from conceptlab.erasure.finetuning.loop import Run, planned
    from conceptlab.erasure.finetuning.terms import Step
    from conceptlab.models import load_model

    lm = load_model("smollm2-135m", device="cpu")
    cfg = TuningConfig(steps=STEPS, weights="down_proj")
    rows = [AnswerRow(ids, len(ids) // 2) for ids in text_rows(lm, course_texts(20)[:20], cfg.n_ctx) if len(ids) > 20]
    n = len(rows) // 3
    whole = Material(rows[:n], rows[n : 2 * n], rows[2 * n : 3 * n])
    alone = Material(whole.forget, (), whole.instead)  # of a method that keeps nothing
    chosen = trained_parameters(lm, cfg.weights)

    def plain(steps: list[Step], n_batches: int, n_references: int) -> None:
        """Steps on the mean cross-entropy of so many batches, and so many forward passes of the original before."""
        with trainable(lm, chosen):
            optimiser = torch.optim.AdamW(list(chosen.values()), lr=cfg.lr, weight_decay=0.0)
            for step in steps:
                batches = [(r.ids, r.mask) for r in (step.forget, step.keep, step.instead) if r is not None]
                with torch.no_grad():
                    for ids, mask in batches[:n_references]:
                        lm.hf(ids, attention_mask=mask.long(), use_cache=False)
                losses = [
                    lm.hf(ids, attention_mask=mask.long(), labels=ids.masked_fill(~mask, -100), use_cache=False).loss
                    for ids, mask in batches[:n_batches]
                ]
                optimiser.zero_grad()
                sum(losses[1:], losses[0]).backward()
                optimiser.step()

    # method -> batches with a gradient, batches of the original
    for name, batches in {"gradient_ascent": (1, 0), "npo": (2, 1), "ga_kl": (2, 1), "dpo": (3, 2)}.items():
        config = get_method(name).config
        steps = planned(lm, whole if config.weight else alone, cfg)

        def ours(config=config, steps=steps):
            with torch.enable_grad(), trainable(lm, chosen):
                run = Run(lm, Loss(config.forget, config.keep, config.weight), steps, head_moves=False)
                run.train(list(chosen.values()), {}, cfg, None)

        title = f"edit by {name}, {STEPS} steps, peer: plain steps and {batches[1]} reference pass each"
        yield Case(title, ours, lambda steps=steps, batches=batches: plain(steps, *batches), target=TARGET)
