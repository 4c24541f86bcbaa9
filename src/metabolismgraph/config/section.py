"""The base class of all sections of a configuration."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

_LARGEST, _LARGEST_SEED = 2**31 - 1, 2**63 - 1  # whole numbers that arrays can be indexed by, and generators take

NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A section: frozen, without unknown keys, with finite numbers only."""

    # ser_json_inf_nan: an option of a loaded strategy may be infinite, and must be written as such.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, ser_json_inf_nan="constants"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: object, info: Any) -> object:
        # pydantic accepts true as 1, and in YAML `yes`, `no`, `on` and `off` are booleans too.
        annotation = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError("expected a value that is not true or false")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _no_huge_whole_number(cls, value: object, info: Any) -> object:
        most = _LARGEST_SEED if info.field_name == "seed" else _LARGEST
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and abs(number) > most:
                raise ValueError(f"expected a whole number of at most {most}")
        return value


def check_order(section: BaseModel, low: str, high: str) -> None:
    """Check that the value of key `low` does not exceed that of key `high`.

    Raises:
        ValueError: it does.
    """
    if getattr(section, low) > getattr(section, high):
        raise ValueError(f"{low} ({getattr(section, low):g}) must not exceed {high} ({getattr(section, high):g})")
