"""Olive's passes on ONNX models, through its workflow: one pass a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import adapter
import onnx
from olive.workflows import run

_READER = """
import sys
sys.path.insert(0, {folder!r})
import adapter
from pathlib import Path
from olive.data.registry import Registry

@Registry.register_dataset()
def league_samples(**_):
    job = adapter.Job(Path(), Path({samples!r}), Path())
    return [(feed, 0) for feed in job.feeds()]
"""


def workflow(job: adapter.Job, opset: int, kind: str, *, calibrated: bool = False, **settings: Any) -> None:
    """Runs one pass. Olive copies the model and writes a folder: the one ONNX file in it is the result."""
    folder = job.out.with_suffix("")
    config: dict[str, Any] = {
        "input_model": {"type": "ONNXModel", "model_path": str(job.raised(opset))},
        "passes": {"step": {"type": kind, **settings}},
        "output_dir": str(folder / "out"),
        "cache_dir": str(folder / "cache"),
        "no_artifacts": True,
    }
    if calibrated:
        folder.mkdir()
        script = folder / "league_data.py"
        here = str(Path(__file__).resolve().parent)
        script.write_text(_READER.format(folder=here, samples=str(job.samples)))
        source = {"name": "samples", "user_script": str(script), "load_dataset_config": {"type": "league_samples"}}
        config["data_configs"] = [source | {"dataloader_config": {"params": {"batch_size": None}}}]
        config["passes"]["step"]["data_config"] = "samples"
    run(config)
    (made,) = (folder / "out").rglob("*.onnx")
    onnx.save(onnx.load(made), job.out)
    shutil.rmtree(folder)


adapter.main(
    {
        "OnnxPeepholeOptimizer": lambda job: workflow(job, 1, "OnnxPeepholeOptimizer"),
        "OnnxDynamicQuantization": lambda job: workflow(job, 17, "OnnxDynamicQuantization", per_channel=True),
        "OnnxStaticQuantization": lambda job: workflow(
            job, 17, "OnnxStaticQuantization", calibrated=True, per_channel=True,
            activation_type="uint8", precision="int8", quant_format="QDQ",
        ),
        "OnnxBlockWiseRtnQuantization, block 32": lambda job: workflow(
            job, 17, "OnnxBlockWiseRtnQuantization", block_size=32, accuracy_level=4
        ),
        "OnnxHqqQuantization, block 32": lambda job: workflow(
            job, 17, "OnnxHqqQuantization", block_size=32, accuracy_level=4
        ),
    }
)  # fmt: skip
