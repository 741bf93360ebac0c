"""The class table: plain data that says what the analysis found."""

from __future__ import annotations

import json

import pytest
from kit.nets import NETS

from mlc.ir.axes import analyse
from mlc.ir.axis_table import BEYOND, axis_table


@pytest.mark.parametrize("name", ["mlp", "gqa_decoder", "densenet"])
def test_the_table_is_json_and_says_what_the_analysis_says(name):
    axes = analyse(NETS[name]()[0])
    table = json.loads(json.dumps(axis_table(axes)))
    assert [row["name"] for row in table["classes"]] == [c.name for c in axes.classes]
    for row, c in zip(table["classes"], axes.classes, strict=True):
        assert row["size"] == c.size
        assert row["free"] is (row["pin"] is None)
        assert row["depends_on"] == [u.name for u in axes.depends(c)]
        assert row["admissible"] == [name for g, name in BEYOND.items() if g in axes.admissible(c)]
        assert [(s["constant"], s["axis"], s["path"]) for s in row["sites"]] == [
            (s.constant, s.axis, s.path) for s in c.sites
        ]
