"""How rough one seed is: sizes, rates of faults, and which rare events can happen at all.

Each seed leaves most rare events out, so that those left in meet each other often enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.partition import Limits

if TYPE_CHECKING:
    from random import Random

# Weight of each rare event when it is enabled, against about 100 for all ordinary steps together.
RARE = {
    "broker drops": 3.0,
    "broker doubles": 2.0,
    "broker reorders": 2.0,
    "broker delays": 2.0,
    "broker wiped": 0.7,
    "bridge crash": 1.0,
    "bridge stop": 0.6,
    "rebalance told": 0.8,
    "rebalance untold": 1.2,
    "lanes wanted": 0.8,
    "group rewound": 0.8,
    "topic made anew": 0.4,
    "retention": 0.4,
    "offsets expire": 0.5,
    "transaction": 2.0,
    "log cut": 0.15,
    "store goes back": 0.7,
    "hand-over to stock": 0.5,
    "time jump": 1.5,
    "offset gap": 1.0,
}
RATES = ("unknown", "unavailable", "crash", "too large", "kafka away", "redis away")


@dataclass(frozen=True)
class Profile:
    """One seed's choices."""

    partitions: int
    runs: int
    lanes: int
    records: int
    steps: int
    trouble: float  # share of records that are trouble
    interleaving: float  # chance that others act during a transaction
    rates: dict[str, float]
    rare: dict[str, float]
    limits: Limits
    time_limit: float
    capacity: int  # weight of the largest transaction
    staged: int  # size of a record from which on its dead letter is staged
    stock_first: bool

    @staticmethod
    def draw(rng: Random) -> Profile:
        rates = {name: rng.choice((0.0, 0.01, 0.03, 0.08)) for name in RATES}
        rare = {name: weight * rng.choice((0.5, 1.0, 2.0)) for name, weight in RARE.items() if rng.random() < 0.4}
        limits = Limits(
            batch_records=rng.choice((1, 2, 3, 5, 100)),
            batch_bytes=rng.choice((100, 300, 1_000_000)),
            linger=rng.choice((0.0, 0.02, 0.2)),
            held_bytes=rng.choice((500, 3_000, 64_000_000)),
            ahead=rng.choice((3, 10, 1_000_000)),
            stall=rng.choice((1.0, 3.0)),
            stall_cap=4.0,
        )
        return Profile(
            partitions=rng.choice((1, 1, 2)),
            runs=rng.choice((1, 2, 3)),
            lanes=rng.choice((1, 2, 3)),
            records=rng.randint(8, 30),
            steps=rng.randint(80, 220),
            trouble=rng.choice((0.0, 0.05, 0.15)),
            interleaving=rng.choice((0.0, 0.1, 0.3, 0.6)),
            rates=rates,
            rare=rare,
            limits=limits,
            time_limit=3.0,
            capacity=rng.choice((2, 3, 1_000)),
            staged=rng.choice((50, 4_000_000)),
            stock_first=rng.random() < 0.3,
        )
