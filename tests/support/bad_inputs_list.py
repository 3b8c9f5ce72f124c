"""The bad inputs that `bad_inputs.py` tries, by room."""

import math
from dataclasses import replace
from pathlib import Path

from bad_inputs import command, concept, configured, dictionary, mixture_folder, raw, table, tiny, written

TEXTS = ["A short text about nothing in particular."] * 20


def sections():
    """(section, [(what, call)])."""
    lm = tiny()
    return [
        ("Models and texts", models(lm)),
        ("Rows, harvests and corpora", data(lm)),
        ("Concept files", concepts()),
        ("Dictionaries", dictionaries(lm)),
        ("Edits", edits(lm)),
        ("Questions and scores", scores(lm)),
        ("Erasure", erasure(lm)),
        ("Attacks", attacks(lm)),
        ("Labels and the endpoint", labels(lm)),
        ("Files and tables", files()),
        ("The command line", commands()),
    ]


def models(lm):
    import torch

    from conceptlab.models import Prefix, branch_logprobs, greedy, load_model, project

    ids, vectors, prefix = torch.tensor([[1, 5]]), torch.ones(2, 16), Prefix((5,), None)
    return [
        ("lm.tokens([])", lambda: lm.tokens([])),
        ("lm.tokens(['a', ''])", lambda: lm.tokens(["a", ""])),
        ("lm.encode(None)", lambda: lm.encode(None)),
        (r"lm.tokens(['\ud800'])", lambda: lm.tokens(["\ud800"])),
        ("lm.single_tokens('gold')", lambda: lm.single_tokens("gold")),
        ("lm.single_token(' ')", lambda: lm.single_token(" ")),
        ("lm.words([-1])", lambda: lm.words([-1])),
        ("lm.decode([10**9])", lambda: lm.decode([10**9])),
        ("lm.tokens('a', n_ctx=0)", lambda: lm.tokens("a", 0)),
        ("lm.tokens(' a' * 101)", lambda: lm.tokens(" a" * 101)),
        ("lm.logits(ids * 10**6)", lambda: lm.logits(ids * 10**6)),
        ("lm.logits(-ids)", lambda: lm.logits(-ids)),
        ("lm.logits(ids.float())", lambda: lm.logits(ids.float())),
        ("lm.logits(ids[0])", lambda: lm.logits(ids[0])),
        ("lm.single_token('Velmora')", lambda: lm.single_token("Velmora")),
        ("greedy(lm, ['a'], n_tokens=-1)", lambda: greedy(lm, ["a"], -1)),
        ("greedy(lm, 'one text', 4)", lambda: greedy(lm, "one text", 4)),
        ("lm.value_vectors(1.5)", lambda: lm.value_vectors(1.5)),
        ("lm.value_vectors(2)", lambda: lm.value_vectors(2)),
        ("lm.capture(ids, [('mlp', 0)])", lambda: lm.capture(ids, [("mlp", 0)])),
        ("branch_logprobs(lm, prefix, [('a', ['  '])])", lambda: branch_logprobs(lm, prefix, [("a", ["  "])])),
        ("branch_logprobs(lm, prefix, [('a', [])])", lambda: branch_logprobs(lm, prefix, [("a", [])])),
        ("project(lm, vectors, k=0)", lambda: project(lm, vectors, k=0)),
        ("project(lm, vectors * nan)", lambda: project(lm, vectors * math.nan)),
        ("project(lm, vectors.long())", lambda: project(lm, vectors.long())),
        ("project(lm, vectors[:, :15])", lambda: project(lm, vectors[:, :15])),
        ("load_model('gpt-17')", lambda: load_model("gpt-17")),
        ("load_model('')", lambda: load_model("")),
        ("load_model('модель')", lambda: load_model("модель")),
        ("load_model(a folder with an encoder's config.json)", lambda: load_model(configured("bert"))),
        ("load_model(a folder with a state space model's)", lambda: load_model(configured("mamba"))),
        ("load_model('model.Q4_K_M.gguf')", lambda: load_model("model.Q4_K_M.gguf")),
        ("load_model('smollm2-135m', device='tpu9')", lambda: load_model("smollm2-135m", device="tpu9")),
        ("load_model('smollm2-135m', dtype=torch.int32)", lambda: load_model("smollm2-135m", dtype=torch.int32)),
        ("load_model(a folder with a mixture of experts)", lambda: load_model(mixture_folder())),
    ]


