"""Whether fewer bits are worth it for weights that are widened at load although there is a kernel for their codes.

Products of small matrices are faster on floats. All that such a weight gains from few bits is bytes, and it is damaged
as much as one whose codes are also fast. Together these weights must gain a notable share of the model: the matrices of
a transformer do, the small last layer of a recurrent or convolutional network does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..base import Context
from .sites import Site, Wish, decide
from .weights import Weight

#: The least share of the model's weights that fewer bits than `stored` must gain.
_LEAST_SHARE = 0.01


def worth_narrowing(
    sites: tuple[Site, ...], weights: Mapping[str, Weight], wish: Wish, ctx: Context, total: int
) -> tuple[tuple[Site, ...], tuple[str, ...]]:
    """The sites, with `wish.stored` bits for weights that gain too little from less, and a note about them.

    `total` is the size of all weights of the model in bytes. Nothing changes where `wish.compute` is told: then the
    caller knows what products work on.
    """
    wide: dict[str, Site] = {}
    for site in sites:
        if wish.compute == "auto" and site.form == "stored" and site.kernel and site.bits < wish.stored:
            found = decide(weights[site.constant], replace(wish, bits=wish.stored), ctx, total)
            if isinstance(found, Site):
                wide[site.constant] = found
    gained = sum(wide[s.constant].bytes_after - s.bytes_after for s in sites if s.constant in wide)
    if not wide or gained >= _LEAST_SHARE * total:
        return sites, ()
    note = f"{wish.stored} bits for {', '.join(wide)}: {wish.bits} bits would save {gained} bytes, and no time"
    return tuple(wide.get(s.constant, s) for s in sites), (note,)
