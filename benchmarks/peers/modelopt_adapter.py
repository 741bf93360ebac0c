"""ModelOpt on ONNX models. Its int8 default of fp16 elsewhere is made for GPUs: fp32 is asked for."""

from __future__ import annotations

from typing import Any

import adapter
from modelopt.onnx.quantization import quantize


def made(job: adapter.Job, mode: str, opset: int, **settings: Any) -> None:
    quantize(
        str(job.raised(opset)),
        quantize_mode=mode,
        calibration_data_reader=adapter.Reader(job.feeds()),
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(job.out),
        log_level="WARNING",
        **settings,
    )


adapter.main(
    {
        "int8, entropy": lambda job: made(job, "int8", 17),
        "int8, max": lambda job: made(job, "int8", 17, calibration_method="max"),
        "int4, awq_clip": lambda job: made(job, "int4", 21, calibration_method="awq_clip"),
        "int4, rtn_dq, block 32": lambda job: made(job, "int4", 21, calibration_method="rtn_dq", block_size=32),
    }
)
