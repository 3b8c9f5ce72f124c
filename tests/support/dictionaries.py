"""Random dictionaries of tiny models, and the published edit row by row."""

import torch

from conceptlab.sae import SAEConfig, TopKSAE


def make_sae(lm, layer, d_sae=24, k=6, seed=0, dtype=torch.float32):
    """A random dictionary with biases, unit rows and an encoder that is not the decoder's transpose."""
    sae = TopKSAE(SAEConfig("topk", lm.d_model, d_sae, k, lm.name, layer, lm.mlp_output(layer)), seed + layer)
    generator = torch.Generator().manual_seed(seed + 100 + layer)
    with torch.no_grad():
        sae.W_enc.add_(0.3 * torch.randn(sae.W_enc.shape, generator=generator))
        sae.b_enc.copy_(0.01 * torch.randn(d_sae, generator=generator).abs())
        sae.b_dec.copy_(0.01 * torch.randn(lm.d_model, generator=generator))
    sae = sae.to(dtype).requires_grad_(False)
    if dtype == torch.float64:  # the rows have norm 1 to float32 only
        sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
    return sae


def encode_edit_decode(sae, rows, features, tau, mu, sigma=None):
    """The published procedure, row by row (section 3.2), residual kept."""
    projections = {f.index: rows @ sae.W_enc[:, f.index] for f in features}
    scale = max(float(e.abs().max()) for e in projections.values())
    new = rows.clone()
    for j in range(len(rows)):
        a = sae.encode(rows[j][None])[0]
        residual = rows[j] - sae.decode(a)
        for f in features:
            e = projections[f.index]
            if abs(float(e[j])) > tau * float(e.abs().max()):
                a[f.index] = -f.sign * (1.0 if sigma is None else float(sigma[j])) * mu * scale
        new[j] = sae.decode(a) + residual
    return new
