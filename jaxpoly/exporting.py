"""Names under which `jax.export` writes the package's dataclasses to bytes."""

from typing import Any

from jax import export

from jaxpoly.driver import Record
from jaxpoly.half_precision import HalfPrecision
from jaxpoly.inputs import Whitening
from jaxpoly.lifting import Lifting
from jaxpoly.lowrank import LowRank
from jaxpoly.network import QuadraticNetwork
from jaxpoly.rank_choice import RankCurve
from jaxpoly.recover import Recovery
from jaxpoly.run import Run
from jaxpoly.state import Solution, State
from jaxpoly.uncertainty import StandardErrors

# Solvers are not among them: they are part of what is exported, not given to it.
_DATA = (
    HalfPrecision,
    Lifting,
    LowRank,
    QuadraticNetwork,
    RankCurve,
    Record,
    Recovery,
    Run,
    Solution,
    StandardErrors,
    State,
    Whitening,
)


def _no_bytes(static: Any) -> bytes:
    return b""


def _no_static(data: bytes) -> tuple[()]:
    return ()


def register() -> None:
    """Let `jax.export` serialise functions of these; called once, where the package is imported."""
    for kind in _DATA:
        export.register_pytree_node_serialization(
            kind,
            serialized_name=f"jaxpoly.{kind.__name__}",
            serialize_auxdata=_no_bytes,
            deserialize_auxdata=_no_static,
        )
