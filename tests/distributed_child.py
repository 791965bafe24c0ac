"""What tests/test_distributed.py asks of each process of a job, started by docs/launch.py.

`distributed_child.py FOLDER ROWS ROWS ...` takes so many rows of FOLDER/data.npz in each process
and writes FOLDER/PROCESS.json.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

import jaxpoly as jp


def main(folder: Path, counts: list[int]) -> None:
    jax.config.update("jax_enable_x64", True)
    process = jax.process_index()
    data = np.load(folder / "data.npz")
    first = sum(counts[:process])
    own = slice(first, first + counts[process])
    columns = [data[name][own] for name in ("inputs", "targets", "weight")]
    found: dict[str, object] = {"processes": jax.process_count()}

    # As many rows in each, and on each device.
    even = [column[:50] for column in columns[:2]]
    found["even_weighted"] = jp.shard_rows(*even)[0].sample_weight is not None
    found["uneven_weighted"] = jp.shard_rows(*columns[:2])[0].sample_weight is not None

    lifting, targets = jp.shard_rows(*columns)
    found["shape"] = lifting.inputs.shape
    found["shards"] = [shard.data.shape[0] for shard in lifting.inputs.addressable_shards]
    found["rows_here"] = sum(
        int(np.any(np.asarray(shard.data) != 0, axis=1).sum())
        for shard in lifting.inputs.addressable_shards
    )
    solution = jp.solve(jp.gauss_newton(2), lifting, targets, jax.random.key(1))
    truth = jp.LowRank(data["factor"], data["diagonal"])
    found["status"] = int(solution.status)
    found["num_steps"] = int(solution.num_steps)
    found["error"] = float(jp.relative_error(solution.value, truth))
    found["factor"] = np.asarray(solution.value.factor).tolist()
    # A negative weight in one process is known to none of the others before they begin.
    bad, _ = jp.shard_rows(*columns[:2], columns[2] - 10 * (process == 1))
    solution = jp.solve(jp.gauss_newton(2), bad, targets, jax.random.key(1))
    found["negative_weight"] = int(solution.status)

    if len(counts) == 4:
        # Compiles for long, so only where tests may be slow.
        weight, key = lifting.sample_weight, jax.random.key(1)
        solution = jp.recover(lifting.inputs, targets, 2, key=key, sample_weight=weight)
        found["recover_error"] = float(jp.relative_error(solution.value, truth))

    # What only one process has wrong is refused in all, so that none waits for another.
    odd = process == 1
    wrong = {
        "columns": (columns[0][:, odd:], columns[1]),
        "dtype": (columns[0].astype(np.float32 if odd else np.float64), columns[1]),
        "weights": columns[: 2 + odd],
        "mesh": (*columns[:2], None, jax.sharding.Mesh(jax.devices()[:1], ("rows",))),
        "twice": (lifting.inputs, targets),
    }
    for name, arguments in wrong.items():
        try:
            jp.shard_rows(*arguments)
        except (TypeError, ValueError) as error:
            found[name] = str(error)
    (folder / f"{process}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]])
