"""onnxsim: simplification, and the quantization and pruning that came with version 0.8; always simplified first."""

from __future__ import annotations

from collections.abc import Callable

import adapter
import onnx
import onnxsim

Change = Callable[[onnx.ModelProto, adapter.Job], onnx.ModelProto]


def then(change: Change | None = None, opset: int = 1) -> Callable[[adapter.Job], None]:
    def run(job: adapter.Job) -> None:
        model, _ = onnxsim.simplify(onnx.load(job.raised(opset)))
        onnx.save(change(model, job) if change else model, job.out)

    return run


adapter.main(
    {
        "simplify": then(),
        "quantize_static": then(lambda m, job: onnxsim.quantize_static(m, calibration_data=job.feeds()), 17),
        "quantize_dynamic": then(lambda m, job: onnxsim.quantize_dynamic(m), 17),
        "quantize_weight_only": then(lambda m, job: onnxsim.quantize_weight_only(m), 17),
        "matmul_nbits": then(lambda m, job: onnxsim.quantize_weight_only_matmul_nbits(m), 17),
        "int4, block 32": then(lambda m, job: onnxsim.quantize_weight_only_int4(m), 21),
        "structured 50 %": then(lambda m, job: onnxsim.apply_structured_pruning(m, sparsity=0.5)),
        "structured 50 %, Wanda": then(
            lambda m, job: onnxsim.apply_structured_wanda_pruning(m, calibration_data=job.feeds(64), sparsity=0.5)
        ),
    }
)
