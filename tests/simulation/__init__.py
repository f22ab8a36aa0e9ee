"""A seeded simulation of the real deciding code: partitions, take-overs, ledger and batch application, under faults.

One seed is one story: a fake store, a fake Kafka and a lossy broker, bridges and workers that run the real rules one
step at a time, and a scheduler that draws every step and every fault from ``random.Random(seed)``. After the faults it
runs until nothing is left to do, and then every record must have been applied exactly once, in its run's order, or be
a dead letter.

    python -m tests.simulation --seeds 100000            # many
    python -m tests.simulation --seed 4711 --trace       # one, told step by step
    python -m tests.simulation --planted no_floor        # until a planted bug is found
"""
