"""Concept Lab: what a language model knows, where it is stored, and whether it can be erased."""
