"""Words that other tools use for what is called otherwise here, and what to write instead."""

from __future__ import annotations

_EIGHT = "int8 (activations, too), int4, or weights(BITS)"
_MIXED = "weights([4, 8]) where size <= 0.3x"

#: What people write where a step stands.
STEPS = {
    **dict.fromkeys(("quantize", "quantise", "quant", "quantization", "ptq"), _EIGHT),
    "gptq": "int4(method=gptq), weights(BITS, method=gptq) or int8(rounding=gptq)",
    "adaround": "int4(method=adaround), weights(BITS, method=adaround) or int8(rounding=adaround)",
    "awq": "int4(method=awq) or weights(BITS, method=awq)",
    "hqq": "int4(method=hqq) or weights(BITS, method=hqq)",
    "rtn": "int4(method=rtn) or weights(BITS, method=rtn)",
    "static": "int8(mode=static)",
    **dict.fromkeys(("stored", "weight_only", "weights_only"), "int8(mode=stored), int4 or weights(BITS)"),
    "dynamic": "int8(mode=dynamic)",
    "uint8": "int8",
    **dict.fromkeys(("w4", "uint4"), "int4"),
    "w8": "w8a16 or w8a8",
    **dict.fromkeys(("hawq", "mixed_precision"), _MIXED),
    **{f"int{bits}": f"weights({bits})" for bits in (2, 3, 6)},
    **dict.fromkeys(("smoothquant", "smooth_quant"), "smooth + int8"),
    **dict.fromkeys(("cle", "cross_layer_equalization"), "equalize"),
    "bias_correction": "correct_bias",
    **dict.fromkeys(("half", "float16", "f16"), "fp16"),
    **dict.fromkeys(("fold_bn", "fold_batchnorm"), "simplify(fold_affine=true)"),
    **dict.fromkeys(("fuse", "optimize", "optimise", "onnxsim", "constant_folding", "fold_constants"), "simplify"),
    **dict.fromkeys(("sparsify", "sparse", "sparsity", "magnitude"), "prune(50%, kind=unstructured)"),
    **dict.fromkeys(("hap", "filter_pruning", "channel_pruning"), "prune(50%)"),
}

_BLOCK = ("block",)
_RATIO = ("ratio",)
_DATA = ("data",)

#: What people call an argument, and its names here, of which a step may have one.
ARGUMENTS = {
    **dict.fromkeys(("group", "groups", "group_size", "groupsize", "block_size", "blocksize"), _BLOCK),
    **dict.fromkeys(("sparsity", "amount", "rate", "fraction", "target_sparsity", "pruning_ratio"), _RATIO),
    **dict.fromkeys(("calibration", "calib", "calibration_data", "dataset", "samples"), _DATA),
    **dict.fromkeys(("bit", "num_bits", "n_bits", "nbits", "wbits", "w_bits", "precision"), ("bits",)),
    **dict.fromkeys(("importance", "metric", "saliency"), ("criterion",)),
    **dict.fromkeys(("algorithm", "algo", "rounding", "quantizer"), ("method", "rounding")),
    **dict.fromkeys(("calibrator", "calibrate_method", "ranges", "range", "clip"), ("observer", "ranges")),
    **dict.fromkeys(("sym", "symm", "scheme"), ("symmetric",)),
    **dict.fromkeys(("per", "perchannel", "per_tensor", "granularity"), ("per_channel",)),
    **dict.fromkeys(("round_to", "align", "multiple_of"), ("multiple",)),
    **dict.fromkeys(("migration", "migration_strength", "smoothing"), ("alpha",)),
}
#: (step, argument) likewise, where something else is to be said.
ARGUMENTS_OF = {(step, "bits"): "the step is named by its bits; weights(BITS) takes any" for step in ("int4", "int8")}
#: Arguments that are scopes here.
SCOPES = {
    **dict.fromkeys(("exclude", "ignore", "skip", "nodes_to_exclude"), 'except "head"'),
    **dict.fromkeys(("include", "targets", "only", "layers", "op_types"), 'on "encoder.**"'),
}

_RIGHT = "acc_drop <= 1pp (needs labels) or agreement >= 99%"
#: What people call a metric, and bounds to write instead.
METRICS = {
    **dict.fromkeys(("accuracy", "acc", "top1", "accuracy_drop", "acc_loss"), _RIGHT),
    **dict.fromkeys(("macs", "mac", "gmacs", "gflops", "ops"), "flops <= 0.5x"),
    **dict.fromkeys(("memory", "ram", "rss"), "peak_memory <= 200MiB"),
    **dict.fromkeys(("bytes", "filesize", "file_size", "model_size", "storage", "compression"), "size <= 0.3x"),
    **dict.fromkeys(("parameters", "weights"), "params <= 0.5x"),
    **dict.fromkeys(("speed", "speedup", "time", "runtime", "throughput", "fps"), "latency <= 0.5x"),
    **dict.fromkeys(("p95", "tail_latency"), "latency.p95 <= 8ms"),
    **dict.fromkeys(("snr", "psnr"), "sqnr >= 20dB"),
    **dict.fromkeys(("cos", "cosine_similarity", "similarity"), "cosine >= 0.99"),
    **dict.fromkeys(("mse", "error", "drift", "loss"), "cosine >= 0.99 or sqnr >= 20dB"),
}
