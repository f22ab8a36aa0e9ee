from tests.engines import engine, kind, space

__all__ = ["engine", "kind", "space"]
