"""Run seeds from the command line; see the package's docstring."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.planted import PLANTED
from tests.simulation.rules import REAL
from tests.simulation.world import Violation, World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=2_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="tell what happens")
    parser.add_argument("--planted", choices=sorted(PLANTED), help="with this bug planted")
    parser.add_argument("--go-on", action="store_true", help="do not stop at the first failing seed")
    given = parser.parse_args()
    rules = PLANTED[given.planted] if given.planted else REAL
    seeds = [given.seed] if given.seed is not None else range(given.first, given.first + given.seeds)
    counts: Counter[str] = Counter()
    began = time.process_time()
    failed = 0
    for seed in seeds:
        try:
            counts += World(seed, rules, tell=given.trace).run()
        except Violation as violation:
            failed += 1
            print(f"{violation}\n    again: python -m tests.simulation --seed {seed} --trace", flush=True)
            if not given.go_on:
                break
    spent = time.process_time() - began
    for event, number in sorted(counts.items()):
        print(f"{number:9} {event}")
    print(f"{failed} failed, {spent:.1f} s of CPU, {len(seeds) / spent:.0f} seeds/s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
