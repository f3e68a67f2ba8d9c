"""The tokens by which a model knows the texts of a column."""

import heapq
from collections import Counter
from collections.abc import Iterable

from app.registry.signature import split_text

MAX_COUNTED = 1_000_000
"""Of more different tokens, the rarer half is forgotten and counted anew."""


def frequent_tokens(texts: Iterable[str | None], *, most: int, ngrams: int) -> tuple[str, ...]:
    """The ``most`` frequent tokens of the texts, in alphabetical order; of equals the first."""
    counts: Counter[str] = Counter()
    for text in texts:
        if text is not None:
            counts.update(split_text(text, ngrams))
        if len(counts) > MAX_COUNTED:
            counts = Counter(dict(counts.most_common(MAX_COUNTED // 2)))
    ranked = heapq.nsmallest(most, counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(sorted(token for token, _ in ranked))
