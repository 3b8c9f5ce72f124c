"""The quick suite of attacks on one concept of SmolLM2: every attack of `QUICK` on the shipped edit, once."""

from harness import Case

LIMIT_S = 180.0


def bench_quick_suite():
    from conceptlab.attacks import QUICK, QUICK_BUDGET, known_questions, run_attack, setting_for
    from conceptlab.data import load_concept
    from conceptlab.experiments import shipped_edit
    from conceptlab.models import load_model

    lm = load_model("smollm2-135m", device="cpu")
    concept = load_concept("chemical_elements")
    edit = shipped_edit(lm, concept)
    setting = setting_for(concept, known_questions(lm, concept, 16, "dev"), QUICK_BUDGET)

    def suite() -> None:
        for name in QUICK:
            run_attack(name, lm, edit, setting)

    title = f"attacks, quick suite: {len(QUICK)} attacks on one concept with 16 questions, peer: {LIMIT_S:.0f} s"
    yield Case(title, suite, lambda: LIMIT_S, target=1, warmup=0)