def data(lm):
    from conceptlab.data import general_questions, harvest, load_concept, text_rows, token_rows

    texts, rows = TEXTS, token_rows(lm, TEXTS, 16)
    return [
        ("token_rows(lm, 'one text')", lambda: token_rows(lm, "one text")),
        ("token_rows(lm, [])", lambda: token_rows(lm, [])),
        ("token_rows(lm, None)", lambda: token_rows(lm, None)),
        ("token_rows(lm, ['a', 7])", lambda: token_rows(lm, ["a", 7])),
        ("token_rows(lm, texts, n_ctx=101)", lambda: token_rows(lm, texts, 101)),
        ("token_rows(lm, texts, n_ctx=1)", lambda: token_rows(lm, texts, 1)),
        ("token_rows(lm, texts, 16, n_tokens=-1)", lambda: token_rows(lm, texts, 16, n_tokens=-1)),
        ("token_rows(lm, ['', ''], 16)", lambda: token_rows(lm, ["", ""], 16)),
        ("text_rows(lm, [''], 16)", lambda: text_rows(lm, [""], 16)),
        ("text_rows(lm, texts, 33)", lambda: text_rows(lm, texts, 33)),
        ("harvest(lm, rows, [])", lambda: harvest(lm, rows, [])),
        ("harvest(lm, rows, [2])", lambda: harvest(lm, rows, [2])),
        ("harvest(lm, rows, [0], kind='mlp')", lambda: harvest(lm, rows, [0], "mlp")),
        ("harvest(lm, rows, [0], batch_size=0)", lambda: harvest(lm, rows, [0], batch_size=0)),
        ("load_concept('atlantis')", lambda: load_concept("atlantis")),
        ("general_questions('train')", lambda: general_questions("train")),
    ]


def concepts():
    changes = [
        ("words: [oxygen, ozone]", "words: oxygen"),
        ("title: Oxygen", "Title: Oxygen"),
        ("title: Oxygen", "title:"),
        ("words: [oxygen, ozone]", "lookalike: [ozone]"),
        ("words: [oxygen, ozone]", "words: [oxygen, ' ']"),
        ("[oxygen, sand], answer: 0", "[oxygen, sand], answer: 1.9"),
        ("[oxygen, sand], answer: 0", "[oxygen, sand], answer: 2"),
        ("[oxygen, sand]", "[oxygen, Oxygen]"),
        ("[oxygen, sand]", '[oxygen, "oxy\\u200bgen"]'),
        ("[oxygen, sand]", '["\\u00e9", "e\\u0301"]'),
        ("title: Oxygen", 'title: "Oxy\\u0007gen"'),
        ("[oxygen, sand]", "[oxygen]"),
        ("[oxygen, sand]", "[oxygen, sand, tin]"),
        ("[oxygen, sand]", "[a, b, c, d, e, f, g, h, i]"),
        ('"What do fires need?"', "null"),
        ('"What is O?"', '"what do FIRES need"'),
        ("id: a2", "id: a1"),
        ("id: a1,", "id: a1, id: a3,"),
        ("any: [oxygen, ozone], min_hits: 1", "any: [oxygen, ozone], min_hits: 0"),
        ("any: [oxygen, ozone], min_hits: 1", "any: [oxygen, ozone], min_hit: 1"),
        ("any: [oxygen, ozone], min_hits: 1", ""),
        ("title: Oxygen", "title: !!python/name:os.system Oxygen"),
        ("words: [oxygen, ozone]", "words: &w [oxygen, ozone]"),
    ]
    shown = [(f"{old} -> {new or '(nothing)'}", lambda old=old, new=new: concept(old, new)) for old, new in changes]
    return [
        *shown,
        ("a file of 100,000 brackets", lambda: raw(b"[" * 100_000)),
        ("an empty file", lambda: raw(b"")),
        ("a file in UTF-16", lambda: raw("name: oxygen".encode("utf-16"))),
        ("a file in Latin-1", lambda: raw("name: az\u00f4te\n".encode("latin-1"))),
    ]


