"""Axes of real models: permuting every free class at once keeps the outputs, leaving one site behind changes them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from kit import laws
from kit.permute import TOLERANCE, relative, run
from kit.real import all_models, real_models

from mlc.frontends.onnx import load
from mlc.ir.axes import analyse


@all_models()
def test_permuting_all_free_classes_keeps_the_outputs(model):
    module = load(model.path)
    axes = analyse(module)
    assert axes.free
    assert laws.permutation_error(model.name, model.path, module, axes) < TOLERANCE


@all_models()
def test_leaving_one_site_behind_changes_the_outputs(model):
    """The test above has teeth: the outputs depend on the classes that it permutes."""
    module, feeds = load(model.path), laws.feeds(model.name, model.path)
    axes, before = analyse(module), run(laws.arithmetic(model.name, module), feeds)
    moved = []
    for c in sorted(axes.free, key=lambda c: -c.size)[:4]:
        twin = axes.permuted({c.id: np.roll(np.arange(c.size), 1)}, leave_out=c.sites[0])
        moved.append(relative(before, run(laws.arithmetic(model.name, twin), feeds)))
    assert max(moved) > 10 * TOLERANCE


@real_models("mobilenet_v2", "opennsfw", "opennsfw_unfolded", "minilm")
def test_classes_found_by_hand(model):
    found = Counter(c.size for c in analyse(load(model.path)).free)
    if model.name.startswith("opennsfw"):  # two exports of one net
        assert found == {1024: 1, 512: 1, 256: 7, 128: 13, 64: 9, 32: 6}
    elif model.name == "mobilenet_v2":
        assert sum(found.values()) == 25
    else:
        assert found == {1536: 6, 32: 12, 12: 6}
