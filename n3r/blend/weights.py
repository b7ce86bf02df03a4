"""The weights of a blend's members, from their scores of rows that they have not seen.

Decisions:
- Greedy selection with replacement (Caruana et al., "Ensemble Selection from Libraries of Models", 2004), by
  AUC, shrunk towards equal weights of the members that are not shown to be worse than the best one. The
  rarest class decides by how much: a greedy choice among few frauds is a choice of their noise.
- Where a blend would rank these rows worse than its best member, the greedy choice counts more; a blend of
  one is allowed.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from n3r.estimate import rank_auc
from n3r.graphs import mean_probs
from n3r.metrics import class_auc, paired_auc

LOSS = 0.001  # of AUC that a blend may be behind its best member on these rows: chance
MIN_WEIGHT = 0.05  # less moves no score by much, and costs as much to compute
N_ROUNDS = 30
N_TRUSTED = 200  # rows of the rarest class at which greedy and equal weights count the same


def blended(p: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """The blend (N, C) of members' probabilities (N, C), as its graph gives it."""
    return mean_probs([p[name] for name in weights], list(weights.values()))


def choose_weights(label: np.ndarray, p: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The weights, summing to 1, of the members that help; `p` are probabilities (N, C) of held-out rows."""
    alone = {name: _auc(label, scores) for name, scores in p.items()}
    best = max(alone, key=alone.get)
    greedy = _greedy(label, p, best)
    peers = [name for name in p if not _is_worse(label, p[name], p[best])]
    fewest = int(np.bincount(label)[np.unique(label)].min())
    for trust in np.linspace(fewest / (fewest + N_TRUSTED), 1, 5):
        shares = {n: trust * greedy.get(n, 0) + (1 - trust) * (n in peers) / len(peers) for n in p}
        weights = _without_little(shares)
        if _auc(label, blended(p, weights)) >= alone[best] - LOSS:
            return weights
    return {best: 1.0}


def _without_little(shares: Mapping[str, float]) -> dict[str, float]:
    """The shares that are worth a member's cost, summing to 1; the largest is."""
    worth = {name: share for name, share in shares.items() if share >= min(MIN_WEIGHT, max(shares.values()))}
    return {name: float(share / sum(worth.values())) for name, share in worth.items()}


def gains(label: np.ndarray, p: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> dict[str, float]:
    """What each member adds to the AUC of the blend: that of the blend less that of the others'."""
    whole = _auc(label, blended(p, weights))
    others = {name: {n: w for n, w in weights.items() if n != name} for name in weights}
    return {name: whole - (_auc(label, blended(p, rest)) if rest else 0.5) for name, rest in others.items()}


def _greedy(label: np.ndarray, p: Mapping[str, np.ndarray], first: str) -> dict[str, float]:
    """Members added one by one, again and again, each the one that helps most; the best of the stages."""
    chosen = [first]
    stages = {_auc(label, p[first]): [first]}
    for _ in range(N_ROUNDS - 1):
        found = {name: _auc(label, blended(p, _shares([*chosen, name]))) for name in p}
        chosen.append(max(found, key=found.get))
        stages.setdefault(found[chosen[-1]], list(chosen))
    return _shares(stages[max(stages)])


def _shares(chosen: Sequence[str]) -> dict[str, float]:
    return {name: chosen.count(name) / len(chosen) for name in dict.fromkeys(chosen)}


def _is_worse(label: np.ndarray, p: np.ndarray, best: np.ndarray) -> bool:
    """Whether a member is shown to rank worse than the best one."""
    if p.shape[1] == 2:
        high = paired_auc(label, p[:, 1], best[:, 1]).difference.high
        return high is not None and high < 0
    high, low = class_auc(label, p).high, class_auc(label, best).low
    return high is not None and low is not None and high < low


def _auc(label: np.ndarray, p: np.ndarray) -> float:
    """AUC of class 1, or the mean of each class against the rest, without an interval: hundreds are taken."""
    found = [rank_auc(label == c, p[:, c]) for c in ([1] if p.shape[1] == 2 else range(p.shape[1]))]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else 0.5
