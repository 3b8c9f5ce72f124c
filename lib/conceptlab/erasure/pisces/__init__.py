"""PISCES: find the features that carry a concept, and write them out of the MLP weights (Gur-Arieh et al. 2025).

A feature is a row `d = W_dec[f]` of a dictionary of MLP outputs; the rows of `lm.down_proj(layer)`, one per neuron,
live in the same space. `find_features` proposes, the filters dispose, an edit writes, `attribute` says what each part
of it costs.
"""
