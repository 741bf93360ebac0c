"""The windows of a recording, each with the state that the float model has come to: what a recurrent step is fed."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

HERE = Path(__file__).parent
SIZE, CONTEXT = 512, 64


def windows():
    session = ort.InferenceSession(str(HERE / "vad.onnx"))
    sound = np.pad(np.load(HERE / "sound.npy"), (CONTEXT, 0))
    state = np.zeros((2, 1, 128), np.float32)
    for start in range(0, len(sound) - SIZE - CONTEXT + 1, SIZE):
        feeds = {"input": sound[None, start : start + SIZE + CONTEXT], "state": state, "sr": np.array(16000)}
        yield feeds
        state = session.run(["stateN"], feeds)[0]


def speech(outputs, labels):
    """Share of windows in which somebody speaks."""
    return np.mean([p.item() > 0.5 for p in outputs["output"]])
