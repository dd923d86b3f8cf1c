"""Which examples to label next: what a model is unsure about, or what stands for many others."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewshot_course._checks import check_choice, check_number

STRATEGIES = ("random", "uncertainty", "margin", "representative", "unsure cores")


def label_next(
    strategy: str, proba: np.ndarray, X: Any, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Choose examples to label next.

    Args:
        strategy: "random"; "uncertainty": the largest of the probabilities is smallest (Lewis &
            Gale 1994); "margin": the two largest are nearest to each other (Scheffer et al.
            2001); "representative": nearest to the means of n clusters; or "unsure cores": of
            each of n clusters that with the smallest margin.
        proba: what a model says of each unlabelled example, ``(m, C)``.
        X: their features ``(m, d)``, dense or sparse.
        n: how many.
        rng: draws, and begins the clusters.

    Returns:
        Indices ``(min(n, m),)``.
    """
    check_choice("strategy", strategy, STRATEGIES)
    check_number("n", n, low=1, integer=True)
    m = len(proba)
    n = min(n, m)
    order = rng.permutation(m)  # breaks ties
    if strategy == "random":
        return order[:n]
    top = np.sort(proba, axis=1)
    if strategy == "uncertainty":
        return order[np.argsort(top[order, -1], kind="stable")[:n]]
    margin = top[:, -1] - top[:, -2]
    if strategy == "margin":
        return order[np.argsort(margin[order], kind="stable")[:n]]
    from sklearn.cluster import KMeans

    clusters = KMeans(n, n_init=1, random_state=int(rng.integers(2**31))).fit(X)
    if strategy == "representative":
        cost = clusters.transform(X)[np.arange(m), clusters.labels_]
    else:
        cost = margin
    chosen = []
    for k in np.unique(clusters.labels_):
        own = order[clusters.labels_[order] == k]
        chosen.append(own[np.argmin(cost[own])])
    rest = order[~np.isin(order, chosen)]  # where clusters were empty
    return np.concatenate([chosen, rest])[:n].astype(np.int64)
