"""Language models behind one small interface.

With its helpers (`tokens`: texts; `sites`: reading and changing activations; `load`: where models come from) this is
the only module that knows an architecture, or the API of transformers and TransformerLens.
"""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core import ConceptLabError
from .architecture import check_structure
from .changes import Change, Changes
from .compute import Memory, memory_needed
from .guards import Readers
from .identity import Identified
from .registry import quiet_transformers
from .sites import Hooked, as_long, norm_gain, takes_mean_out


class LanguageModel(Hooked, Identified):
    """A decoder-only transformer: weights, tokenizer, and named places to read and write.

    Made by `load_model`. Weights are frozen unless a training routine asks for gradients.
    """

    def __init__(self, name: str, hf: Any, tokenizer: Any, path: str):
        self.name, self.hf, self.tokenizer, self.path = name, hf.eval(), tokenizer, path
        check_structure(name, hf)
        self._decoder = hf.get_decoder()
        self._blocks = self._decoder.layers
        self.changes = Changes(self)  # what is on the model at the moment
        self.readers = Readers()  # what run-time methods are told of the prompts
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
    def d_model(self) -> int:
        return self._blocks[0].mlp.down_proj.weight.shape[0]

    @property
    def d_mlp(self) -> int:
        return self._blocks[0].mlp.down_proj.weight.shape[1]

    @property
    def d_vocab(self) -> int:
        return self.hf.get_output_embeddings().weight.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self._blocks[0].mlp.down_proj.weight.dtype

    def memory(self) -> Memory:
        """What it takes, by the estimate that is made before a model is loaded."""
        return memory_needed(self.hf, self.dtype)

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
    def down_proj_name(self, layer: int) -> str:
        """Name, in `hf.named_parameters()`, of the raw down projection `[d_model, d_mlp]` of a layer."""
        weight = self._blocks[self.check_layer(layer)].mlp.down_proj.weight
        return next(name for name, p in self.hf.named_parameters() if p is weight)

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
        """What `final_hidden(embeds=...)` takes in place of token ids; a few models scale it before the first block."""
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
        """Gain between MLP and residual stream: a norm's (Gemma, OLMo 2), a multiplier (Granite), or ones."""
        norm, scale = self.post_mlp_norm(layer), self._multiplier(self.check_layer(layer))
        return norm_gain(norm, self.d_model, self.device, self.dtype) * scale

    def pre_mlp_gain(self, layer: int) -> Float[Tensor, " d_model"]:
        """Gain of the norm whose output the MLP reads."""
        norm = self._pre_mlp_norm(self.check_layer(layer))
        return norm_gain(norm, self.d_model, self.device, self.dtype)

    def final_gain(self) -> Float[Tensor, " d_model"]:
        """Gain of the norm before the unembedding."""
        return norm_gain(self._decoder.norm, self.d_model, self.device, self.dtype)

    def folded(self, vectors: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Directions as the final norm hands them to the unembedding, up to the positive scale of a token's norm.

        Multiplied by the gain; before that, where the norm takes the mean out (a LayerNorm: OLMo 1, Cohere), centred.
        """
        vectors = vectors.to(self.device)
        if takes_mean_out(self._decoder.norm, self.d_model, self.device, self.dtype):
            vectors = vectors - vectors.mean(-1, keepdim=True)
        return vectors * self.final_gain()

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
        """The unembedding with the final norm's gain folded in (a new tensor: 0.1 GB for SmolLM2, 0.7 for Gemma).

        `v @ unembedding().T` is `folded(v) @ unembedding_rows().T`.
        """
        rows = self.unembedding_rows() * self.final_gain()
        centred = takes_mean_out(self._decoder.norm, self.d_model, self.device, self.dtype)
        return rows - rows.mean(-1, keepdim=True) if centred else rows

    def unembedding_rows(self) -> Float[Tensor, "d_vocab d_model"]:
        """The raw unembedding, not copied. Fold the norm into the vectors instead: `folded(v) @ rows.T`."""
        return self.hf.get_output_embeddings().weight.detach()

    def mlp_output(self, layer: int) -> str:
        """Hook point, in TransformerLens' names, that the SAEs of this project read: before any post-MLP norm."""
        return f"blocks.{self.check_layer(layer)}.mlp.hook_out"

    def untie(self, change: Change) -> None:
        """Give the unembedding weights of its own, a copy of the embedding's, until `change` is taken off.

        Nothing happens where a model does not share them. `bridge` goes on reading the shared weights.
        """
        head, config = self.hf.get_output_embeddings(), self.hf.config
        shared, tied = head.weight, config.tie_word_embeddings
        if not self.is_tied:
            return
        alone = nn.Parameter(shared.detach().clone(), requires_grad=False)

        def tie() -> None:
            head.weight, config.tie_word_embeddings = shared, tied
            self.forget(alone)

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

    # ---- forward passes -----------------------------------------------------------------------------
    @torch.no_grad()
    def logits(
        self, ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Next-token logits at every position."""
        return self.hf(self.check_ids(ids).to(self.device), attention_mask=as_long(mask), use_cache=False).logits

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
        before = 0 if past is None else past.get_seq_length()
        if embeds is not None:
            words, n_new = {"inputs_embeds": embeds}, embeds.shape[-2]
        elif ids is not None:
            words, n_new = {"input_ids": self.check_ids(ids).to(self.device)}, ids.shape[-1]
        else:
            raise ConceptLabError("final_hidden needs token ids or embeds; neither was given.")
        self.check_length(before + n_new)
        kept = {"use_cache": False} if past is None else {"use_cache": True, "past_key_values": past}
        return self._decoder(**words, attention_mask=as_long(mask), **kept).last_hidden_state

    def head(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits of final, already normalised hidden states (scale and soft cap included where the model has them)."""
        logits = self.hf.get_output_embeddings()(hidden)
        if self._logit_scale != 1:
            logits = logits * self._logit_scale
        cap = getattr(self.hf.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    @property
    def _logit_scale(self) -> float:
        """Cohere multiplies its logits by `logit_scale`, Granite and MiniCPM divide theirs by `logits_scaling`."""
        config = self.hf.config.get_text_config()
        return (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)

    def readout(self, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits of a residual stream before the final norm; at an inner layer that is the logit lens."""
        return self.head(self._decoder.norm(resid))
