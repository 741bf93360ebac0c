"""Zeros in weights that keep their shape: anywhere, or N of every M along the contracted axis (unstructured.py)."""
