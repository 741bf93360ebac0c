"""`python -m mlc`."""

from .cli import main

if __name__ == "__main__":
    main()
