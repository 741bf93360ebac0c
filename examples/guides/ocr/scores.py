"""How many characters of the unseen lines are read as they were written."""

from difflib import SequenceMatcher
from pathlib import Path

HERE = Path(__file__).parent
WRITTEN = (HERE / "unseen.txt").read_text(encoding="utf-8").split("\n")
ALPHABET = ["", *(HERE / "alphabet.txt").read_text(encoding="utf-8").split("\n")]


def characters(outputs, labels):
    """Share of all characters; `outputs` has the scores of each line in the order of the images."""
    (scores,) = outputs.values()
    read = [decode(line[0]) for line in scores]
    matches = (SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks() for a, b in zip(WRITTEN, read))
    return sum(m.size for blocks in matches for m in blocks) / sum(map(len, WRITTEN))


def decode(scores):
    """Best path: repeats are dropped, then blanks."""
    best = scores.argmax(axis=-1)
    return "".join(ALPHABET[c] for i, c in enumerate(best) if c and (i == 0 or c != best[i - 1]))
