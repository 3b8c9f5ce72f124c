"""The other side of bench_gcg: `gcg_peer.py TASK.json` times nanogcg, once per line on stdin.

A run of one step is subtracted from a run of more, so that its set-up (which reads the whole vocabulary) does not
count.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path

import nanogcg
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(task: dict) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the peer prints does not get among the answers
    logging.getLogger("nanogcg").setLevel(logging.ERROR)
    model = AutoModelForCausalLM.from_pretrained(task["model"]).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    tokenizer.chat_template = "{{ messages[0]['content'] }}"  # the prompt as it is
    prompt = task["prompt"] + "{optim_str}" + task["cue"]

    def seconds(steps: int) -> float:
        cfg = nanogcg.GCGConfig(
            num_steps=steps, optim_str_init=task["suffix"], search_width=task["width"], batch_size=task["width"],
            topk=64, seed=0, use_prefix_cache=False, add_space_before_target=False, verbosity="ERROR",
        )  # fmt: skip
        began = time.perf_counter()
        nanogcg.run(model, tokenizer, prompt, task["target"], cfg)
        return time.perf_counter() - began

    for _ in sys.stdin:
        took = seconds(1 + task["steps"]) - seconds(1)
        answers.write(json.dumps({"candidates_per_second": task["steps"] * task["width"] / took}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
