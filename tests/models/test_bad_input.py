"""Degenerate input gets one fitting sentence before any work starts.

Run in a process of its own, without the checks of types that the other tests have: what a user sees.
"""

import json
import subprocess
import sys

import pytest

SCRIPT = (
    """
import json, math, sys, torch, transformers
from conceptlab.core import ConceptLabError
from conceptlab.models import *

folder = packaged_checkpoint("smollm2-135m")
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
config = transformers.LlamaConfig(
    hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, max_position_embeddings=32)
lm = LanguageModel("tiny", transformers.LlamaForCausalLM(config), tokenizer, "nowhere")
lm.hf.forward, lm._decoder.forward = (lambda *_, **__: 1 / 0), (lambda *_, **__: 1 / 0)  # nothing may be computed
ids, long = torch.tensor([[1, 5]]), torch.ones(1, 101, dtype=torch.long)
vectors = torch.ones(2, 16)
prefix = Prefix(tuple([5] * 30), None)
WORD = " a"
calls = dict(
"""
    + "{calls}"
    + """
)
found = {}
for name, call in calls.items():
    try:
        call()
        found[name] = ["nothing", ""]
    except Exception as error:
        found[name] = [type(error).__name__, str(error)]
print(json.dumps(found))
"""
)
# name -> (call, part of the sentence)
INPUTS = {
    "no_texts": ("lm.tokens([])", "No text was given; give at least one."),
    "no_texts_tuple": ("lm.tokens(())", "No text was given"),
    "empty_text": ("lm.tokens('')", "An empty text was given (number 0)"),
    "one_empty_text": ("lm.tokens(['a', ''])", "An empty text was given (number 1)"),
    "text_is_a_number": ("lm.tokens([3])", "A text was expected, got 3 (int)"),
    "text_is_none": ("lm.tokens(['a', None])", "A text was expected, got None (NoneType)"),
    "text_is_nan": ("lm.tokens([math.nan])", "A text was expected, got nan (float)"),
    "text_is_a_list": ("lm.tokens([['a', 'b']])", "A text was expected, got ['a', 'b'] (list)"),
    "text_is_bytes": ("lm.encode(b'abc')", "A text was expected, got b'abc' (bytes)"),
    "long_value_is_cut": ("lm.encode(list(range(1000)))", "..."),
    "n_ctx_0": ("lm.tokens('a', 0)", "n_ctx is the number of tokens that are kept, 1 or more; got 0."),
    "n_ctx_negative": ("lm.tokens('a', n_ctx=-1)", "1 or more; got -1."),
    "n_ctx_fraction": ("lm.tokens('a', 1.5)", "n_ctx must be a whole number, got 1.5 (float)."),
    "text_beyond_the_context": ("lm.tokens(WORD * 101)", "has 101 tokens and the context of tiny is 32; shorten"),
    "n_ctx_beyond_the_context": ("lm.tokens(WORD * 101, n_ctx=50)", "has 50 tokens and the context of tiny is 32"),
    "rows_beyond_the_context": ("lm.pad([[5] * 33])", "has 33 tokens and the context of tiny is 32"),
    "logits_beyond_the_context": ("lm.logits(long)", "has 101 tokens and the context of tiny is 32"),
    "capture_beyond_the_context": ("lm.capture(long, [('neurons', 0)])", "has 101 tokens and the context"),
    "hidden_beyond_the_context": ("lm.final_hidden(long)", "has 101 tokens and the context"),
    "embeds_beyond_the_context": ("lm.final_hidden(embeds=torch.zeros(1, 40, 16))", "has 40 tokens and the context"),
    "loss_beyond_the_context": ("next_token_loss(lm, long, long.bool())", "has 101 tokens and the context"),
    "prefix_beyond_the_context": ("shared_prefix(lm, WORD * 101)", "has 101 tokens and the context"),
    "branches_beyond_the_context": ("branch_logprobs(lm, prefix, [(WORD, [WORD, WORD * 2])])", "has 33 tokens and"),
    "states_beyond_the_context": ("branch_states(lm, prefix, [(WORD, [WORD * 2])], [('neurons', 0)])", "has 33 tokens"),
    "answer_beyond_the_context": ("greedy(lm, [WORD * 20], 13)", "has 33 tokens and the context"),
    "no_ids": ("lm.logits(torch.zeros(1, 0, dtype=torch.long))", "No token ids were given"),
    "no_rows_of_ids": ("lm.capture(torch.zeros(0, 3, dtype=torch.long), [('neurons', 0)])", "No token ids were given"),
    "neither_ids_nor_embeds": ("lm.final_hidden()", "final_hidden needs token ids or embeds"),
    "ids_out_of_range": ("lm.final_hidden(ids * 10**6)", "Token id 5000000 is out of range"),
    "negative_ids": ("lm.logits(-ids)", "Token id -5 is out of range"),
    "empty_row": ("lm.pad([[5], []])", "An empty text was given"),
    "no_rows": ("lm.pad([])", "An empty text was given"),
    "greedy_negative": ("greedy(lm, ['a'], -1)", "n_tokens of 1 or more"),
    "greedy_zero": ("greedy(lm, ['a'], 0)", "n_tokens of 1 or more"),
    "greedy_fraction": ("greedy(lm, ['a'], 2.5)", "n_tokens must be a whole number, got 2.5 (float)."),
    "greedy_no_prompts": ("greedy(lm, [], 2)", "greedy needs at least one prompt"),
    "greedy_empty_prompt": ("greedy(lm, ['a', ''], 2)", "every prompt a token"),
    "greedy_empty_row": ("greedy(lm, [[5], []], 2)", "every prompt a token"),
    "greedy_one_text": ("greedy(lm, 'abc', 2)", "put the one text into a list"),
    "greedy_bad_id": ("greedy(lm, [[5], [10**6]], 2)", "Token id 1000000 is out of range"),
    "layer_fraction": ("lm.value_vectors(1.5)", "A layer must be a whole number, got 1.5 (float)."),
    "layer_float": ("lm.mlp_output(1.0)", "A layer must be a whole number, got 1.0 (float)."),
    "layer_text": ("lm.down_proj('1')", "A layer must be a whole number, got '1' (str)."),
    "layer_none": ("lm.post_mlp_gain(None)", "A layer must be a whole number, got None (NoneType)."),
    "layer_bool": ("lm.value_vectors(True)", "A layer must be a whole number, got True (bool)."),
    "layer_tensor": ("lm.value_vectors(torch.tensor(0.5))", "A layer must be a whole number, got tensor(0.5000)"),
    "layer_list": ("lm.capture(ids, [('neurons', (0,))])", "A layer must be a whole number, got (0,) (tuple)."),
    "layer_too_large": ("lm.value_vectors(2)", "has layers 0 to 1; layer 2 does not exist"),
    "unknown_site": ("lm.capture(ids, [('mlp', 0)])", "Unknown site 'mlp'"),
    "empty_branch": ("branch_logprobs(lm, prefix, [(WORD, [WORD, ''])])", "has no tokens; stems and branches need"),
    "branch_of_spaces": ("branch_logprobs(lm, prefix, [(WORD, ['  '])])", "has no tokens; stems and branches need"),
    "no_branches": ("branch_logprobs(lm, prefix, [(WORD, [])])", "A stem without branches was given"),
    "empty_stem": ("branch_logprobs(lm, prefix, [('', [WORD])])", "has no tokens; stems and branches need"),
    "branch_is_a_number": ("branch_logprobs(lm, prefix, [(3, [WORD])])", "A text was expected, got 3 (int)"),
    "k_zero": ("project(lm, vectors, k=0)", "k must lie in 1 to 49152"),
    "k_fraction": ("project(lm, vectors, k=2.5)", "k must be a whole number, got 2.5 (float)."),
    "nan_vectors": ("project(lm, vectors * math.nan)", "holds values that are not finite; it has no top tokens."),
    "infinite_vectors": ("project(lm, vectors / 0)", "holds values that are not finite"),
    "device_unknown": ("load_model('smollm2-135m', device='tpu9')", "There is no device 'tpu9' here; there are cpu"),
    "device_of_another_kind": ("load_model('smollm2-135m', device='xla')", "There is no device 'xla' here"),
    "device_is_a_number": ("load_model('smollm2-135m', device=0)", "There is no device 0 here"),
    "dtype_of_integers": ("load_model('smollm2-135m', dtype=torch.int32)", "torch.int32 is no number type to compute"),
    "dtype_is_a_name": ("load_model('smollm2-135m', dtype='bf16')", "'bf16' is no number type to compute in"),
    "gguf_path": ("load_model('/models/a.Q4_K_M.gguf')", "is in the GGUF format, which load_model does not read"),
    "unknown_model": ("load_model('gpt-17')", "Unknown model 'gpt-17'; known are smollm2-135m"),
    "empty_name": ("load_model('')", "Unknown model ''; known are smollm2-135m"),
}  # fmt: skip


@pytest.fixture(scope="module")
def answers():
    calls = "\n".join(f"    {name}=lambda: {call}," for name, (call, _) in INPUTS.items())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{calls}", calls)], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", INPUTS)
def test_bad_input_gets_one_sentence(answers, name):
    kind, text = answers[name]
    assert kind == "ConceptLabError", f"{kind}: {text}"
    assert INPUTS[name][1] in text
    assert "\n" not in text and text.endswith(".") and len(text) < 500
