"""Text, questions, concepts, token rows, selections, leak checks, activations on disk."""

from .activations import Harvest, harvest, shuffled_batches
from .concepts import Concept, NearDomain, general_questions, list_concepts, load_concept
from .contrasts import (
    ITEM_KINDS,
    ContrastItem,
    contrast_examples,
    matched_stories,
    mmlu_contrast,
    naive_contrast,
    story_templates,
    trivia_contrast,
)
from .corpora import ENWIK8, EVALS, VITAL, Article, mmlu_items, vital_articles, web_passages
from .fiction import Fiction, load_fiction
from .leaks import check_no_answers, leaked, other_facts
from .passes import Pass, text_means, text_passes
from .questions import FEW_SHOT, Question, fact_texts, few_shot_prompt, question_stem
from .rows import TokenRows, row_batches, text_rows, token_rows
from .selections import (
    COURSE_CONCEPTS,
    MIXTURE,
    course_texts,
    evidence_texts,
    held_out_leads,
    held_out_passages,
    label_texts,
    mixture,
    other_texts,
    unrelated_texts,
)
from .subjects import Subject, attack_data, subject_of, translatable, translated

__all__ = [
    "Article",
    "COURSE_CONCEPTS",
    "Concept",
    "ENWIK8",
    "ContrastItem",
    "EVALS",
    "FEW_SHOT",
    "Fiction",
    "Harvest",
    "ITEM_KINDS",
    "MIXTURE",
    "NearDomain",
    "Pass",
    "Question",
    "Subject",
    "TokenRows",
    "VITAL",
    "attack_data",
    "check_no_answers",
    "contrast_examples",
    "course_texts",
    "evidence_texts",
    "fact_texts",
    "few_shot_prompt",
    "general_questions",
    "harvest",
    "held_out_leads",
    "held_out_passages",
    "label_texts",
    "leaked",
    "list_concepts",
    "load_concept",
    "load_fiction",
    "matched_stories",
    "mixture",
    "mmlu_contrast",
    "mmlu_items",
    "naive_contrast",
    "other_facts",
    "other_texts",
    "question_stem",
    "row_batches",
    "shuffled_batches",
    "story_templates",
    "subject_of",
    "text_means",
    "text_passes",
    "text_rows",
    "token_rows",
    "translatable",
    "translated",
    "trivia_contrast",
    "unrelated_texts",
    "vital_articles",
    "web_passages",
]
