"""`weights` and `int4`: weights in few bits behind DequantizeLinear; what flows through the model stays in floats.

    small = mlc.passes.Int4()(module)
    small = mlc.passes.Weights(bits=8)(module)

Weights become `DequantizeLinear` over codes, in standard ONNX (opset 21, `block_size`). What a runtime runs them with
is decided when the artifact is made (backends/legalize.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from ...ir import errors
from ...ir.core import Module
from ...ir.dtypes import BY_SHORT
from ...ir.errors import Code
from ...ir.progress import counted
from ...ir.quant import QSpec
from ...ir.quant_blocks import quantize_constant
from ...ir.rewrite import Rewriter
from ..base import ROUNDING, Context, Done, Effect, Need, Pass, Plan, option
from . import mixed
from .damage import measured
from .emit import CodeEmitter
from .methods import LEARNT, METHODS, Learnt, search_of
from .narrow import worth_narrowing
from .prepare import Choice, Prepared, prepare
from .refine.awq import awq
from .refine.refine import refine, told_together
from .repeats import repeats
from .sites import BLOCKS, EXACT_ENOUGH, Site, Wish, activations_only, already, decide
from .weights import computed_weights, float_weights, makers

BLOCK_DOC = "weights that share a scale; 0: the fastest of 32, 64 and 128 on the target, each matrix by itself"
#: Metadata of the DequantizeLinear that tells the backend how exactly to compute.
ACCURACY = "mlc.accuracy_level"
#: Metadata of the DequantizeLinear that tells the backend to widen the codes although it has a kernel for them.
FORM = "mlc.form"


@dataclass(frozen=True)
class WeightPlan(Plan):
    """The weights that become codes, and whether what computes weights from constants is folded before."""

    sites: tuple[Site, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class WeightOnly(Pass):
    """What all weight-only steps share: options, the choice of sites, and their emission."""

    effect: ClassVar[Effect] = ROUNDING
    after: ClassVar[tuple[str, ...]] = ("simplify", "prune", "absorb", "equalize", "smooth")
    drafts: ClassVar[bool] = True

    block: int = option(32, unit="int", choices=(0, *BLOCKS), doc=BLOCK_DOC)
    embedding_block: int = option(128, unit="int", choices=BLOCKS, doc="the same, for embedding tables")
    symmetric: bool = option(False, unit="bool", doc="no zero points: a little smaller, less exact")
    scale: str = option("f16", unit="name", choices=("f16", "f32"), doc="type of the stored scales")
    accuracy_level: int = option(
        4, unit="int", choices=(0, 1, 4), doc="4: the runtime may round activations to 8 bits (fast); 0, 1: floats"
    )
    compute: str = option(
        "auto", unit="name", choices=("auto", "codes", "floats"),
        doc="what products work on where a kernel multiplies codes: codes (little memory), floats (widened at load), "
        "auto: what the target knows to be faster, codes where it does not know",
    )  # fmt: skip
    stored: int = option(
        8, unit="int", choices=(2, 3, 4, 6, 8),
        doc="the least number of bits for weights that no kernel multiplies (convolutions, recurrent layers)",
    )  # fmt: skip
    method: str = option(
        "auto", unit="name", choices=tuple(METHODS),
        doc="how codes are found: rtn (the range of a block), grid (least squared error), hqq (least l0.7 error), or "
        "with data gptq, adaround, awq; auto: gptq for less than 8 bits if there is data, else grid",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compute == "floats" and self.accuracy_level != type(self).accuracy_level:
            raise errors.error(
                Code.CANNOT_HONOUR, f"'{self.name}': accuracy_level with compute=floats",
                help="it is the precision of products of codes: compute=codes",
            )  # fmt: skip

    @property
    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """The numbers of bits that a weight may get."""

    def wish(self, bits: int) -> Wish:
        search = search_of(self.method)
        return Wish(
            bits, self.stored, self.block, self.embedding_block, self.symmetric, self.scale, search, self.compute
        )

    def plan(self, module: Module, ctx: Context) -> WeightPlan:
        """Decide; if weights are computed from constants in a copy in which what makes them is folded."""
        if not _making(ctx)(module):
            return self._with_data(self._decided(module, ctx), ctx)
        ready = Prepared.of(module, ctx, by=self.name, only=_making(ctx))
        made = self._with_data(self._decided(ready.module, ready.ctx), ctx)
        return replace(made, notes=(*ready.notes, *made.notes), folded=True) if made.sites else made

    def _with_data(self, plan: WeightPlan, ctx: Context) -> WeightPlan:
        """The plan, and what is to say of the samples that codes are refined with."""
        told = repeats(ctx.data) if self._refinement(plan, ctx)[1] else ()
        return replace(plan, notes=tuple(dict.fromkeys((*plan.notes, *told))))

    def _decided(self, module: Module, ctx: Context) -> WeightPlan:
        options: list[list[Site]] = []
        skipped = [*already(module), *activations_only(module, ctx)]
        total = sum(v.constant.nbytes for v in module.constants.values() if v.constant is not None)
        weights = {weight.name: weight for weight in float_weights(module)}
        for weight in weights.values():
            found = [decide(weight, self.wish(bits), ctx, total) for bits in self.widths]
            sites = {site.bits: site for site in found if isinstance(site, Site)}
            if sites:
                options.append(list(sites.values()))
            elif isinstance(found[0], list):
                skipped += found[0]
        chosen, told = self._choose(options, module, ctx)
        skipped += mixed.left_out(options, chosen)
        kept = tuple(site for site in chosen if site is not None)
        if len(self.widths) == 1:  # several are weighed against each other
            kept, wide = worth_narrowing(kept, weights, self.wish(self.widths[0]), ctx, total)
            told += wide
        told += _blocks_told(kept) if not self.block else ()
        return WeightPlan(tuple(skipped), (*told, *notes(kept)), kept)

    def _choose(
        self, options: list[list[Site]], module: Module, ctx: Context
    ) -> tuple[Sequence[Site | None], tuple[str, ...]]:
        """One option of every weight (None: floats), and notes."""
        return [sites[0] for sites in options], ()

    def wants(self) -> frozenset[Need]:
        return frozenset({Need.DATA}) if self.method in LEARNT else frozenset()

    @property
    def learns(self) -> bool:
        return self.method == "auto" or self.method in LEARNT

    def apply(self, rw: Rewriter, plan: WeightPlan, ctx: Context) -> list[Done]:
        if plan.folded:
            prepare(rw, ctx, only=_making(ctx))
        method, chosen = self._refinement(plan, ctx)
        scaled = awq(rw, chosen, ctx, BY_SHORT[self.scale]) if chosen and method.scales else []
        source = rw.module.clone() if chosen else None  # holds the floats: only while they are needed
        done = []
        for site in counted(plan.sites, "weights", ctx.progress):
            done.append(self._quantize(rw, site))
        if source is None:
            return done
        done = told_together(done, refine(rw, source, ctx, method.refinement, chosen))
        # A place that is not worth scaling is no site of this step: its weights are rounded all the same.
        return [*(outcome for outcome in scaled if isinstance(outcome, Done)), *done]

    def _refinement(self, plan: WeightPlan, ctx: Context) -> tuple[Learnt, dict[str, QSpec]]:
        """The method that looks for better codes with data, and the weights it does so for."""
        method = LEARNT.get(self.method, LEARNT["gptq"])
        if ctx.draft:
            return method, {}
        if self.method in LEARNT:
            return method, {s.constant: s.spec for s in plan.sites}
        if self.method == "auto" and ctx.data is not None and ctx.runner is not None:
            return method, {s.constant: s.spec for s in plan.sites if s.bits < EXACT_ENOUGH}
        return method, {}

    def _quantize(self, rw: Rewriter, site: Site) -> Done:
        value = rw.module.constants[site.constant]
        constant = value.constant
        assert constant is not None
        casts = [op for op in value.users if op.kind == "Cast"]
        search = search_of(self.method)
        made = quantize_constant(constant, site.spec, scale_type=BY_SHORT[site.scale], search=search)
        meta = {ACCURACY: str(self.accuracy_level)} if site.form == "blocks" else {FORM: "stored"}
        emitter = CodeEmitter(rw, site.constant, made, site.axis, site.block, meta)
        for root in (*(c.result for c in casts), value):
            emitter.replace(root, but=casts)
        groups = f"block {site.block}" if site.block else f"scales along axis {site.axis}"
        return Done(
            site.constant,
            f"{constant.type}",
            f"{made.codes.dtype.short} {groups}, {site.scale} scales, error {made.relative_error:.3%}",
            constant.nbytes - made.nbytes,
        )


@dataclass(frozen=True)
class Weights(WeightOnly):
    """Stores weights in 2 to 8 bits, with a scale and a zero point per block.

    q = clip(round(w / s) + z, 0, 2^bits - 1), w' = s (q - z), for each block of `block` weights along the axis that is
    contracted. Given several numbers of bits, each weight gets the one that does the least damage for the bytes that
    `saving` (or a bound on size) leaves. Writes standard `DequantizeLinear`; the target turns it into kernels where it
    has them (MatMul, Gemm and embeddings) and else into storage that is widened when the model is loaded. 3 and 6 bits
    are stored in 4 and 8.
    Errors: CANNOT_HONOUR when the step's selector names only what cannot be stored so.
    """

    name: ClassVar[str] = "weights"

    bits: tuple[int, ...] | int = option(
        (8,), unit="ints", choices=(2, 3, 4, 6, 8), positional=True,
        doc="bits of a weight; of a list such as [4, 8] every weight gets one, or stays in floats",
    )  # fmt: skip
    saving: float | None = option(
        None, unit="ratio", low=0.0, high=1.0,
        doc="with a list: the share of what the fewest bits would save; left out: chosen, or the most bits everywhere",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if isinstance(self.bits, int) and not isinstance(self.bits, bool):
            object.__setattr__(self, "bits", (self.bits,))
        super().__post_init__()
        if not self.bits:
            raise errors.error(
                Code.OUT_OF_RANGE, f"'{self.name}.bits' is empty", help="give one number of bits or more"
            )
        if self.saving is not None and len(self.widths) == 1:
            raise errors.error(
                Code.CANNOT_HONOUR, f"'{self.name}': saving with one number of bits",
                help="it chooses between several: bits=[4, 8]",
            )  # fmt: skip

    @property
    def widths(self) -> tuple[int, ...]:
        assert isinstance(self.bits, tuple)
        return tuple(sorted(set(self.bits), reverse=True))

    @property
    def free(self) -> tuple[str, ...]:
        """One number of bits leaves nothing to choose."""
        return super().free if len(self.widths) > 1 else ()

    def at(self, strength: float) -> Self:
        """Bytes fall geometrically with the strength, from floats to the fewest bits; explicit values stay."""
        fewest = min(self.widths) / 32
        return replace(self, saving=(1 - fewest**strength) / (1 - fewest)) if self.free else self

    def _choose(
        self, options: list[list[Site]], module: Module, ctx: Context
    ) -> tuple[Sequence[Site | None], tuple[str, ...]]:
        if len(self.widths) == 1:
            return super()._choose(options, module, ctx)
        if self.saving is None:
            return mixed.most_bits(options), (_UNASKED,)
        samples: Iterable[str] = ()
        if ctx.data is None or ctx.runner is None:
            damages, told = mixed.by_error(options), "the error of the weights (no data)"
        else:
            search = search_of(self.method)
            damages, told = measured(module, options, search, self.method, ctx), "damage measured one by one"
            samples = () if ctx.draft else repeats(ctx.data)
        chosen = mixed.choose(options, damages, self.saving)
        return chosen, (mixed.summary(chosen, told), *samples)


def _making(ctx: Context) -> Choice:
    """What computes weights of operators in scope from constants."""
    return lambda module: makers(computed_weights(module, ctx.scope.allows))


_UNASKED = "every weight has the most bits: nothing says how much to save (a bound on size, data that judges, saving=)"


def _blocks_told(sites: Sequence[Site]) -> tuple[str, ...]:
    counts = Counter(s.block for s in sites if s.form == "blocks")
    parts = [f"{count} of {block}" for block, count in sorted(counts.items())]
    return (f"blocks by the times that the target knows (32 where it knows none): {', '.join(parts)}",) if parts else ()


def notes(sites: Sequence[Site]) -> tuple[str, ...]:
    """What the user should know about a set of sites."""
    found = []
    if any(s.scale == "f16" for s in sites):
        found.append("scales are stored in 16 bits: keep graph optimizations of ONNX Runtime on (basic or higher)")
    stored, slower = (sum(1 for s in sites if s.form == "stored" and s.kernel is k) for k in (False, True))
    if stored:
        found.append(f"no kernel for codes of {_weights(stored)}: size only, widened at load")
    if slower:
        found.append(
            f"size only for {_weights(slower)}, widened at load: products of codes would be slower than of floats "
            "(int8 is for speed there; int8(mode=stored) is more exact, in 8 bits)"
        )
    for bits, count in sorted(Counter(s.bits for s in sites).items()):
        storage = next(s.spec.storage for s in sites if s.bits == bits)
        if storage.bits != bits:
            found.append(f"{_weights(count)} of {bits} bits: stored in {storage.bits}, which is no smaller")
    return tuple(found)


def _weights(count: int) -> str:
    return f"{count} weight{'' if count == 1 else 's'}"
