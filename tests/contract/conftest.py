from tests.contract.stores import azurite, gcs, given, moto, place, versity
from tests.engines import engine, kind, space

__all__ = ["azurite", "engine", "gcs", "given", "kind", "moto", "place", "space", "versity"]
