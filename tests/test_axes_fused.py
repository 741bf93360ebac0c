"""The runtime's own fusions are an oracle of the rules: a fused model has the classes of the one it was made from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnxruntime as ort
import pytest
from kit.permute import permutations, relative, run
from kit.real import RealModel, real_models

from mlc.backends.onnx import to_proto
from mlc.frontends.onnx import load
from mlc.ir.axes import analyse
from mlc.ir.core import Module


def _fused(module: Module, path: Path) -> Module:
    """What ONNX Runtime makes of a module before it chooses layouts for this machine."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(to_proto(module).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return load(path)


@pytest.mark.filterwarnings("ignore")
@real_models("mobilenet_v2", "silero_vad_sequence", "smart_turn", "ppocrv4_rec", "ddddocr_ocr", "minilm")
def test_a_fused_model_has_the_same_classes(model: RealModel, tmp_path: Path):
    plain = load(model.path)
    fused = _fused(plain, tmp_path / "fused.onnx")
    assert any(op.kind.startswith("com.microsoft::") for op in fused.graph.walk())
    axes = analyse(fused)
    assert Counter(c.size for c in axes.free) == Counter(c.size for c in analyse(plain).free)
    feeds = model.feeds()
    after = run(axes.permuted(permutations(axes, 0)), feeds)
    assert relative(run(fused, feeds), after) < 1e-4
