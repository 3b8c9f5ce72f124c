"""All four widgets in a real JupyterLab, pressed in a headless Chromium."""

import importlib.util
import os

import nbformat
import pytest

if importlib.util.find_spec("websocket") is None or importlib.util.find_spec("jupyterlab") is None:
    pytest.skip("needs jupyterlab and its websocket-client", allow_module_level=True)
from chromium import FOUND, WHY_SKIPPED, Chromium
from jupyter import JupyterLab

pytestmark = pytest.mark.skipif(FOUND is None, reason=WHY_SKIPPED)

MODEL = """
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from conceptlab import sae as S
from conceptlab.course import widgets
from conceptlab.course.widgets import attacking
from conceptlab.data import load_concept
from conceptlab.erasure import Feature, pisces_edit
from conceptlab.models import LanguageModel, packaged_checkpoint
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(packaged_checkpoint("smollm2-135m"))
cfg = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                  num_key_value_heads=2, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2)
lm = LanguageModel("tiny-llama", LlamaForCausalLM(cfg), tokenizer, "")
sae = S.TopKSAE(S.SAEConfig("topk", lm.d_model, 40, 2, lm.name, 1, lm.mlp_output(1))).requires_grad_(False)
golf, saes, places = load_concept("golf"), {1: sae}, [Feature(1, 3)]
attacking.known_questions = lambda lm, concept, n, split: golf.dev[:n]  # a random model knows none
"""
SLOW = """
import time
from conceptlab.course.widgets import Panel
def slow():
    for _ in range(600):
        time.sleep(0.1)
    return "<p>done</p>"
Panel({}, slow, "Wait", start=False)
"""
CELLS = {
    "explorer": "widgets.vector_explorer(lm)",
    "erase": "erasing = widgets.erasure_desk(lm, saes, {'Golf': (golf, places)})\nerasing",
    "attack": "edits = {'original': None, 'erased': pisces_edit(lm, saes, places, 0.5, 16.0)}\n"
    "widgets.attack_desk(lm, edits, golf)",
    "browse": "from conceptlab.autointerp import read_labels\n"
    "widgets.FeatureBrowser(read_labels('smollm2-135m', 6), words='river')",
    "slow": SLOW,
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The notebook, run to its end in the browser."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (MODEL, *CELLS.values())])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "widgets.ipynb")
    path = os.pathsep.join(p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p)
    with JupyterLab(folder, {"PYTHONPATH": path}) as lab, Chromium() as chromium:
        page = chromium.open(lab.address("widgets.ipynb"))
        page.wait_for("window.jupyterapp && document.querySelectorAll('.jp-CodeCell').length >= 6", 180)
        page.evaluate("jupyterapp.restored.then(() => true)")
        opened = "[...jupyterapp.shell.widgets('main')][0]"
        page.wait_for(f"!!{opened}?.sessionContext?.session?.kernel", 180)
        page.send("Emulation.setFocusEmulationEnabled", enabled=True)  # what has the focus is what a command is for
        page.evaluate(f"{opened}.content.node.focus(); jupyterapp.shell.activateById({opened}.id)")
        page.wait_for("!!jupyterapp.shell.currentWidget")
        page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")
        page.wait_for("document.querySelectorAll('.widget-box button, .widget-vbox button').length >= 4", 900)
        yield page


def pressed(page, caption):
    """Click the button of this caption; its panel, as an expression of the page."""
    panel = (
        "[...document.querySelectorAll('.jp-OutputArea-output')].find(o => [...o.querySelectorAll('button')]"
        f".some(b => b.textContent.trim() === '{caption}'))"
    )
    page.evaluate(f"[...{panel}.querySelectorAll('button')].find(b => b.textContent.trim() === '{caption}').click()")
    return panel


def typed(page, panel, place, text):
    """Write into the number field `place` of a panel and leave it."""
    page.evaluate(
        f"(() => {{ const field = [...{panel}.querySelectorAll('input')][{place}]; field.focus(); "
        f"field.value = '{text}'; for (const e of ['input', 'change']) field.dispatchEvent(new Event(e, "
        "{bubbles: true})); field.blur(); return true; })()"
    )


def test_the_vector_explorer_draws_at_once(page):
    page.wait_for("[...document.querySelectorAll('.jp-OutputArea-output img')].some(i => i.naturalWidth > 300)", 120)


def test_the_erasure_desk_erases_and_refuses_in_place(page):
    panel = pressed(page, "Erase")
    page.wait_for(f"[...{panel}.querySelectorAll('img')].some(i => i.naturalWidth > 300)", 120)
    page.wait_for(f"{panel}.querySelectorAll('table tr').length > 3", 60)
    labels = page.evaluate(f"[...{panel}.querySelectorAll('label')].map(l => l.textContent)")
    assert {"concept", "method", "further features", "mu (strength)"} <= set(labels)
    assert any("1:3 (no label)" in label for label in labels), "a box to tick per feature"
    fields = page.evaluate(f"[...{panel}.querySelectorAll('input')].map(i => i.value)")
    typed(page, panel, fields.index("16"), "-3")
    pressed(page, "Erase")
    page.wait_for(f"/mu is the strength/.test({panel}.textContent)", 60)
    shown = f"[...{panel}.querySelectorAll('img')].some(i => i.offsetParent && i.naturalWidth > 300)"
    assert not page.evaluate(shown), "the stale figure is gone"


def test_the_attack_desk_attacks(page):
    panel = pressed(page, "Attack")
    page.wait_for(f"[...{panel}.querySelectorAll('img')].some(i => i.naturalWidth > 300)", 240)
    assert page.evaluate(f"/asks nothing/.test({panel}.textContent)")


def test_the_feature_browser_goes_on(page):
    panel = pressed(page, "next hit")
    page.wait_for(f"/hit 2 of/.test({panel}.textContent)", 60)
    pressed(page, "any feature")
    page.wait_for(f"!/hit 2 of/.test({panel}.textContent)", 60)


def test_controls_are_reached_by_the_keyboard(page):
    within = "document.querySelectorAll('.widget-box input, .widget-box select, .widget-box button')"
    assert page.evaluate(f"[...{within}].filter(e => e.offsetParent).every(e => e.tabIndex >= 0)")


def test_long_work_shows_its_seconds_and_the_kernel_s_square_stops_it(page):
    panel = pressed(page, "Wait")
    page.wait_for(f"/Working, [1-9]\\d* s/.test({panel}.textContent)", 60)
    page.evaluate("jupyterapp.commands.execute('notebook:interrupt-kernel').then(() => true)")
    page.wait_for(f"/Stopped; nothing was changed/.test({panel}.textContent)", 30)
    assert not page.evaluate(f"/Working|done/.test({panel}.textContent)")
