"""What an edited model does when it writes: does it go round in circles, does it still follow instructions?

Both are checked by rule, without a judge, and mean something only beside the original model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..models import LanguageModel, chat_rows, greedy

# Beginnings of everyday sentences; none touches a concept of the course.
NEUTRAL_PROMPTS = (
    "When the train arrived at the station,",
    "My sister opened the kitchen window because",
    "The first thing I do in the morning is",
    "To plant a small garden, you should begin by",
    "The teacher walked into the classroom and",
    "It had been raining for three days, so",
    "A good way to save money is to",
    "The old wooden bridge near our village",
)


@dataclass(frozen=True)
class Behaviour:
    """One number per prompt; higher is better."""

    distinct: Float[Tensor, " prompts"]  # share of different n-grams in a greedy continuation, 1: nothing repeats
    follows: Float[Tensor, " instructions"]  # 1 where the answer does what the instruction asks
    continuations: tuple[str, ...]
    answers: tuple[str, ...]


def behaviour(
    lm: LanguageModel,
    prompts: Sequence[str] = NEUTRAL_PROMPTS,
    n_tokens: int = 24,
    n: int = 3,
) -> Behaviour:
    """Greedy continuations of `prompts` and answers to INSTRUCTIONS, at most `n_tokens` tokens each."""
    if not prompts or not all(p.strip() for p in prompts):
        raise ConceptLabError("Writing needs at least one prompt, and none may be empty.")
    if n_tokens < n:
        raise ConceptLabError(f"Repetition of {n}-grams needs at least {n} tokens per continuation; got {n_tokens}.")
    rows = greedy(lm, list(prompts), n_tokens)
    answers = [lm.decode(row).strip() for row in greedy(lm, chat_rows(lm, [i.text for i in INSTRUCTIONS]), n_tokens)]
    return Behaviour(
        torch.tensor([distinct_share(row, n) for row in rows]),
        torch.tensor([float(i.rule(a)) for i, a in zip(INSTRUCTIONS, answers, strict=True)]),
        tuple(lm.decode(row) for row in rows),
        tuple(answers),
    )


def distinct_share(ids: Sequence[int], n: int = 3) -> float:
    """Different n-grams over all n-grams (distinct-n); 0 for a text too short to have one."""
    if n < 1:
        raise ConceptLabError(f"n-grams have at least one token; got n={n}.")
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


# ---- instructions that a rule can check --------------------------------------------------------------------
@dataclass(frozen=True)
class Instruction:
    """A request and the rule that says whether an answer does what it asks; whether it is true does not matter."""

    text: str
    rule: Callable[[str], bool]


def _words(answer: str) -> list[str]:
    return re.findall(r"[\w']+", answer)


def _first(answer: str) -> str:
    return next(iter(_words(answer)), "").lower()


def _last(answer: str) -> str:
    return next(iter(_words(answer)[::-1]), "").lower()


def _says(words: str) -> Callable[[str], bool]:
    return lambda answer: words in re.sub(r"\s+", " ", answer.lower())


def _items(answer: str) -> int:
    """Entries of a list: lines that begin with a dash, a star or a number, else parts between commas."""
    lines = re.findall(r"^\s*(?:[-*•]|\d+[.)])\s*\S", answer, re.M)
    return len(lines) or len([part for part in answer.split(",") if part.strip()])


# Mostly easy ones: a model of this size follows about two thirds, and what is not followed before cannot be lost.
INSTRUCTIONS = (
    Instruction("Answer with one word only: what do bees make?", lambda a: len(_words(a)) == 1),
    Instruction("Answer yes or no: is snow cold?", lambda a: _first(a) in ("yes", "no")),
    Instruction("Answer yes or no: can fish sing?", lambda a: _first(a) in ("yes", "no")),
    Instruction("Answer true or false: a chair can walk.", lambda a: _first(a) in ("true", "false")),
    Instruction("Write the word house in capital letters.", lambda a: "HOUSE" in a),
    Instruction("Name three fruits, separated by commas.", lambda a: _items(a) >= 3),
    Instruction("List three colors.", lambda a: _items(a) >= 3),
    Instruction("Give me a list of four things in a kitchen.", lambda a: _items(a) >= 3),  # the fourth may be cut off
    Instruction("Repeat this sentence: The door is open.", _says("the door is open")),
    Instruction("Repeat after me: I like green apples.", _says("i like green apples")),
    Instruction("Say this word: window.", _says("window")),
    Instruction("Count from 1 to 5.", lambda a: bool(re.search("1.*2.*3.*4.*5", a, re.S))),
    Instruction("Begin your answer with the word Hello. How are you?", lambda a: _first(a) == "hello"),
    Instruction("Begin your answer with the word Sure. Can you help me?", lambda a: _first(a) == "sure"),
    Instruction("Reply with a number only: how many legs has a dog?", lambda a: bool(re.fullmatch(r"\d+\.?", a))),
    Instruction("Write a sentence that ends with the word umbrella.", lambda a: _last(a) == "umbrella"),
    Instruction("Write a sentence with the word umbrella.", _says("umbrella")),
    Instruction("Write a sentence about a horse.", _says("horse")),
    Instruction("Use the words river and bridge in one sentence.", lambda a: _says("river")(a) and _says("bridge")(a)),
    Instruction("Ask me a question about my day.", lambda a: "?" in a),
    Instruction("Ask me for my name.", lambda a: "?" in a and "name" in a.lower()),
    Instruction('Put the word hello between double quotes, like "this".', lambda a: bool(re.search(r'"[^"]+"', a))),
    Instruction("Answer in at most five words: what is a chair for?", lambda a: 1 <= len(_words(a)) <= 5),
    Instruction("Write an exclamation that ends with an exclamation mark.", lambda a: "!" in a),
)
