"""What run-time methods cost: scoring 16 questions on SmolLM2 under each, against the plain model (a ratio of 1: free).

Prompts are new to a method in every run, so that a detector's own pass counts.
"""

from collections.abc import Iterator

from harness import Case


def bench_inference() -> Iterator[Case]:
    from conceptlab.data import load_concept
    from conceptlab.erasure import Shared, methods
    from conceptlab.evaluation import score_questions
    from conceptlab.models import load_model

    lm = load_model("smollm2-135m", device="cpu")
    concept = load_concept("japan")
    shared, questions = Shared(lm, concept, {}), concept.test[:16]
    for method in methods().values():
        if method.kind == "run-time":
            intervention = method.fit(lm, concept, method.config, shared)

            def guarded(intervention=intervention):
                with intervention.applied(lm):
                    score_questions(lm, questions)

            title = f"score 16 questions under {method.name}, peer: without it"
            yield Case(title, guarded, lambda: score_questions(lm, questions))
