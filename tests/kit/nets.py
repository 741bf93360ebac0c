"""Small networks built by hand, typed by the operator table: one for each way in which axes hang together.

`NETS` maps names to builders of (module, feeds). Weights are seeded; every net fits in a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType

from kit import nets_attention, nets_decoder, nets_detect, nets_flow, nets_plain, nets_recurrent, nets_vision
from kit.layers import Built, Feeds, Layers

__all__ = ["NETS", "Built", "Feeds", "Layers"]

FAMILIES: Mapping[ModuleType, str] = {
    nets_plain: "mlp gated quantized block_quantized dynamic_int8",
    nets_vision: """
        vgg16 vgg_flatten resnet20_conv resnet20_pad densenet mobilenet multiplier grouped shufflenet shufflenet_v2
        unet group_norm nhwc nhwc_converted excited pixel_shuffle transposed
    """,
    nets_detect: "yolo",
    nets_recurrent: "lstm gru stacked",
    nets_attention: "bert vit fused_split alibi relative cross_attention",
    nets_decoder: "gqa_decoder rope_decoder rope_interleaved experts_dense experts_top experts_apart",
    nets_flow: "branches captured loops scans nested tied siamese",
}
NETS: Mapping[str, Callable[[], Built]] = {
    name: getattr(family, name) for family, names in FAMILIES.items() for name in names.split()
}