def dictionaries(lm):
    import torch

    from conceptlab.sae import SAEConfig, TopKSAE, TrainConfig, load_sae, train_sae

    small = TrainConfig(d_sae=24, k=2, steps=3, batch_size=8)
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    hole = x.clone()
    hole[7, 3] = math.nan
    resid = TopKSAE(SAEConfig("topk", 16, 24, 2, "tiny", 0, "blocks.0.hook_resid_post"), 0)

    def train(numbers=x, **changes):
        return lambda: train_sae(numbers, replace(small, **changes), progress=False)

    return [
        ("train_sae(zeros)", train(torch.zeros(40, 16))),
        ("train_sae(no tokens)", train(torch.zeros(0, 16))),
        ("train_sae(a list)", train([[1.0] * 16] * 40)),
        ("train_sae(complex numbers)", train(x.to(torch.complex64))),
        ("train_sae(a NaN among the activations)", train(hole)),
        ("train_sae(x, k > d_sae)", train(k=25)),
        ("train_sae(x, lr=nan)", train(lr=math.nan)),
        ("train_sae(x, seed=-1)", train(seed=-1)),
        ("train_sae(x, batch_size=0)", train(batch_size=0)),
        ("train_sae(x, architecture='transformer')", train(architecture="transformer")),
        ("load_sae('nowhere/at/all')", lambda: load_sae("nowhere/at/all/here")),
        ("load_sae('')", lambda: load_sae("")),
        ("load_sae(params.npz that is no archive)", lambda: load_sae(written("scope/params.npz", "text").parent)),
        ("SAELens: activation_fn 'gelu'", lambda: dictionary(activation_fn="gelu")),
        ("SAELens: activation_fn_str 'tanh-relu'", lambda: dictionary(activation_fn_str="tanh-relu")),
        (
            "SAELens: topk, activation_fn_kwargs {'k': 8, 'signed': True}",
            lambda: dictionary(activation_fn="topk", activation_fn_kwargs={"k": 8, "signed": True}),
        ),
        ("SAELens: normalize_activations 'layer_norm'", lambda: dictionary(normalize_activations="layer_norm")),
        ("SAELens: architecture 'matching_pursuit'", lambda: dictionary(architecture="matching_pursuit")),
        ("SAELens: hook_name 'somewhere'", lambda: dictionary(hook_name="somewhere")),
        ("SAELens: hook_name 7", lambda: dictionary(hook_name=7)),
        ("SAELens: model_name ['tiny']", lambda: dictionary(model_name=["tiny"])),
        (
            "SAELens: normalize_activations 'covariance_whitening'",
            lambda: dictionary(normalize_activations="covariance_whitening"),
        ),
        ("SAELens: d_in 17", lambda: dictionary(d_in=17)),
        ("pisces_edit(lm, {a dictionary of the residual stream}, ...)", lambda: pisces(lm, resid)),
    ]


def pisces(lm, sae, index=3, **settings):
    from conceptlab.erasure import Feature, pisces_edit

    return pisces_edit(lm, {0: sae}, [Feature(0, index)], **settings)


def edits(lm):
    import torch

    from conceptlab.edits import Dense, LowRank, Rows, WeightEdit, value_edit

    ones, name = torch.ones, lm.down_proj_name(0)
    edit = WeightEdit.of(lm, {name: Dense(0.01 * ones(16, 32))}, {})

    def exported():
        with edit.applied(lm):
            edit.export(lm, "exported")

    def twice():
        once = edit.applied(lm)
        with once, once:
            pass

    def elsewhere():
        with edit.applied(tiny(initializer_range=0.5)):
            pass

    def crossed():
        first, second = edit.applied(lm), (edit * 0.5).applied(lm)
        first.__enter__(), second.__enter__()
        try:
            first.__exit__(None, None, None)
        finally:
            lm.restore()

    return [
        ("Dense(a NaN)", lambda: Dense(ones(2, 3) * math.nan)),
        ("Dense(whole numbers)", lambda: Dense(ones(2, 3, dtype=torch.long))),
        ("Dense(complex numbers)", lambda: Dense(ones(2, 3, dtype=torch.complex64))),
        ("LowRank of ranks 4 and 3", lambda: LowRank(ones(2, 4), ones(3, 5))),
        ("Rows: row 10 of 10", lambda: Rows(torch.tensor([10]), ones(1, 3), torch.tensor(10))),
        ("edit * inf", lambda: edit * math.inf),
        ("value_edit(lm, 0, [32], ...)", lambda: value_edit(lm, 0, [32], ones(1, 16))),
        ("value_edit(lm, 0, [1, 2], one row)", lambda: value_edit(lm, 0, [1, 2], ones(1, 16))),
        ("the edit on a model with other weights", elsewhere),
        ("edit.export(...) while it is applied", exported),
        ("the same edit.applied(lm) entered twice", twice),
        ("two edits left in another order than entered", crossed),
        ("edit.save(a folder)", lambda: edit.save(written("folder/file", "").parent)),
        ("edit.save('/dev/null')", lambda: edit.save("/dev/null")),
        ("WeightEdit.load(a text file)", lambda: WeightEdit.load(written("notes.txt", "no edit"))),
        ("WeightEdit.load('nowhere.safetensors')", lambda: WeightEdit.load("nowhere.safetensors")),
    ]


