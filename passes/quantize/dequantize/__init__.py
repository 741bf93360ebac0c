"""`dequantize`: quantized graphs back to operators of floats."""
