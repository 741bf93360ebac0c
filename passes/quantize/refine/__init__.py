"""Rounding that looks at data: codes, scales and biases of quantized weights that reproduce the float model best."""
