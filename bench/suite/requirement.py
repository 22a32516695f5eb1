"""What a suite requires of the machine: `require: {gpu: H200, gpus: 8, memory: 80GiB}`."""

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bench.core.errors import InputError
from bench.core.threshold import UNITS, parse_threshold
from bench.core.units import format_value, plural


class Requirement(BaseModel):
    """The hardware that cases which run on a device need."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu: str | None = Field(default=None, min_length=1, description="A part of the GPU's name, in any case.")
    gpus: int | None = Field(default=None, ge=1, description="Number of GPUs; 1 if only `gpu` is given.")
    memory: str | None = Field(default=None, description="Main memory of the machine, such as `80GiB`.")

    @field_validator("memory")
    @classmethod
    def _is_memory(cls, text: str | None) -> str | None:
        if text is not None:
            _bytes_of(text)
        return text

    @model_validator(mode="after")
    def _says_something(self) -> "Requirement":
        if self.gpu is None and self.gpus is None and self.memory is None:
            raise ValueError("is empty; allowed: gpu, gpus, memory")
        return self

    @property
    def gpu_count(self) -> int:
        """How many GPUs are needed: one if only a name is given."""
        return self.gpus or (1 if self.gpu else 0)

    @property
    def memory_bytes(self) -> int | None:
        return None if self.memory is None else _bytes_of(self.memory)

    def fits_gpu(self, name: str) -> bool:
        """Whether a GPU of this name is the one that is required; any is if none is named."""
        return self.gpu is None or self.gpu.casefold() in name.casefold()

    def unmet(self, *, gpus: tuple[str, ...], memory_bytes: int) -> str | None:
        """What is missing on a machine with GPUs of these names; None if it has all that is needed."""
        fitting = [name for name in gpus if self.fits_gpu(name)]
        if len(fitting) < self.gpu_count:
            wanted = plural(self.gpu_count, f"{self.gpu} GPU" if self.gpu else "GPU")
            return f"needs {wanted}; found {', '.join(gpus) or 'no GPU'}"
        if self.memory_bytes is not None and memory_bytes < self.memory_bytes:
            return f"needs {self.memory} of memory; found {format_value(memory_bytes, 'B')}"
        return None


def _bytes_of(text: str) -> int:
    """Parse an amount of memory such as `80GiB`; raises ValueError for anything else."""
    try:
        threshold = parse_threshold(text)
    except InputError:
        threshold = None
    if threshold is None or UNITS.get(threshold.unit, ("", 0.0))[0] != "B" or not threshold.amount:
        raise ValueError("should be an amount of memory such as 80GiB or 512MiB")
    return round(threshold.amount * UNITS[threshold.unit][1])
