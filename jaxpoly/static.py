"""Fields of a pytree dataclass that are structure, not data."""

from dataclasses import MISSING, field
from typing import Any


def static(default: Any = MISSING) -> Any:
    """Declare a field that is compared by value, sets the structure and is never traced."""
    return field(default=default, metadata={"static": True})
