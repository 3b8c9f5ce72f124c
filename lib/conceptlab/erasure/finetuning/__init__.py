"""Erasure by fine-tuning."""
