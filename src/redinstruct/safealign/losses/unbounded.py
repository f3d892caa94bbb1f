"""``unbounded``: L_A + mean over red samples of -l, ascent without a bound, to compare with.

Jang et al. 2023, arXiv 2210.01504.
"""

from __future__ import annotations

from redinstruct.safealign.losses.red_instruct import ASCENT, ascent
from redinstruct.safealign.losses.strategy import Strategy

STRATEGY = Strategy("unbounded", ascent, pooled=True, reads=ASCENT)
