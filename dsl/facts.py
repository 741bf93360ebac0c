"""What was measured on an emitted file, in the terms in which bounds are stated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..backends.checks import Emitted
from .judge import Measured


def facts_of(
    emitted: Emitted, before: Mapping[str, Any], after: Mapping[str, Any], source_bytes: int
) -> dict[str, Measured]:
    """Metrics by name; what was not measured is absent. `before` and `after` are sizes as instruments count them."""
    facts = {
        "size": Measured(emitted.nbytes, source_bytes),
        "params": Measured(after["params"], before["params"]),
    }
    if isinstance(before["macs"], int) and isinstance(after["macs"], int):
        facts["flops"] = Measured(after["macs"], before["macs"])
    agreement = emitted.agreement
    if agreement is not None:
        scores = {"cosine": agreement.cosine, "sqnr": agreement.sqnr_db, "agreement": agreement.top1}
        facts |= {name: Measured(value) for name, value in scores.items() if value is not None}
    if emitted.accuracy is not None:
        source, artifact = emitted.accuracy
        facts["acc_drop"] = Measured(source - artifact, source)
    if emitted.latency is not None:
        # The upper end of the interval must hold: seconds, and seconds of the source scaled to match.
        slowest = emitted.latency.a_ms / emitted.latency.low / 1e3
        facts["latency"] = Measured(slowest, emitted.latency.a_ms / 1e3)
    if emitted.tail is not None:
        tail = emitted.tail
        facts["latency.p95"] = Measured(tail.b_high_ms / 1e3, tail.b_high_ms / 1e3 / tail.ratio_high)
    if emitted.memory is not None:
        facts["peak_memory"] = Measured(emitted.memory.artifact, emitted.memory.source)
    facts |= {name: Measured(artifact, source) for name, (source, artifact) in emitted.metrics.items()}
    return facts