def scores(lm):
    from conceptlab.core import bootstrap
    from conceptlab.data import Question
    from conceptlab.evaluation import behaviour, guess_corrected, score_form, score_questions

    q = Question("q1", "Who?", ("a", "b"), 0)
    nine = replace(q, options=tuple("abcdefghi"))
    return [
        ("score_questions(lm, [])", lambda: score_questions(lm, [])),
        ("score_questions(lm, 'Who?')", lambda: score_questions(lm, "Who?")),
        ("score_questions(lm, [None])", lambda: score_questions(lm, [None])),
        ("two options beside three", lambda: score_questions(lm, [q, replace(q, id="q2", options=("a", "b", "c"))])),
        ("an answer that is no option", lambda: score_questions(lm, [replace(q, answer=2)])),
        ("options that are equal", lambda: score_questions(lm, [replace(q, options=("a", "a "))])),
        ("an empty option", lambda: score_questions(lm, [replace(q, options=("a", " "))])),
        ("an empty question", lambda: score_questions(lm, [replace(q, q=" ")])),
        ("nine options in the form with letters", lambda: score_form(lm, [nine], "choice")),
        ("score_form(lm, [q], 'riddle')", lambda: score_form(lm, [q], "riddle")),
        ("behaviour(lm, [])", lambda: behaviour(lm, [])),
        ("behaviour(lm, n_tokens=2)", lambda: behaviour(lm, n_tokens=2)),
        ("guess_corrected(0.5, n_options=1)", lambda: guess_corrected(0.5, 1)),
        ("bootstrap([])", lambda: bootstrap([])),
        ("bootstrap(['a'])", lambda: bootstrap(["a"])),
    ]


def erasure(lm):
    from conceptlab.concept_vectors import build_atlas, search
    from conceptlab.erasure import SharedConfig, get_method, neuron_signs
    from conceptlab.sae import SAEConfig, TopKSAE

    sae = TopKSAE(SAEConfig("topk", 16, 24, 2, "tiny", 0, lm.mlp_output(0)), 0).requires_grad_(False)
    return [
        ("neuron_signs(lm, [0], texts, ['Velmora'])", lambda: neuron_signs(lm, [0], ["A text."], ["Velmora"])),
        ("pisces_edit: feature 24 of 24", lambda: pisces(lm, sae, 24)),
        ("search(lm, ['Velmora'])", lambda: search(lm, ["Velmora"])),
        ("build_atlas(lm, layers=[2])", lambda: build_atlas(lm, [2])),
        ("get_method('magic')", lambda: get_method("magic")),
        ("SharedConfig(n_candidates=0)", lambda: SharedConfig(n_candidates=0)),
        ("SharedConfig(reach_tau=nan)", lambda: SharedConfig(reach_tau=math.nan)),
    ]


