"""Samples that calibrate and judge: sources (table.py), and what is done with their samples (samples.py)."""
