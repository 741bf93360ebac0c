"""Draws the pictures of docs/axes.md: python docs/img/draw.py"""

from __future__ import annotations

from pathlib import Path

from canvas import CELL, Canvas

HERE = Path(__file__).resolve().parent


def residual() -> Canvas:
    c = Canvas(760, 300)
    y = 48
    c.text(40, y + 4, "x")
    for x, words in ((150, "Conv 1"), (265, "Relu"), (390, "Conv 2"), (520, "Add"), (650, "Conv 3")):
        c.op(x, y, words)
    for a, b in ((52, 118), (182, 233), (297, 358), (422, 488), (552, 618), (682, 735)):
        c.arrow((a, y), (b, y))
    c.arrow((75, y), (75, 16), (520, 16), (520, 32))
    c.tensor(130, 110, "weight [4, 6, k, k]", "bbbb", "aaaaaa")
    c.tensor(370, 110, "weight [6, 4, k, k]", "aaaaaa", "bbbb")
    c.tensor(616, 110, "weight [5, 6, k, k]", "ccccc", "aaaaaa")
    c.legend(28, 240, (("a", "one class: the Add makes the axis of x and of what Conv 2 yields the same"),))
    c.legend(28, 258, (("b", "one class: what Conv 1 yields is what Conv 2 reads"),))
    c.legend(28, 276, (("c", "what Conv 3 yields; kernel axes (k, k) are pinned"),))
    return c


def flatten() -> Canvas:
    c = Canvas(760, 232)
    y = 48
    for x, words, w in ((110, "Conv", 60), (300, "Flatten", 66), (560, "Gemm", 60)):
        c.op(x, y, words, w)
    for a, b in ((40, 78), (142, 264), (335, 528), (592, 640)):
        c.arrow((a, y), (b, y))
    c.text(203, y - 10, "[N, 3, 2, 2]")
    c.text(430, y - 10, "[N, 12]")
    c.tensor(96, 106, "weight [3, 3, k, k]", "abc", "---")
    c.tensor(485, 106, "weight [5, 12] = [5, channel x 4]", "ddddd", "aaaabbbbcccc")
    c.text(28, 200, "The row-major product (channel x 4): a channel takes its four positions along.", anchor="start")
    c.text(28, 218, "Here each color is one unit of the channel class: unit i is columns 4i to 4i + 3.", anchor="start")
    return c


def concat() -> Canvas:
    c = Canvas(760, 232)
    c.op(110, 40, "Conv 1")
    c.op(110, 100, "Conv 2")
    c.op(300, 70, "Concat")
    c.op(560, 70, "Conv 3")
    for a, b in (((142, 40), (268, 63)), ((142, 100), (268, 77)), ((332, 70), (528, 70)), ((592, 70), (640, 70))):
        c.arrow(a, b)
    c.vector(164, 24, "", "aaaa")
    c.vector(164, 106, "", "bbbbbb")
    c.vector(370, 50, "", "aaaabbbbbb")
    c.tensor(500, 118, "weight [3, 10, k, k]", "ccc", "aaaabbbbbb")
    c.text(28, 200, "The sum [a | b]: segments side by side, each with a permutation of its own.", anchor="start")
    c.text(28, 218, "Slice and Split cut the same way: they refine one class into two.", anchor="start")
    return c


def heads() -> Canvas:
    c = Canvas(760, 372)
    rows = (
        ("q out", "aaaaaaaabbbbbbbb", "(kv head x 2 x width): 2 query heads for each of 2 key heads"),
        ("k out", "aaaabbbb", "(kv head x width)"),
        ("v out", "aaaabbbb", "(kv head x value width)"),
        ("o in", "aaaaaaaabbbbbbbb", "(kv head x 2 x value width)"),
    )
    c.text(28, 28, "kv head: a color is one unit of the class", size=13, anchor="start")
    for i, (name, units, words) in enumerate(rows):
        c.vector(90, 44 + i * 26, name, units)
        c.text(90 + len(units) * CELL + 14, 52 + i * 26, words, anchor="start")
    c.text(28, 176, "inside of a head: two more classes", size=13, anchor="start")
    inside = (("q, k", "cccc", "width of queries and keys: contracted with each other, so they move together"),
              ("v, o", "dddd", "width of values: goes into the columns of the output projection"))  # fmt: skip
    for i, (name, units, words) in enumerate(inside):
        c.vector(90, 192 + i * 26, name, units)
        c.text(90 + len(units) * CELL + 14, 200 + i * 26, words, anchor="start")
    c.text(28, 274, "How q [T, 16] becomes heads", size=13, anchor="start")
    for x, words, w in ((110, "Reshape", 70), (260, "Transpose", 80), (420, "MatMul k", 76)):
        c.op(x, 312, words, w)
    for a, b in ((40, 74), (146, 219), (301, 381), (459, 520)):
        c.arrow((a, 312), (b, 312))
    c.text(183, 300, "T, 4, 4")
    c.text(341, 300, "4, T, 4")
    c.text(
        28,
        354,
        "The Reshape factors the axis of 16; MatMul then ties its factors to those of the keys.",
        anchor="start",
    )
    return c


def grouped() -> Canvas:
    c = Canvas(760, 250)
    c.text(28, 28, "A convolution in two groups of three channels", size=13, anchor="start")
    c.vector(150, 48, "channels of x", "aaabbb")
    c.text(236, 56, "(group x inside)", anchor="start")
    c.vector(150, 74, "after: groups swapped", "bbbaaa")
    c.text(236, 82, "the group class moves whole groups", anchor="start")
    c.tensor(150, 116, "weight [6, 3, k, k]", "aaabbb", "ccc")
    c.arrow((206, 150), (292, 150))
    c.tensor(320, 116, "any order inside of group 1 ...", "aaa", "ccc")
    c.tensor(520, 116, "... another inside of group 2", "bbb", "ccc")
    c.text(
        28,
        226,
        "Axis 1 (green) depends on the group: every tensor that holds it also holds the group, so each group",
        anchor="start",
    )
    c.text(
        28,
        242,
        "may order its inside in its own way. Heads, GroupNorm and quantization blocks work alike.",
        anchor="start",
    )
    return c


PICTURES = {
    "residual": (residual, "A residual block ties one class"),
    "flatten": (flatten, "Flatten makes a product"),
    "concat": (concat, "Concat makes a sum"),
    "heads": (heads, "Grouped-query attention: four classes"),
    "grouped": (grouped, "A grouped convolution: a dependent product"),
}

if __name__ == "__main__":
    for name, (draw, title) in PICTURES.items():
        draw().save(HERE / f"axes-{name}.svg", title)
