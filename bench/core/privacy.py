"""What a record may say of a user and a machine: no secrets, no home folders, no host names.

Records are meant to be published and kept in git. Unless the user asks for `--identify`, home folders become `~` and
host names `host-<6 hex digits>`, outside of the case's own point, which must stay what it is to be run again.
"""

import hashlib
import os
import re
import socket
from functools import cache
from pathlib import Path
from typing import Any

from bench.core.files import write_atomically
from bench.core.schema import Environment, Record

# Settings that change what is measured. Exact names: a prefix such as NVIDIA_ would also match NVIDIA_API_KEY.
RECORDED_VARIABLES = frozenset(
    {
        *("CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE", "CUDA_CACHE_DISABLE", "CUDA_DEVICE_MAX_CONNECTIONS"),
        *("CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING", "CUDA_VISIBLE_DEVICES"),
        *("CUDNN_DETERMINISTIC", "CUDNN_LOGINFO_DBG", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_BLOCKTIME"),
        *("KMP_HW_SUBSET", "MALLOC_CONF", "MKL_DYNAMIC", "MKL_ENABLE_INSTRUCTIONS", "MKL_NUM_THREADS"),
        *("NCCL_ALGO", "NCCL_BUFFSIZE", "NCCL_IB_DISABLE", "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_PROTO"),
        *("NCCL_SHM_DISABLE", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE", "NVIDIA_VISIBLE_DEVICES"),
        *("OMP_DYNAMIC", "OMP_NUM_THREADS", "OMP_PLACES", "OMP_PROC_BIND", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS"),
        *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHDYNAMO_DISABLE"),
        *("TORCHINDUCTOR_COMPILE_THREADS", "TORCHINDUCTOR_FREEZING", "TORCHINDUCTOR_MAX_AUTOTUNE"),
        *("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_CUDNN_V8_API_DISABLED", "TORCH_NCCL_ASYNC_ERROR_HANDLING"),
        *("TORCH_USE_CUDA_DSA",),
    }
)
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|_PWD|AUTH|CREDENTIAL|COOKIE", re.IGNORECASE)
# `NVIDIA_API_KEY=nvapi-1`, `'HF_TOKEN': 'hf_1'`: what programs print of their environment. Upper case only, so that
# words such as `key=value` of other texts stay. Lengths have limits, so that no text takes quadratic time.
SECRET_ASSIGNMENT = re.compile(
    r"(?<![A-Z0-9_])(?P<name>[A-Z0-9_]{0,60}(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|_PWD|AUTH|CREDENTIAL|COOKIE)[A-Z0-9_]{0,60}"
    r"[\\'\"]*\s?[=:]\s?[\\'\"]*)(?P<value>[^\s\\'\",;]{4,})"
)
# Secrets that show in any text, also one of another machine: logins and parameters of addresses, tokens of services.
LOGIN = re.compile(
    r"(?<![a-z0-9+.-])(?P<scheme>[a-z][a-z0-9+.-]{0,20}://)(?P<login>[^\s/@'\"<>]{1,300})(?=@)", re.IGNORECASE
)
SECRET_PARAMETER = re.compile(
    r"(?P<name>[?&][\w-]{0,60}(?:token|key|secret|passw|auth|credential|signature)[\w-]{0,60}=)[^&\s'\"]{4,}",
    re.IGNORECASE,
)
BEARER = re.compile(r"(?P<name>\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
SERVICE_TOKEN = re.compile(
    r"(?<![\w-])(?:hf_\w{20,}|gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|nvapi-[\w-]{20,}|sk-[\w-]{20,}"
    r"|xox[abprs]-[\w-]{10,}|AKIA[A-Z0-9]{12,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})"
)
HIDDEN = "***"
SHORTEST_SECRET = 8  # shorter values of secret variables, such as `1`, are found in any text
# Also those of clusters, such as /gpfs/home/ada.
HOME = re.compile(r"(?<![\w./-])(?:/root|(?:/[\w.-]+){0,3}/(?:home|Users)/[^/\s'\":,;)]+)(?=[/\s'\":,;)]|$)")


def recorded_variables() -> dict[str, str]:
    """The environment variables of this process that a record may hold."""
    return {name: value for name, value in sorted(os.environ.items()) if _is_recorded(name)}


def without_secrets(record: Record) -> Record:
    """The record itself, or a copy without environment variables that older versions stored and may be secret."""
    state = record.environment.state
    secret = [key for key in state if key.startswith("env.") and not _is_recorded(key.removeprefix("env."))]
    if not secret:
        return record
    kept = {key: value for key, value in state.items() if key not in secret}
    return record.model_copy(update={"environment": record.environment.model_copy(update={"state": kept})})


def without_identity(record: Record) -> Record:
    """A copy in which secrets, home folders and host names are replaced, outside of the case's own point."""
    return clean_record(record, identify=False)


def clean_record(record: Record, *, identify: bool) -> Record:
    """As `without_identity`; with `identify`, home folders and host names stay."""
    clean = without_secrets(record)
    clean_text = without_secret_values if identify else anonymous_text

    def cleaned(value: Any) -> Any:
        if isinstance(value, str):
            return clean_text(value)
        if isinstance(value, dict):
            return {clean_text(key): cleaned(item) for key, item in value.items()}
        return [cleaned(item) for item in value] if isinstance(value, list | tuple) else value

    environment = {key: cleaned(value) for key, value in clean.environment.model_dump().items()}
    return clean.model_copy(
        update={
            "details": cleaned(clean.details),
            "metrics": tuple(m.model_copy(update={"note": clean_text(m.note)}) if m.note else m for m in clean.metrics),
            "environment": Environment.model_validate(environment),
            "warnings": tuple(w.model_validate(cleaned(w.model_dump())) for w in clean.warnings),
            "error": clean.error and clean.error.model_validate(cleaned(clean.error.model_dump())),
            "artifacts": cleaned(clean.artifacts),
        }
    )


def without_secret_values(text: str) -> str:
    """`text` with `***` for values of this process's secret environment variables, and for secrets that it spells out.

    The latter are variables with their values, logins and parameters of addresses, and tokens of well-known services.
    """
    for value in _secret_values():
        text = text.replace(value, HIDDEN)
    text = SERVICE_TOKEN.sub(HIDDEN, LOGIN.sub(_without_login, text))
    for named in (SECRET_ASSIGNMENT, SECRET_PARAMETER, BEARER):
        text = named.sub(lambda match: match["name"] + HIDDEN, text)
    return text


def _without_login(match: re.Match[str]) -> str:
    """The scheme alone; `ssh://git@` stays, since a user's name is no secret, unless it is a token as on the web."""
    is_secret = ":" in match["login"] or match["scheme"].lower().startswith("http")
    return match["scheme"] + HIDDEN if is_secret else match[0]


def clean_file(file: Path, *, start: int = 0, identify: bool = False) -> bool:
    """Remove secrets from a text file, and home folders and host names unless `identify`; returns whether it changed.

    The first `start` bytes stay as they are.
    """
    content = file.read_bytes()
    text = content[start:].decode(errors="surrogateescape")
    clean = without_secret_values(text) if identify else anonymous_text(text)
    if clean == text:
        return False
    write_atomically(file, content[:start] + clean.encode(errors="surrogateescape"))
    return True


def anonymous_text(text: str) -> str:
    """`text` without secrets, with `~` for home folders and `host-<6 hex digits>` for the name of this machine."""
    text = without_secret_values(text)
    home = _home()
    if home is not None:
        text = home.sub("~", text)
    text = HOME.sub("~", text)
    host = _host()
    return text if host is None else host.sub(lambda match: host_alias(match[0]), text)


def host_alias(name: str) -> str:
    """A stable name that does not tell which machine it is."""
    return f"host-{hashlib.sha256(name.partition('.')[0].lower().encode()).hexdigest()[:6]}"


def _is_recorded(name: str) -> bool:
    return name in RECORDED_VARIABLES and not SECRET_NAME.search(name)


@cache
def _secret_values() -> tuple[str, ...]:
    """Values of secret variables of this process, the longest first; sockets and files are no secrets."""
    found = {value for name, value in os.environ.items() if SECRET_NAME.search(name) and not _is_path(value)}
    return tuple(sorted((value for value in found if len(value) >= SHORTEST_SECRET), key=len, reverse=True))


def _is_path(value: str) -> bool:
    """Whether a value names something on this machine. A secret in base64 may begin with a slash as well."""
    try:
        return value.startswith("/") and os.path.lexists(value)
    except ValueError:  # a null character
        return False


@cache
def _home() -> re.Pattern[str] | None:
    try:
        home = str(Path.home())
    except RuntimeError:  # a user without a home
        return None
    if home in ("/", "."):
        return None
    return re.compile(rf"(?<![\w./-]){re.escape(home)}(?=[/\s'\":,;)]|$)")


@cache
def _host() -> re.Pattern[str] | None:
    """Matches this machine's name; None if it is an ordinary word, which would be replaced everywhere."""
    name = socket.gethostname().partition(".")[0]
    if len(name) < 4 or (name.isalpha() and len(name) < 8) or name.lower() == "localhost":
        return None
    return re.compile(rf"(?<![\w-]){re.escape(name)}(?:\.[\w.-]+)?(?![\w-])", re.IGNORECASE)
