"""Shared fixtures. conceptlab is imported inside them, after the jaxtyping import hook is in place."""

import signal
from copy import deepcopy

import pytest

# A shell that starts the tests in the background makes them ignore Ctrl-C, and so would every process they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M. Tests must leave it as they found it."""
    from conceptlab.models import load_model

    return load_model("smollm2-135m")


@pytest.fixture(scope="session")
def gemma3():
    """Gemma-3-270M. Tests must leave it as they found it."""
    from conceptlab.models import load_model

    return load_model("gemma3-270m")


@pytest.fixture(scope="session", params=["smollm2-135m", "gemma3-270m"])
def bundled(request):
    """Both bundled models, one after the other."""
    return request.getfixturevalue({"smollm2-135m": "smollm2", "gemma3-270m": "gemma3"}[request.param])


@pytest.fixture(scope="session")
def smollm2_tokenizer():
    """SmolLM2's tokenizer, read once a process and before a test has a cache folder of its own; take copies of it."""
    from transformers import AutoTokenizer

    from conceptlab.models import packaged_checkpoint

    return AutoTokenizer.from_pretrained(packaged_checkpoint("smollm2-135m"))


@pytest.fixture
def tiny_llama(tmp_path, smollm2_tokenizer):
    """Factory: a random two-layer Llama with SmolLM2's tokenizer, as a LanguageModel. Loads in a second."""

    def make(d_model: int = 16, n_layers: int = 2, seed: int = 0, **config):
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from conceptlab.models import LanguageModel

        torch.manual_seed(seed)
        tokenizer = deepcopy(smollm2_tokenizer)
        cfg = LlamaConfig(
            hidden_size=d_model, intermediate_size=2 * d_model, num_hidden_layers=n_layers, num_attention_heads=2,
            num_key_value_heads=2, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, **config,
        )  # fmt: skip
        return LanguageModel("tiny-llama", LlamaForCausalLM(cfg), tokenizer, str(tmp_path))

    return make


@pytest.fixture
def tiny_gemma2(tmp_path, smollm2_tokenizer):
    """Factory: a random narrow Gemma-2 with SmolLM2's tokenizer, as a LanguageModel of the name given."""

    def make(name: str = "gemma-2-tiny", n_layers: int = 2, **config):
        import torch
        from transformers import Gemma2Config, Gemma2ForCausalLM

        from conceptlab.models import LanguageModel

        torch.manual_seed(0)
        tokenizer = deepcopy(smollm2_tokenizer)
        cfg = Gemma2Config(
            hidden_size=16, intermediate_size=32, num_hidden_layers=n_layers, num_attention_heads=2,
            num_key_value_heads=2, head_dim=8, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, **config,
        )  # fmt: skip
        return LanguageModel(name, Gemma2ForCausalLM(cfg), tokenizer, str(tmp_path))

    return make


@pytest.fixture
def saes(lm):
    """Random dictionaries of both layers of the module's own `lm`, a `tiny_llama`."""
    from dictionaries import make_sae

    return {layer: make_sae(lm, layer) for layer in (0, 1)}


@pytest.fixture
def built(tmp_path, tiny_llama, monkeypatch):
    """How the dictionaries of a tiny model are built (again), with the settings of the shipped ones scaled down."""
    from conceptlab import sae as S
    from conceptlab.sae import shipped
    from sentences import sentences

    lm = tiny_llama()  # its tokenizer comes from the usual cache
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    settings = {
        "N_CTX": 32,
        "TRAINING": {lm.name: S.TrainConfig(d_sae=64, k=4, steps=30, batch_size=64, lr=1e-2)},
        "STORAGE": "int8",
        "SHIPPED": {lm.name: (0, 1)},
        "CANDIDATES": {lm.name: (0, 1)},
        "mixture": lambda: (sentences(60, 0), sentences(12, 1)),
    }
    for name, value in settings.items():
        monkeypatch.setattr(shipped, name, value)
    return lm, lambda layers=None: shipped.build_shipped(lm, layers, tmp_path / "saes", progress=False)


@pytest.fixture
def encoder_folder(tmp_path):
    """A random two-layer BERT with a vocabulary of nine words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "river", "nile", "gold", "king", "the", "."]
    folder = tmp_path / "encoder"
    torch.manual_seed(0)
    cfg = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        initializer_range=0.5,
    )  # fmt: skip
    BertModel(cfg).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    return folder
