"""Erasure in chosen places: closed forms, single vectors and rows, small trained parts. One file per method.

`keys` reads what neurons do at the concept's words and elsewhere, `solve` has the closed forms, `training` the one loop
of what is trained here.
"""
