"""A seeded simulation of the deciding code: the real partition, take-over, ledger and batch applier in a world of faults.

Kafka, Redis and the store are simulated (``kafka``, ``broker``, ``engine``), and so is time; who acts next, and what goes
wrong, is drawn from one seeded random source. Bridges and workers (``bridge``, ``worker``) do what the real loops do, one
step at a time; what they decide with is the real code. ``world`` runs a seed and checks the promise.
"""
