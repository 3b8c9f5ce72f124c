"""Concept Lab: what a language model knows, where it is stored, and whether it can be erased."""

import os as _os

# Threads that wait for each other must not spin: beside other busy processes that slows torch tenfold (the figures
# stand in `models/compute.py`). It is read when torch is first imported, so it is set here; a user's own setting stays.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & _os.environ.keys():
    _os.environ["OMP_WAIT_POLICY"] = "passive"
