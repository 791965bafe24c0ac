"""What tests/test_sharding.py asks of a process with eight devices.

`python sharding_child.py FOLDER PART` reads the data in FOLDER/data.npz, writes every answer to
FOLDER/PART.npz and every compiled program to FOLDER/NAME.hlo.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxpoly as jp

SOLVERS = {
    "ep_rom": jp.ep_rom(2),
    "ap_rom": jp.ap_rom(2),
    "factored": jp.factored_descent(2),
    "gauss_newton": jp.gauss_newton(2),
}


def keep(answers: dict[str, Any], name: str, solution: jp.Solution) -> None:
    answers[f"{name}/factor"] = solution.value.factor
    answers[f"{name}/diagonal"] = solution.value.diagonal
    answers[f"{name}/status"] = solution.status
    answers[f"{name}/num_steps"] = solution.num_steps


def most(data: Any, folder: Path) -> dict[str, Any]:
    answers: dict[str, Any] = {"num_devices": jax.device_count()}

    def compiled(name: str, function: Any, *args: Any) -> Any:
        program = jax.jit(function).lower(*args).compile()
        (folder / f"{name}.hlo").write_text(program.as_text())
        return program(*args)

    # 296 rows divide by eight.
    lifting, targets = jp.shard_rows(data["inputs"][:296], data["targets"][:296])
    answers["even/weighted"] = lifting.sample_weight is not None
    answers["even/shards"] = [shard.data.shape for shard in lifting.inputs.addressable_shards]
    key = jax.random.key(1)
    for name, solver in SOLVERS.items():
        solve = jax.tree_util.Partial(jp.solve, solver)
        keep(answers, name, compiled(name, solve, lifting, targets, key))
    block = np.ones((16, 3))
    answers["gradient"] = compiled(
        "gradient", lambda *data: jp.gradient_map(*data)(block), lifting, targets
    )
    answers["backproject"] = compiled("backproject", jp.backproject, lifting, targets, block)
    # A program that does gather, to see that it would be noticed.
    compiled("gathering", lambda inputs: inputs @ inputs.T, lifting.inputs)

    # 301 rows do not.
    lifting, targets = jp.shard_rows(data["inputs"], data["noisy"], data["weight"])
    keep(answers, "weighted", jp.solve(SOLVERS["gauss_newton"], lifting, targets, key))
    lifting, targets = jp.shard_rows(data["inputs"], data["targets"])
    answers["filled/inputs"], answers["filled/targets"] = lifting.inputs, targets
    try:
        jp.shard_rows(lifting.inputs, targets)
    except ValueError as error:
        answers["again"] = str(error)
    answers["filled/weight"] = lifting.sample_weight
    keep(answers, "filled", jp.solve(SOLVERS["gauss_newton"], lifting, targets, key))

    # Meshes of one's own: some devices backwards, and two axes.
    some, auto = np.array(jax.devices()[6:3:-1]), AxisType.Auto
    meshes = {
        "part": jax.sharding.Mesh(some, ("rows",)),
        "square": jax.make_mesh((4, 2), ("a", "b"), axis_types=(auto, auto)),
    }
    for name, mesh in meshes.items():
        lifting, targets = jp.shard_rows(data["inputs"], data["targets"], mesh=mesh)
        answers[f"{name}/inputs"], answers[f"{name}/targets"] = lifting.inputs, targets
        answers[f"{name}/devices"] = [device.id for device in lifting.inputs.sharding.device_set]

    # Problems over devices instead of rows.
    mesh = jax.make_mesh((8,), ("problems",), axis_types=(auto,))
    batch = jp.Lifting(data["batch_inputs"], data["batch_weight"]), data["batch_targets"]
    keys = jax.random.split(key, len(data["batch_targets"]))
    placed = jax.device_put((*batch, keys), NamedSharding(mesh, PartitionSpec("problems")))
    solve = jax.tree_util.Partial(jp.solve, SOLVERS["ep_rom"])
    keep(answers, "batch", compiled("batch", jax.vmap(solve), *placed))
    return answers


def recover(data: Any, folder: Path) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    lifting, targets = jp.shard_rows(data["inputs"], data["targets"])
    weight, key = lifting.sample_weight, jax.random.key(1)
    for rank in (2, "auto"):
        recovery = jp.recover(lifting.inputs, targets, rank, key=key, sample_weight=weight)
        keep(answers, f"recover {rank}", recovery)
    return answers


def main(folder: Path, part: str) -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_enable_x64", True)
    answers = {"most": most, "recover": recover}[part](np.load(folder / "data.npz"), folder)
    np.savez(folder / f"{part}.npz", **answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
