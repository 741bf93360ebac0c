"""What calibration data adds: which units matter to their consumers (saliency.py), and their fit (reconstruct.py)."""