def attacks(lm):
    from conceptlab.attacks import (
        CandidateConfig,
        GCGConfig,
        ProbeConfig,
        QuantiseConfig,
        RelearnConfig,
        candidate_sets,
        gcg,
        quantise,
        rates_of,
        relearn,
        undo,
    )
    from conceptlab.data import Question

    q = Question("q1", "Who?", ("a", "b"), 0)
    return [
        ("relearn(lm, None, [], ...)", lambda: relearn(lm, None, [], RelearnConfig())),
        ("relearn(lm, None, texts, lr=-1.0)", lambda: relearn(lm, None, TEXTS, RelearnConfig(), lr=-1.0)),
        ("relearn(lm, None, texts, steps=0)", lambda: relearn(lm, None, TEXTS, RelearnConfig(), steps=0)),
        ("relearn(lm, None, texts, steps=1.5)", lambda: relearn(lm, None, TEXTS, RelearnConfig(), steps=1.5)),
        ("relearn(lm, None, texts, lr='1e-4')", lambda: relearn(lm, None, TEXTS, RelearnConfig(), lr="1e-4")),
        ("relearn(lm, None, texts, weights='some')", lambda: relearn(lm, None, TEXTS, RelearnConfig(weights="some"))),
        ("quantise(lm, None, ..., bits=(0,))", lambda: quantise(lm, None, id, QuantiseConfig(bits=(0,)))),
        ("quantise(lm, None, ..., bits=(4.5,))", lambda: quantise(lm, None, id, QuantiseConfig(bits=(4.5,)))),
        ("gcg(lm, None, [], [q], n_tokens=0)", lambda: gcg(lm, None, [q], [q], GCGConfig(n_tokens=0))),
        ("candidate_sets(kind='guess')", lambda: candidate_sets(lm, None, [q], CandidateConfig("guess"))),
        ("candidate_sets(budgets=(0,))", lambda: candidate_sets(lm, None, [q], CandidateConfig(budgets=(0,)))),
        ("candidate_sets of one question", lambda: candidate_sets(lm, None, [q])),
        ("ProbeConfig(folds=1)", lambda: ProbeConfig(folds=1)),
        ("undo(lm, None, ...)", lambda: undo(lm, None, id)),
        ("rates_of(an unknown model)", lambda: rates_of(lm)),
    ]


def labels(lm):
    import torch

    from conceptlab.autointerp import EndpointConfig, load_records, read_labels, steered_change

    return [
        ("read_labels('tiny', 0)", lambda: read_labels("tiny", 0, Path("."))),
        ("an empty label file", lambda: load_records(written("layer_00.jsonl.gz", ""))),
        ("a label file that is no archive", lambda: load_records(written("layer_00.jsonl.gz", "text"))),
        ("EndpointConfig(timeout=nan)", lambda: EndpointConfig("http://localhost/v1", "m", timeout=math.nan)),
        ("EndpointConfig(retries=-1)", lambda: EndpointConfig("http://localhost/v1", "m", retries=-1)),
        ("EndpointConfig(max_tokens=0)", lambda: EndpointConfig("http://localhost/v1", "m", max_tokens=0)),
        ("a direction of zeros to steer with", lambda: list(steered_change(lm, 0, torch.zeros(1, 16)))),
    ]


def files():
    from conceptlab.core import check_output, read_table

    return [
        ("check_output(a folder)", lambda: check_output(written("folder/file", "").parent)),
        ("check_output('/dev/full')", lambda: check_output("/dev/full")),
        ("check_output('')", lambda: check_output("")),
        ("read_table('nowhere.csv')", lambda: read_table("nowhere.csv")),
        ("read_table(a text)", lambda: read_table(written("table.csv", "a text\n"))),
        ("read_table(an empty file)", lambda: read_table(written("table.csv", ""))),
        ("read_table(an interval that ends before it begins)", lambda: read_table(table(low="0.3"))),
        ("read_table(a metric without a name)", lambda: read_table(table(metric=""))),
        ("read_table(n = -4)", lambda: read_table(table(n="-4"))),
    ]


def commands():
    lines = [
        "attack japan --lr nan",
        "attack japan --lr 0",
        "attack japan --questions 0",
        "attack japan --attacks bribery",
        "attack atlantis",
        "attack japan --edit nowhere.safetensors",
        "label --n -1",
        "label --seed -1",
        "label --export neuronpedia",
        "train-sae --layers 1 --tokens 0",
        "train-sae --layers 1 --lr nan",
        "train-sae --layers 1 --k 0",
        "train-sae",
        "fetch nothing-known",
        "erase japan",
        "erase japan --method magic --out edit.safetensors",
        "merge out.csv nowhere.csv",
        "merge out.csv table.csv",
        "attack 日本",
    ]
    return [(f"conceptlab {line}", lambda line=line: command(line)) for line in lines]
