"""What judging guesses costs, and what speculation brings: the chapter's own functions, and a simulation."""

from __future__ import annotations

from typing import Any

from _inference import expected_tokens, measured, rising, speedups

ALPHAS = (0.0, 0.3, 0.5, 0.8, 0.95, 1.0)
COSTS = (0.0, 0.05, 0.3)
SEEDS = (1, 2, 12345)
ROUNDS = 200
MASK = 2**32 - 1


def files() -> dict[str, Any]:
    costs = rising(measured()["chunks"]["judging"])
    judging = [round(cost / costs[0], 4) for cost in costs]
    ways = {"free": [1.0] * len(judging), "measured": judging}
    gains = [
        {"alpha": alpha, "cost": cost, "judging": way, "speedups": speedups(alpha, cost, ways[way])}
        for alpha in ALPHAS
        for cost in COSTS
        for way in ways
    ]
    tokens = [{"alpha": a, "guesses": n, "tokens": expected_tokens(a, n)} for a in ALPHAS for n in range(len(judging))]
    rounds = [
        {"alpha": a, "guesses": n, "seed": seed, "rounds": simulate(a, n, seed)}
        for a in (0.3, 0.8)
        for n in (0, 4, 8)
        for seed in SEEDS
    ]
    return {
        "speculate.json": {"judging": judging},
        "speculate-vectors.json": {"tokens": tokens, "gains": gains, "rounds": rounds},
    }


def simulate(alpha: float, guesses: int, seed: int, count: int = ROUNDS) -> list[int]:
    """Tokens of each round: each guess is accepted with probability alpha until the first that is not, and one more."""
    draws, rounds = Mulberry(seed), []
    for _ in range(count):
        kept = 0
        while kept < guesses and draws.next() < alpha:
            kept += 1
        rounds.append(kept + 1)
    return rounds


class Mulberry:
    """The generator that the page uses (mulberry32): 32 bits of state, a number in [0, 1) for each call."""

    def __init__(self, seed: int) -> None:
        self.state = seed & MASK

    def next(self) -> float:
        self.state = (self.state + 0x6D2B79F5) & MASK
        t = ((self.state ^ (self.state >> 15)) * (self.state | 1)) & MASK
        t ^= (t + ((t ^ (t >> 7)) * (t | 61) & MASK)) & MASK
        return ((t ^ (t >> 14)) & MASK) / 2**32
