"""Rows over devices: the data of one fit, spread over all devices of all processes.

The solvers know nothing of it.  X lies in shards of its rows, the factor of L is replicated,
and JAX's partitioner turns sums over the samples into all-reduces.  No row of X moves.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from jaxpoly.lifting import Lifting
from jaxpoly.validation import check_length, real_array


def shard_rows(
    inputs: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    mesh: Mesh | None = None,
) -> tuple[Lifting, Array]:
    """Place the samples over the devices, the same number on each.

    In a run of several processes (`jax.distributed`) each of them calls this with
    its own rows, as many as it has, and the fit is to the rows of all.  Devices that
    are short of rows are filled up with zeros of zero weight.

    Args:
        inputs: X, (m, p), the rows of this process.  Read one shard at a time, so
            that it may be a memory map.
        targets: y, (m,).
        sample_weight: w >= 0, (m,), or None in every process.
        mesh: the devices, the rows over all its axes; by default all devices of all
            processes.

    Returns:
        The lifting and the targets, for `solve` and all else.  Rows keep their order,
        those of a process followed by its filling.  The weights are None if none are
        given and nothing is filled up, in every process.

    Raises:
        ValueError, TypeError: shapes that do not fit, data that are not real numbers, or
            are spread over devices already; processes with different columns or dtypes, or
            only some of them with weights; a mesh with explicit axes, or without devices of
            some process.

    Does not move rows from one process to another: all shards are as large as the
    largest, so the processes should have about the same number of rows a device.

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=300, dim=20, rank=2)
    >>> lifting, targets = jp.shard_rows(problem.lifting.inputs, problem.targets)
    >>> solution = jp.solve(jp.gauss_newton(2), lifting, targets, jax.random.key(1))
    >>> jp.Status(int(solution.status)).name
    'CONVERGED'
    """
    rows, dtype = real_array("inputs", inputs, ndim=2)
    columns: list[Any] = [rows, _column("targets", targets, rows, dtype)]
    if sample_weight is not None:
        columns.append(_column("sample_weight", sample_weight, rows, dtype))
    for array in columns:
        if isinstance(array, jax.core.Tracer) or (
            isinstance(array, jax.Array) and not array.is_fully_addressable
        ):
            raise TypeError(
                "shard_rows was given an array under jit or of several processes; expected "
                "arrays of this process, such as numpy arrays of its rows"
            )
        if isinstance(array, jax.Array) and not array.is_fully_replicated:
            raise ValueError(
                f"shard_rows was given an array over {len(array.sharding.device_set)} devices, "
                "whose last rows may be filling; expected the rows as they were before"
            )
    sharding = _row_sharding(mesh)
    rows_per_device, filled = _agree(rows, dtype, sample_weight is not None, sharding)
    if filled and sample_weight is None:
        columns.append(np.ones(rows.shape[0], dtype))
    placed = [_place(array, dtype, rows_per_device, sharding) for array in columns]
    return Lifting(placed[0], *placed[2:]), placed[1]


def _column(name: str, value: Any, rows: Any, dtype: Any) -> Any:
    array, _ = real_array(name, value, 1, dtype)
    check_length(name, array, rows)
    return array


def _row_sharding(mesh: Mesh | None) -> NamedSharding:
    if mesh is None:
        mesh = jax.make_mesh((jax.device_count(),), ("rows",), axis_types=(AxisType.Auto,))
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(
            f"mesh has axis types {mesh.axis_types}; expected Auto, from "
            "jax.make_mesh(..., axis_types=(jax.sharding.AxisType.Auto,))"
        )
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def _agree(rows: Any, dtype: Any, weighted: bool, sharding: NamedSharding) -> tuple[int, bool]:
    """Return the rows of a shard, and whether any shard is filled up: the same in all processes.

    All that could differ is exchanged first, so that all processes raise or none does.
    """
    num_devices = len(sharding.addressable_devices)
    facts = [*rows.shape, jnp.finfo(dtype).bits, weighted, num_devices]
    # One row a process.
    table = multihost_utils.process_allgather(np.array(facts, np.int32))
    for name, column in zip(("columns", "bits a number", "weights"), table.T[1:4], strict=True):
        if np.any(column != column[0]):
            raise ValueError(
                f"the processes have {column.tolist()} {name}; expected the same in each"
            )
    counts, devices = table[:, 0], table[:, 4]
    if not np.all(devices > 0):
        raise ValueError(
            f"mesh has {devices.tolist()} devices of the processes; expected some of each"
        )
    if counts.sum() == 0 or rows.shape[1] == 0:
        raise ValueError(
            f"inputs has shape {rows.shape}; expected at least one sample and one column"
        )
    rows_per_device = int(np.max(-(-counts // devices)))
    return rows_per_device, bool(np.any(rows_per_device * devices != counts))


def _place(array: Any, dtype: Any, rows_per_device: int, sharding: NamedSharding) -> Array:
    """Return the global array of which `array`, filled up with zeros, is the part here."""
    trailing = array.shape[1:]
    shape = (rows_per_device * sharding.num_devices, *trailing)
    where = sharding.devices_indices_map(shape)
    # A mesh orders devices as it likes: the first rows go where the first shard lies.
    devices = sorted(sharding.addressable_devices, key=lambda device: where[device][0].start or 0)
    shards = []
    for number, device in enumerate(devices):
        part = array[number * rows_per_device : (number + 1) * rows_per_device]
        # A copy in any case: JAX may use the memory of a numpy array as it is.
        block = np.zeros((rows_per_device, *trailing), dtype)
        block[: part.shape[0]] = part
        shards.append(jax.device_put(block, device))
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)
