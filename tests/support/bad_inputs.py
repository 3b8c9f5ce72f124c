"""Bad input, and the sentence it gets: run as a script it prints the page `docs/bad_inputs.md` (`--write`: writes it).

Run in a process of its own, without the type checks of the tests: what a user sees. No call may reach the model.
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bad_inputs.md"
HEAD = """# Bad input

What the library says to input that it cannot use: one sentence, before any work is done. Every line was produced by
running it; `tests/test_bad_inputs.py` runs all of them again and compares. Write the page anew with
`python tests/support/bad_inputs.py --write`.

Here `lm` is a random Llama of two layers with SmolLM2's vocabulary and a context of 32 tokens, whose forward pass
raises, `ids` are two token ids, `q` is a question with two options, `sae` is a random dictionary of layer 0, and
`edit` is an edit of `lm`. A concept file is a small correct one with the change named.
"""
CONCEPT = """\
name: oxygen
title: Oxygen
words: [oxygen, ozone]
texts: {any: [oxygen, ozone], min_hits: 1}
questions:
  dev:
    - {id: a1, q: "What do fires need?", options: [oxygen, sand], answer: 0}
  test:
    - {id: a2, q: "What is O?", options: [a gas, an oxide], answer: 0}
neighbour:
  name: nitrogen
  title: Nitrogen
  words: [nitrogen]
  texts: {any: [nitrogen], min_hits: 1}
neighbour_questions:
  dev:
    - {id: b1, q: "What is N?", options: [a gas, a metal], answer: 0}
  test:
    - {id: b2, q: "What is in the air?", options: [gold, nitrogen], answer: 1}
"""


def tiny(**config):
    """A random model whose forward pass raises."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from conceptlab.models import LanguageModel, packaged_checkpoint

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(packaged_checkpoint("smollm2-135m"))
    cfg = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, max_position_embeddings=32, **config,
    )  # fmt: skip
    lm = LanguageModel("tiny", LlamaForCausalLM(cfg), tokenizer, "nowhere")

    def work(*_, **__):
        raise AssertionError("the model was run")

    lm.hf.forward = lm._decoder.forward = work
    return lm


def concept(old, new):
    """Load the small concept file with one change."""
    from conceptlab.data import load_concept

    assert CONCEPT.count(old) == 1, old
    Path("mine.yaml").write_text(CONCEPT.replace(old, new), encoding="utf-8")
    return load_concept("mine.yaml")


def raw(content):
    """Load a concept file of these bytes."""
    from conceptlab.data import load_concept

    Path("mine.yaml").write_bytes(content)
    return load_concept("mine.yaml")


def dictionary(**settings):
    """Load a dictionary in SAELens' layout with one setting changed."""
    import torch
    from safetensors.torch import save_file

    from conceptlab.sae import load_sae

    cfg = {"architecture": "standard", "d_in": 16, "d_sae": 64, "dtype": "float32", "model_name": "tiny",
           "hook_name": "blocks.0.mlp.hook_out", "apply_b_dec_to_input": True}  # fmt: skip
    Path("sae").mkdir(exist_ok=True)
    Path("sae/cfg.json").write_text(json.dumps(cfg | settings), encoding="utf-8")
    shapes = {"W_enc": (16, 64), "W_dec": (64, 16), "b_enc": (64,), "b_dec": (16,)}
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, "sae/sae_weights.safetensors")
    return load_sae("sae")


def command(line):
    """Run the command line; its message as the error that it was."""
    from conceptlab import cli
    from conceptlab.core import ConceptLabError

    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        status = cli.main(line.split())
    if status == 1:
        raise ConceptLabError(err.getvalue().strip().removeprefix("conceptlab: "))


def configured(kind):
    """A folder with the configuration of a model of another kind, and nothing else."""
    return written(f"{kind}/config.json", json.dumps({"model_type": kind})).parent


def table(**changes):
    """A finished table of one row, with some of its values changed."""
    row = {"experiment": "lab", "model": "tiny", "concept": "golf", "method": "pisces", "attack": "direct"}
    row |= {"budget": "0", "metric": "margin", "value": "0.1", "low": "0.0", "high": "0.2", "n": "4", "seed": "0"}
    row |= changes
    return written("table.csv", f"{','.join(row)}\n{','.join(row.values())}\n")


def written(path, text):
    """`path`, with that text in it."""
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def mixture_folder():
    """A folder with the configuration of a mixture of experts."""
    from transformers import Qwen3MoeConfig

    Qwen3MoeConfig(
        hidden_size=16, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, vocab_size=64, num_experts=4, architectures=["Qwen3MoeForCausalLM"],
    ).save_pretrained("mixture")  # fmt: skip
    return "mixture"


def answers():
    """[(section, what, kind of the error, its sentence)], in a folder of its own."""
    from bad_inputs_list import sections

    found = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for section, calls in sections():
            for what, call in calls:
                kind, text = "nothing", ""
                try:
                    call()
                except Exception as error:
                    kind, text = type(error).__name__, str(error)
                for place in (os.path.realpath(folder), folder):
                    text = text.replace(f"{place}/", "").replace(place, ".")
                text = re.sub(r"\b[0-9a-f]{16}\b", "0123456789abcdef", text)  # fingerprints of random weights
                text = re.sub(r"there are cpu[^.]*", "there are cpu", text)  # or more, on other machines
                found.append((section, what, kind, text))
    return found


def page(found):
    """The page in Markdown."""
    lines, last = [HEAD], None
    for section, what, kind, text in found:
        if section != last:
            lines += ["" if last else None, f"## {section}\n", "| input | answer |", "|---|---|"]
            last = section
        marked = "" if kind == "ConceptLabError" else " *(a result, not a failure)*"
        lines.append(f"| `{what}` | {_cell(text)}{marked} |")
    return "\n".join(x for x in lines if x is not None) + "\n"


def _cell(text):
    for mark in "\\|<>*_[]":
        text = text.replace(mark, f"\\{mark}")
    return text


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.modules["bad_inputs"] = sys.modules["__main__"]
    results = answers()
    if "--write" in sys.argv:
        PAGE.write_text(page(results), encoding="utf-8")
    print(json.dumps({"found": results, "page": page(results)}))
