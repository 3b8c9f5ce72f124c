"""Language models behind one small interface.

With its helpers (`checkpoints`: loading; `sites`: reading and changing activations) this is the only module that knows
an architecture, or the API of transformers and TransformerLens.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core import ConceptLabError
from .changes import Change, Changes
from .fingerprint import fingerprint
from .registry import HUB, PACKAGED, from_folder_or_hub, known_models, packaged_checkpoint, quiet_transformers
from .sites import Hooked, as_long, norm_gain


class LanguageModel(Hooked):
    """A decoder-only transformer: weights, tokenizer, and named places to read and write.

    Made by `load_model`. Weights are frozen unless a training routine asks for gradients.
    """

    def __init__(self, name: str, hf: nn.Module, tokenizer, path: str):
        self.name, self.hf, self.tokenizer, self.path = name, hf.eval(), tokenizer, path
        self._decoder = hf.get_decoder()
        self._printed: tuple[dict, str] | None = None  # state of each weight at the last fingerprint, and what it was
        self.changes = Changes(self)  # what is on the model at the moment
        self._blocks = getattr(self._decoder, "layers", None)
        if not self._blocks or not hasattr(getattr(self._blocks[0], "mlp", None), "down_proj"):
            raise ConceptLabError(
                f"{name} is a {type(hf).__name__}, whose MLP layers have no down_proj; Concept Lab handles "
                "Llama-, Gemma-2/3-, Qwen- and OLMo-type decoders."
            )
        for parameter in hf.parameters():
            parameter.requires_grad_(False)

    def __repr__(self) -> str:
        size = sum(p.numel() for p in self.hf.parameters()) / 1e6
        return (
            f"LanguageModel({self.name}: {size:.0f}M parameters, n_layers={self.n_layers}, d_model={self.d_model}, "
            f"d_mlp={self.d_mlp}, d_vocab={self.d_vocab}, {self.dtype}, {self.device})"
        )

    # ---- sizes --------------------------------------------------------------------------------------
    @property
    def n_layers(self) -> int:
        return len(self._blocks)

    @property
    def d_model(self) -> int:
        return self._blocks[0].mlp.down_proj.weight.shape[0]

    @property
    def d_mlp(self) -> int:
        return self._blocks[0].mlp.down_proj.weight.shape[1]

    @property
    def d_vocab(self) -> int:
        return self.hf.get_output_embeddings().weight.shape[0]

    @property
    def device(self) -> torch.device:
        return self._blocks[0].mlp.down_proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self._blocks[0].mlp.down_proj.weight.dtype

    @cached_property
    def bridge(self):
        """A TransformerLens `TransformerBridge` over the same parameters (an edit of one is seen by the other).

        The module tree is copied first because the bridge replaces modules in place.
        """
        with quiet_transformers():
            from transformer_lens.model_bridge import TransformerBridge

            shared = {id(p): p for p in self.hf.parameters()}
            tree = copy.deepcopy(self.hf, shared)
            bridge = TransformerBridge.boot_transformers(
                self.path, hf_model=tree, tokenizer=self.tokenizer, device=str(self.device)
            )
        return bridge.eval()

    # ---- weights ------------------------------------------------------------------------------------
    def check_layer(self, layer: int) -> int:
        """`layer` as a non-negative index. Raises when the model has no such layer."""
        if not -self.n_layers <= layer < self.n_layers:
            raise ConceptLabError(f"{self.name} has layers 0 to {self.n_layers - 1}; layer {layer} does not exist.")
        return layer % self.n_layers

    def down_proj_name(self, layer: int) -> str:
        """Name, in `hf.named_parameters()`, of the raw down projection `[d_model, d_mlp]` of a layer."""
        weight = self._blocks[self.check_layer(layer)].mlp.down_proj.weight
        return next(name for name, p in self.hf.named_parameters() if p is weight)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by its name in transformers; shared ones (tied embeddings) once, under the embedding's."""
        found, seen = {}, set()

        def walk(prefix: str, module: nn.Module) -> None:  # as `named_parameters` does, at a fifth of its time: every
            for name, p in module._parameters.items():  # edit that is applied comes past here
                if p is not None and id(p) not in seen:
                    seen.add(id(p))
                    found[prefix + name] = p
            for name, child in module._modules.items():
                if child is not None:
                    walk(f"{prefix}{name}.", child)

        walk("", self.hf)
        return found

    def fingerprint(self) -> str:
        """Which weights these are now: 16 hexadecimal digits, others inside an edit, the same again after it.

        Keys every cache, harvest, edit and table; no name or path enters. Computed once per state of the weights
        (0.1 s for 135 M of them on a CPU), known again by the version counters that torch keeps.
        """
        weights = self._printable()
        state = {p.data_ptr(): p._version for p in weights.values()}
        if self._printed is None or self._printed[0] != state:
            self._printed = state, fingerprint(weights)
        return self._printed[1]

    def fingerprint_with(self, instead: Mapping[str, Tensor]) -> str:
        """What `fingerprint` would be if some parameters were these tensors."""
        weights = self._printable()
        return fingerprint(weights | {name: x.to(weights[name]) for name, x in instead.items()})

    def _printable(self) -> dict[str, Tensor]:
        weights = self.parameters()
        if not self.is_tied:
            weights["unembedding"] = self.hf.get_output_embeddings().weight
        return weights

    def weights_are_back(self, parameter: nn.Parameter, state: tuple[int, int]) -> None:
        """`parameter` has again the bits that it had at `state` (its address and torch's version counter)."""
        if self._printed is not None and self._printed[0].get(state[0]) == state[1]:
            self._printed[0][parameter.data_ptr()] = parameter._version

    def restore(self) -> list[str]:
        """Take off every change that is still on the model, the last first, and say what they were."""
        return self.changes.clear()

    def linear(self, name: str) -> nn.Module:
        """The module whose weight has this name."""
        return self.hf.get_submodule(name.removesuffix(".weight"))

    def embedding(self) -> Float[Tensor, "d_vocab d_model"]:
        """The rows of the token embedding, not copied."""
        return self.hf.get_input_embeddings().weight.detach()

    def embed(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch d_model"]:
        """What the first block reads for token ids (scaled where the model scales its embeddings)."""
        return self.hf.get_input_embeddings()(ids)

    @property
    def is_tied(self) -> bool:
        """Whether the unembedding is the same weights as the embedding, at this moment."""
        return self.hf.get_output_embeddings().weight is self.hf.get_input_embeddings().weight

    def embedding_name(self) -> str:
        """Name of the token embedding `[d_vocab, d_model]`; tied models use it for the unembedding as well."""
        weight = self.hf.get_input_embeddings().weight
        return next(name for name, p in self.hf.named_parameters() if p is weight)

    def down_proj(self, layer: int) -> Float[Tensor, "d_mlp d_model"]:
        """Rows written by the neurons of a layer *before* any norm after the MLP: the space of `mlp_output`."""
        return self._blocks[self.check_layer(layer)].mlp.down_proj.weight.detach().T

    def post_mlp_gain(self, layer: int) -> Float[Tensor, " d_model"]:
        """Gain of the norm between MLP and residual stream (Gemma, OLMo 2); ones where there is none."""
        norm = self._post_mlp_norm(self.check_layer(layer))
        return norm_gain(norm, self.d_model, self.device, self.dtype)

    def final_gain(self) -> Float[Tensor, " d_model"]:
        """Gain of the norm before the unembedding."""
        return norm_gain(self._decoder.norm, self.d_model, self.device, self.dtype)

    def value_vectors(self, layer: int) -> Float[Tensor, "d_mlp d_model"]:
        """What each neuron of a layer adds to the residual stream per unit of activation.

        Row j is `v_j` in `contribution = sum_j neurons_j v_j`; where a norm follows the MLP its gain is included
        and the sum is divided by `rms(mlp_output)`, the same number for all neurons of a token.
        """
        return self.down_proj(layer) * self.post_mlp_gain(layer)

    def weight_delta(self, layer: int, value_delta: Float[Tensor, "n d_model"]) -> Float[Tensor, "d_model n"]:
        """The change of columns of the raw down projection that changes value vectors by `value_delta`.

        Where the gain after the MLP is exactly 0 (a few dimensions of Gemma) the MLP cannot write: no change there.
        """
        gain = self.post_mlp_gain(layer).to(value_delta)
        return torch.where(gain == 0, 0.0, value_delta / gain).T

    def unembedding(self) -> Float[Tensor, "d_vocab d_model"]:
        """The unembedding with the final norm's gain folded in (a new tensor: 0.1 GB for SmolLM2, 0.7 for Gemma)."""
        return self.unembedding_rows() * self.final_gain()

    def unembedding_rows(self) -> Float[Tensor, "d_vocab d_model"]:
        """The raw unembedding, not copied. Fold the gain into the vectors instead: `(v * final_gain()) @ rows.T`."""
        return self.hf.get_output_embeddings().weight.detach()

    def mlp_output(self, layer: int) -> str:
        """Hook point, in TransformerLens' names, that the SAEs of this project read: before any post-MLP norm."""
        return f"blocks.{self.check_layer(layer)}.mlp.hook_out"

    def untied(self) -> Change:
        """Inside the block the unembedding has weights of its own, a copy of the embedding's; then they are one again.

        Nothing happens where a model does not share them. `bridge` goes on reading the shared weights.
        """
        return Change(self, "untied embeddings", self.untie)

    def untie(self, change: Change) -> None:
        """Give the unembedding weights of its own until `change` is taken off."""
        head, config = self.hf.get_output_embeddings(), self.hf.config
        shared, tied = head.weight, config.tie_word_embeddings
        if not self.is_tied:
            return
        alone = nn.Parameter(shared.detach().clone(), requires_grad=False)

        def tie() -> None:
            head.weight, config.tie_word_embeddings = shared, tied
            if self._printed is not None and alone.data_ptr() in self._printed[0]:
                self._printed = None  # the address will be used again, for other bits

        change.then(tie)
        head.weight, config.tie_word_embeddings = alone, False

    def save(self, folder: str | Path, edited: bool = False) -> None:
        """Write the model as it was loaded, and its tokenizer: a folder that plain transformers loads.

        Raises ConceptLabError while the weights are changed; `edited=True` writes them with the changes that are on.
        """
        if not edited:
            self.check_unchanged("saved")
        with quiet_transformers():
            self.hf.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def check_unchanged(self, what: str) -> None:
        """Raise ConceptLabError while a change is on the model; `what`: "saved", "exported"."""
        if len(self.changes):
            raise ConceptLabError(
                f"{self.name} cannot be {what} while changes are on it ({', '.join(c.what for c in self.changes)}), "
                "which would be in it twice once they are applied again; leave their blocks first."
            )

    # ---- tokens -------------------------------------------------------------------------------------
    def tokens(
        self, texts: str | Sequence[str], n_ctx: int | None = None
    ) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """Token ids (the tokenizer's own start token included, if it has one) and mask, padded on the right."""
        rows = self.tokenizer([texts] if isinstance(texts, str) else list(texts)).input_ids
        rows = [row[:n_ctx] for row in rows]
        return self.pad(rows)

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """Right-padded ids and mask of rows of token ids. Causal attention never looks at right padding."""
        if not rows or not all(rows):
            raise ConceptLabError("An empty text was given; every text needs at least one token.")
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.as_tensor(row)
            mask[i, : len(row)] = True
        return self._check_ids(ids).to(self.device), mask.to(self.device)

    def single_token(self, word: str) -> int:
        """Id of `word` written with a leading space. Raises when it is several tokens."""
        ids = self.tokenizer(" " + word.strip(), add_special_tokens=False).input_ids
        if len(ids) != 1:
            pieces = " + ".join(repr(self.tokenizer.decode([i])) for i in ids)
            raise ConceptLabError(
                f"{word!r} is {len(ids)} tokens for {self.name} ({pieces}); choose a word that is a single token."
            )
        return ids[0]

    def single_tokens(self, words: Iterable[str]) -> dict[str, int]:
        """word -> id for those words that are one token (with a leading space); the others are left out."""
        found = {}
        for word in words:
            ids = self.tokenizer(" " + word.strip(), add_special_tokens=False).input_ids
            if len(ids) == 1:
                found[word] = ids[0]
        return found

    def words(self, ids: Iterable[int] | Tensor) -> list[str]:
        """Readable strings of token ids."""
        return [self.tokenizer.decode([int(i)]) for i in ids]

    # ---- forward passes -----------------------------------------------------------------------------
    @torch.no_grad()
    def logits(
        self, ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Next-token logits at every position."""
        return self.hf(self._check_ids(ids).to(self.device), attention_mask=as_long(mask), use_cache=False).logits

    def final_hidden(
        self,
        ids: Int[Tensor, "batch pos"] | None = None,
        mask: Bool[Tensor, "batch pos"] | None = None,
        *,
        embeds: Float[Tensor, "batch pos d_model"] | None = None,
        past=None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Normalised final hidden states, ready for `head`; with gradients where they are on.

        `embeds` replaces `ids` (as `embed` returns them); `past`: keys and values of what stands before.
        """
        words = {"input_ids": ids} if embeds is None else {"inputs_embeds": embeds}
        kept = {"use_cache": False} if past is None else {"use_cache": True, "past_key_values": past}
        return self._decoder(**words, attention_mask=as_long(mask), **kept).last_hidden_state

    def head(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits of final, already normalised hidden states (soft cap included where the model has one)."""
        logits = self.hf.get_output_embeddings()(hidden)
        cap = getattr(self.hf.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def readout(self, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits of a residual stream before the final norm; at an inner layer that is the logit lens."""
        return self.head(self._decoder.norm(resid))

    @torch.no_grad()
    def generate(self, prompt: str, n_tokens: int = 30) -> str:
        """Greedy continuation of `prompt` (the new text alone)."""
        ids, mask = self.tokens(prompt)
        with quiet_transformers():
            out = self.hf.generate(ids, attention_mask=as_long(mask), max_new_tokens=n_tokens, do_sample=False)
        return self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    def _check_ids(self, ids: Tensor) -> Tensor:
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.d_vocab:
            wrong = low if low < 0 else high
            raise ConceptLabError(f"Token id {wrong} is out of range; {self.name} has ids 0 to {self.d_vocab - 1}.")
        return ids


def load_model(
    name: str | Path = "smollm2-135m", *, device: str | None = None, dtype: torch.dtype | None = None
) -> LanguageModel:
    """Load a model by registry name, local folder or Hub id.

    Packaged models (`smollm2-135m`, `gemma3-270m`) come from pinned registry packages, are checked by SHA-256 and
    converted once into the cache; later calls take a few seconds. Everything else goes to transformers.
    `device`: "cpu" or "cuda" (default: cuda where there is one); `dtype`: default float32 on CPU, bfloat16 on CUDA.
    Raises ConceptLabError for an unknown name, a missing package, a wrong checksum, or a Hub that cannot be reached.
    """
    name = str(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConceptLabError(f"There is no GPU that torch can use here; load {name} with device='cpu'.")
    dtype = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
    if name in PACKAGED:
        path = str(packaged_checkpoint(name))
    else:
        path = HUB.get(name) or str(Path(name).expanduser())
        if not Path(path).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
            raise ConceptLabError(
                f"Unknown model {name!r}; known are {', '.join(known_models())}, or give a local folder that exists "
                "or a Hub id such as 'owner/name'."
            )
    hf, tokenizer = from_folder_or_hub(name, path, dtype)
    return LanguageModel(name, hf.to(device), tokenizer, path)
