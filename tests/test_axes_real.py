"""Axes of real models: permuting every free class at once keeps the outputs, leaving one site behind changes them.

A model is held to 1e-4 relative. Where that fails, its noise is measured: how far the outputs move when weights move by
their rounding (1e-6). Models that quantize activations as they come amplify rounding; docs/axes.md lists both numbers.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from kit.permute import TOLERANCE, permutation_error, relative, run
from kit.real import all_models, real_models

from mlc.frontends.onnx import load
from mlc.ir.axes import analyse

#: The only models whose noise exceeds the tolerance: integer arithmetic between scales that depend on the data.
NOISY = {"smart_turn", "t5_encoder_int8", "t5_decoder_int8", "ppocrv4_det"}


@all_models()
def test_permuting_all_free_classes_keeps_the_outputs(model):
    module = load(model.path)
    axes = analyse(module)
    assert axes.free
    error, bar = permutation_error(module, axes, model.feeds(0))
    assert error < bar
    assert bar == TOLERANCE or model.name in NOISY


@all_models()
def test_leaving_one_site_behind_changes_the_outputs(model):
    """The test above has teeth: the outputs depend on the classes that it permutes."""
    module, feeds = load(model.path), model.feeds(0)
    axes, before = analyse(module), run(module, feeds)
    largest = sorted(axes.free, key=lambda c: -c.size)[:4]
    moved = [
        relative(before, run(axes.permuted({c.id: np.roll(np.arange(c.size), 1)}, leave_out=c.sites[0]), feeds))
        for c in largest
    ]
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
