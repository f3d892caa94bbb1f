"""Workers on Ray: actors that hold the run's models, on this machine or on a cluster's.

Ray is started when the first model is asked for, and ended with the command. Started here, it has a folder of its own
(owner-only; Ray itself makes its folders for everybody), a token that nobody else knows and that is written nowhere, no
dashboard, no telemetry. Nothing but bytes goes through it: no object of this program is pickled. Keys and addresses are
read by each worker in its own node's environment. SECURITY.md says what Ray itself exposes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from redinstruct.checkpoints.embedded import LOCAL_KINDS
from redinstruct.engine.hosting import Host
from redinstruct.engine.remote import RemoteModel, Suspects, Worker, WorkerLost, held_by
from redinstruct.engine.wire import ModelSpec
from redinstruct.errors import ConfigError
from redinstruct.models.placement import placement
from redinstruct.safetext import terminal

STORE_BYTES = 128 << 20
"""Ray's shared memory on this machine; a message is a few hundred kilobytes at most."""
CONNECT_SECONDS = 10.0
STARTS = 3
YOUNG_SECONDS = 60.0
_LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""Ray would replace the usual one by this machine's address on the network."""
_SILENCE = {"RAY_DEDUP_LOGS": "1", "RAY_DEDUP_LOGS_ALLOW_REGEX": "(?!)", "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}
"""Ray's driver prints what its workers die of to standard output, which is the command's: JSON, perhaps. It skips the
lines that fit a pattern of the user's: here all of them do."""
_OURS = "redinstruct-ray-"
_LONGEST_FOLDER = 40
"""Characters: Ray puts sockets below it, whose paths may have 107."""


class RayEngine:
    """Makes models on Ray's workers; a context manager, which ends them."""

    def __init__(self, address: str | None, workers: int | None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("--engine ray needs Ray: pip install 'redinstruct[ray]'")
        self._named = None if address in (None, "auto") else _host_and_port(address or "")
        self._address = address
        self._count = workers
        self._ray: Any = None
        self._ending = contextlib.ExitStack()
        self._suspects = Suspects()
        self._pools: dict[bool, list[Worker]] = {}
        self._held: dict[bool, int] = {}

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.close()

    def make(self, spec: str, options: str, timeout: float, chat_template: str) -> RemoteModel:
        """The model of that id, loaded by every worker.

        Raises:
            ConfigError: there is no Ray at the address, or it cannot start the workers.
            ModelSpecError: as :func:`redinstruct.models.make_model`, on a worker.
        """
        if self._ray is None:
            if self._named is not None:
                _check_there(*self._named)
            self._ray = self._ending.enter_context(_ray(self._address))
        computes = spec.startswith(LOCAL_KINDS)
        if computes not in self._pools:
            self._pools[computes] = self._start(computes=computes)
        pool, number = self._pools[computes], self._held.get(computes, 0)
        self._held[computes] = number + 1
        here = placement()
        wanted = ModelSpec(_absolute(spec), options, timeout, chat_template, here.batch, here.threads)
        return held_by(pool, number, wanted, "--ray-address")

    def _start(self, *, computes: bool) -> list[Worker]:
        """A worker on each GPU for models that compute, where there are any; else one on each node."""
        free: dict[str, float] = self._ray.available_resources()
        gpus, cpus = int(free.get("GPU", 0)), int(free.get("CPU", 0))
        has_gpus = bool(self._ray.cluster_resources().get("GPU"))
        nodes = sum(bool(node["Alive"]) for node in self._ray.nodes())
        needs: dict[str, float] = {"num_cpus": 0}
        count = self._count or nodes
        if computes and has_gpus:
            needs["num_gpus"] = 1
            count = self._count or gpus
            if not 1 <= count <= gpus:
                raise ConfigError(f"--engine ray: {gpus} of the cluster's GPUs are free, for {max(1, count)} workers")
        elif computes:
            needs["num_cpus"] = 1
            if count > cpus:
                raise ConfigError(f"--engine ray: {cpus} of the cluster's CPUs are free, for {count} workers")
        options = {**needs, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 8,
                   "scheduling_strategy": "SPREAD"}  # fmt: skip
        actor = self._ray.remote(RedInstructWorker).options(**options)
        return [Worker(lambda: _ActorLink(self._ray, actor), self._suspects) for _ in range(count)]


class RedInstructWorker:
    """A :class:`Host` as Ray's worker holds it. Its methods are coroutines, so that all run in one loop."""

    def __init__(self) -> None:
        self._host: Host | None = None

    async def load(self, packed: bytes) -> bytes:
        if self._host is None:
            self._host = Host()
        # In a thread: a large checkpoint takes minutes, and Ray asks the loop whether it is alive.
        return await asyncio.to_thread(self._host.load, packed)

    async def take(self, packed: bytes) -> None:
        assert self._host is not None
        self._host.take(packed)

    async def exchange(self, packed: bytes) -> bytes:
        assert self._host is not None
        return await self._host.exchange(packed)


class _ActorLink:
    """The way to one actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor.remote()
        self._loads: list[Any] = []
        self._coming: Any = None

    def load(self, packed: bytes) -> None:
        self._loads.append(self._actor.load.remote(packed))

    def loaded(self, wait: float | None) -> list[bytes] | None:
        done, _ = self._ray.wait(self._loads, num_returns=len(self._loads), timeout=wait)
        if len(done) < len(self._loads):
            return None
        try:
            told: list[bytes] = self._ray.get(self._loads)
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(_first_line(error)) from None
        return told

    def send(self, packed: bytes) -> None:
        self._actor.take.remote(packed)

    async def exchange(self, packed: bytes) -> bytes:
        if self._coming is None:
            self._coming = self._actor.exchange.remote(packed)
        elif packed:
            self.send(packed)
        try:
            told: bytes = await self._coming
        except self._ray.exceptions.RayError as error:
            self._coming = None
            raise WorkerLost(_first_line(error)) from None
        self._coming = None
        return told


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def _absolute(spec: str) -> str:
    """A folder by its whole path: workers stand elsewhere."""
    kind, _, rest = spec.partition("/")
    return f"{kind}/{Path(rest).resolve()}" if spec.startswith(LOCAL_KINDS) and Path(rest).is_dir() else spec


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and "/" not in host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(
            f"--ray-address {terminal(address)[:60]}: expected HOST:PORT, or auto on a node of the cluster (not ray://)"
        )
    return host, int(port)


def _check_there(host: str, port: int) -> None:
    """Ray itself tries for minutes, and says little."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        said = error.strerror or str(error) or "no answer"
        raise ConfigError(f"--engine ray: no Ray at --ray-address {host}:{port} ({said})") from None


@contextlib.contextmanager
def _ray(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster at the address, or started on this machine.

    Raises:
        ConfigError: there is none, or it does not start.
    """
    with contextlib.ExitStack() as ending:
        folder: Path | None = None
        environment = {"RAY_USAGE_STATS_ENABLED": "0", "GRPC_VERBOSITY": "NONE", **_SILENCE}
        if address is None:
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            folder = ending.enter_context(private_folder())
        ending.enter_context(_environment(environment))
        try:
            import ray
        except ImportError as error:
            raise ConfigError(f"--engine ray: Ray cannot be imported ({_first_line(error)})") from None
        try:
            with _signals_kept():
                if folder is None:
                    ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
                else:
                    _start_here(ray, folder)
        except Exception as error:  # Ray raises plain ones, too
            ray.shutdown()
            where = "Ray did not start" if address is None else f"no Ray at --ray-address {address}"
            raise ConfigError(f"--engine ray: {where} ({_first_line(error)})") from None
        ending.callback(ray.shutdown)
        yield ray


def _start_here(ray: Any, folder: Path) -> None:
    """Start Ray on this machine; again where its own wait (half a minute) was too short for a busy one."""
    for number in range(1, STARTS + 1):
        try:
            ray.init(
                address="local", include_dashboard=False, _temp_dir=str(folder / str(number)), log_to_driver=False,
                object_store_memory=STORE_BYTES, _node_ip_address=_LOOPBACK, logging_level=logging.CRITICAL,
            )  # fmt: skip
        except Exception:
            ray.shutdown()
            if number == STARTS:
                raise
        else:
            return


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """These variables set, for Ray's own processes; what was there comes back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; how a run ends on it is the command's."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        yield
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """An owner-only folder for Ray's files, removed at the end; those that killed commands left are removed first."""
    base = Path(tempfile.gettempdir())
    base = base if len(str(base)) + len(_OURS) + 8 <= _LONGEST_FOLDER else Path("/tmp")  # noqa: S108 - mkdtemp below
    for left in base.glob(f"{_OURS}*"):
        _remove_if_left(left)
    folder = Path(tempfile.mkdtemp(prefix=_OURS, dir=base))
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_if_left(folder: Path) -> None:
    """Remove the folder of a command that is no more: nobody holds its lock."""
    with contextlib.suppress(OSError):
        there = folder.lstat()
        if folder.is_symlink() or there.st_uid != os.getuid():
            return
        # One that was killed in its first moment has no lock; one that is in its first moment has none yet.
        made = os.O_CREAT if time.time() - there.st_mtime > YOUNG_SECONDS else 0
        lock = os.open(folder / "lock", os.O_RDWR | made | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
