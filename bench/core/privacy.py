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
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|AUTH|CREDENTIAL", re.IGNORECASE)
HOME = re.compile(r"(?<![\w./-])(?:/home|/Users|/export/home)/[^/\s'\":,;)]+(?=[/\s'\":,;)]|$)")


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
    """A copy in which home folders and host names are replaced, outside of the case's own point."""
    clean = without_secrets(record)
    environment = {key: _anonymous(value) for key, value in clean.environment.model_dump().items()}
    return clean.model_copy(
        update={
            "details": _anonymous(clean.details),
            "environment": Environment.model_validate(environment),
            "warnings": tuple(w.model_validate(_anonymous(w.model_dump())) for w in clean.warnings),
            "error": clean.error and clean.error.model_validate(_anonymous(clean.error.model_dump())),
            "artifacts": _anonymous(clean.artifacts),
        }
    )


def anonymous_text(text: str) -> str:
    """`text` with `~` for home folders and `host-<6 hex digits>` for the name of this machine."""
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


def _anonymous(value: Any) -> Any:
    if isinstance(value, str):
        return anonymous_text(value)
    if isinstance(value, dict):
        return {key: _anonymous(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_anonymous(item) for item in value]
    return value


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
