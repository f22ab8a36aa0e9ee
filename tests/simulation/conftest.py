from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--seeds", type=int, default=2_000, help="how many stories the simulation tells")
    group.addoption("--first-seed", type=int, default=0, help="the first of them")
