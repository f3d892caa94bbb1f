"""Where a run's models compute: in this process, or on workers. No part of a run's configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from redinstruct.errors import UsageError
from redinstruct.models.placement import placed, placement

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Ray:
    """Ray's workers: ``address`` of a cluster (None: Ray is started on this machine), and how many ``workers``."""

    address: str | None = None
    workers: int | None = None


def computed_by(engine: str | Ray, *models: object) -> contextlib.AbstractContextManager[None]:
    """As :func:`computing`, for the Python functions: ``engine`` by name or as :class:`Ray`.

    Raises:
        UsageError: a model that is an object: it stays in this process.
    """
    if isinstance(engine, Ray):
        how = computing("ray", engine.address, engine.workers)
    else:
        how = computing(engine)
    if engine != "local" and not all(model is None or isinstance(model, str) for model in models):
        raise UsageError("engine: Ray's workers take models by id; an object stays in this process: engine='local'")
    return how


@contextlib.contextmanager
def computing(engine: str = "local", ray_address: str | None = None, workers: int | None = None) -> Iterator[None]:
    """Let the models that are made meanwhile compute by that engine; workers end with it.

    ``ray_address`` is a cluster's (None: Ray is started on this machine), ``workers`` how many (None: one on each GPU
    for models that compute, else one on each node).

    Raises:
        UsageError: an unknown engine, what it does not take, or Ray is not installed.
    """
    if engine not in ENGINES:
        raise UsageError(f"unknown --engine {engine!r}: known are {', '.join(ENGINES)}")
    if engine == "local":
        if ray_address is not None or workers is not None:
            raise UsageError("--ray-address and --workers are for --engine ray")
        yield
        return
    if workers is not None and workers < 1:
        raise UsageError("--workers must be at least 1")
    if placement().devices is not None:
        raise UsageError("--device: with --engine ray, Ray gives each worker its GPU; leave it out")
    from redinstruct.engine.ray_engine import RayEngine

    with RayEngine(ray_address, workers) as made, placed(replace(placement(), elsewhere=made)):
        yield
