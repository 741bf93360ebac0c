"""Samples that calibrate and judge."""

from .samples import load_npz as load_npz
