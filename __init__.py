"""mlc: compiles trained neural networks into smaller, faster ones."""

__version__ = "0.1.0"
