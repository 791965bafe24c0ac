"""Bad inputs by their form: shapes, types, layouts and options."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bad_inputs_cases import (
    BOTH,
    DEGENERATE,
    DIVERGED,
    NO_STEPS,
    NONFINITE,
    NOT_CONVERGED,
    Case,
    Honest,
    M,
    P,
    R,
    Refused,
    Right,
    Same,
    X,
    Y,
    array,
    at,
    big_endian,
    brain,
    foreign,
    frame,
    labelled,
    layout,
    low_rank,
    masked,
    nan_start,
    normal,
    on,
    option,
    sparse,
    value,
    weights,
    zeros,
)


def shapes() -> list[Case]:
    none = np.zeros((0, P))
    wide = np.zeros((M, 0))
    several = np.stack([X] * 3)
    ranks: list[tuple[int, Any, str]] = [
        (5, 0, "rank is 0"),
        (5, -1, "rank is -1"),
        (6, 2.0, "rank is 2.0"),
        (6, True, "rank is True"),
        (6, "2", "rank is '2'"),
        (7, 9, "rank is 9"),
    ]
    listed = [
        array(
            1,
            "no samples",
            {"inputs": none, "targets": none[:, 0], "weight": none[:, 0]},
            Refused("at least one sample|0 sample|num_samples is 0"),
            sizes=True,
        ),
        array(
            2, "no columns", {"inputs": wide}, Refused("one column|0 feature|at dim 0"), sizes=True
        ),
        array(3, "a target too few", {"targets": Y[1:]}, Refused("length 59|inconsist")),
        array(3, "a weight too few", {"weight": np.ones(59)}, Refused("59")),
        array(
            4,
            "targets as a column",
            {"targets": Y[:, None]},
            Refused(r"\.ravel\(\)"),
            {"regressor": Same()},
        ),
        array(21, "a batch as one problem", {"inputs": several}, Refused("3|dim")),
        array(
            21,
            "three inputs and two targets",
            {"inputs": several, "targets": np.stack([Y] * 2), "weight": np.ones((3, M))},
            Refused("inconsistent sizes|3|dim"),
        ),
    ]
    for row, rank, words in ranks:
        plain = rank == 0 and isinstance(rank, int) and not isinstance(rank, bool)
        linear = at(BOTH, Honest()) if plain else {}
        listed.append(
            option(row, f"rank {rank!r}", {"rank": rank}, Refused(words), linear, sizes=True)
        )
    listed.append(
        option(
            8,
            "rank traced",
            {"rank": jnp.int32(2)},
            Refused("rank is .*|expected"),
            traced=Refused("not traced"),
        )
    )
    listed.append(
        option(
            9,
            "rank = p",
            {"rank": P},
            Honest(),
            {"Gauss-Newton": Right(), "recover": Right(), "regressor": Right()},
            own_program=True,
            sizes=True,
        )
    )
    for num_samples, name in ((1, "one sample"), (2, "two samples"), (5, "m < p"), (12, "m < dof")):
        # One sample does not vary.
        few = DEGENERATE if num_samples == 1 else Honest()
        row = 11 if num_samples == 1 else 10
        marks: Any = {"underdetermined": True}
        listed += [
            value(
                row,
                f"{name} by weights",
                {"weight": weights(num_samples)},
                few,
                at(BOTH, Honest()),
                **marks,
            ),
            array(
                row,
                name,
                {
                    "inputs": X[:num_samples],
                    "targets": Y[:num_samples],
                    "weight": np.ones(num_samples),
                },
                few,
                at(("regressor", "classifier", "sweep"), Honest()),
                own_program=True,
                sizes=True,
                **marks,
            ),
        ]
    listed.append(
        array(
            11,
            "p = 1",
            on(X[:, :1], rank=1),
            Right(),
            {"classifier": Honest(), "sweep": Honest()},
            own_program=True,
            sizes=True,
        )
    )
    return listed


def kinds() -> list[Case]:
    whole = np.round(3 * X)
    pixels = np.random.default_rng(5).integers(0, 256, (M, P))
    rounded = X.astype(np.float16)
    real = Refused("expected real numbers|[Cc]omplex data not supported")
    converts = Refused("expected a JAX|expected something with shape|[Ss]parse")
    listed = [
        foreign(12, "inputs as lists", {"inputs": X.tolist()}, Same(), {"streamed": converts}),
        foreign(12, "targets as a list", {"targets": Y.tolist()}, Same()),
        foreign(
            13,
            "inputs of objects",
            {"inputs": X.astype(object)},
            Refused("dtype object|real numbers"),
            at(BOTH, Same()),
        ),
        foreign(
            13,
            "inputs of text",
            {"inputs": np.full((M, P), "a")},
            Refused("dtype <U1|could not convert|real numbers"),
        ),
        foreign(13, "targets of text", {"targets": np.full(M, "a")}, Refused("dtype|convert")),
        array(14, "inputs int32", on(whole.astype(np.int32)), Honest(), {"recover": Right()}),
        array(14, "inputs bool", on(X > 0), Honest(), {"recover": Right()}),
        array(
            14,
            "inputs uint8, whose squares would wrap",
            on(pixels.astype(np.uint8)),
            Honest(),
            {"recover": Right(), "regressor": Right()},
        ),
        array(14, "targets int32", {"targets": np.round(Y).astype(np.int32)}, Honest()),
        array(15, "inputs float16", on(rounded), Right(1e-3), own_program=True),
        array(15, "inputs bfloat16", on(brain()), Right(1e-3), own_program=True),
        foreign(16, "inputs long double", {"inputs": X.astype(np.longdouble)}, Same()),
        foreign(16, "targets long double", {"targets": Y.astype(np.longdouble)}, Same()),
        foreign(16, "inputs big-endian", {"inputs": big_endian(X)}, Same()),
        array(
            17,
            "float64 with x64 off",
            {"x64": False},
            Right(1e-3),
            own_program=True,
            warning="float64 but jax_enable_x64 is off",
        ),
        array(18, "complex inputs", {"inputs": X + 0j}, real),
        array(18, "complex targets", {"targets": Y + 0j}, real),
        foreign(19, "a masked array", {"inputs": masked()}, Refused("masked|expected")),
        foreign(
            19,
            "masked targets",
            {"targets": np.ma.masked_array(Y, Y > 2)},
            Refused("masked|expected"),
        ),
        foreign(19, "a sparse matrix", {"inputs": sparse()}, converts),
        foreign(19, "a pandas table", {"inputs": frame()}, converts, at(BOTH, Right())),
        foreign(
            19,
            "an xarray array",
            {"inputs": labelled()},
            converts,
            at(BOTH, Right()) | {"streamed": Same()},
        ),
    ]
    for name in ("read-only", "Fortran order", "negative strides", "every other row", "memory map"):
        listed.append(array(20, f"inputs {name}", {"inputs": layout(name)}, Same()))
    return listed


def options() -> list[Case]:
    start = {"start": zeros()}
    broken = low_rank(normal(3, (P + 1, R)))
    wide = np.ones((2, 1_000_000))
    dense = Refused("matrix-free|jaxpoly.solve|gauss_newton")
    listed = [
        option(
            47,
            "a start of zeros",
            start,
            Honest(),
            {"factored descent": NOT_CONVERGED},
            traced=Honest(),
            own_program=True,
        ),
        option(
            48,
            "NaN in the start",
            {"start": nan_start()},
            NONFINITE,
            traced=NONFINITE,
            own_program=True,
        ),
        option(48, "a start of another p", {"start": broken}, Refused("start has factor")),
        option(
            49,
            "step size 1e6",
            {"step_size": np.float64(1e6)},
            DIVERGED,
            traced=DIVERGED,
            own_program=True,
        ),
        option(
            50,
            "no steps",
            {"max_steps": 0},
            NO_STEPS,
            at((*BOTH, "recover"), Honest()),
            traced=NO_STEPS,
            sizes=True,
        ),
        option(50, "rtol 0", {"rtol": 0.0}, NOT_CONVERGED, traced=NOT_CONVERGED, sizes=True),
        option(51, "an old-style key", {"key": np.asarray(jax.random.PRNGKey(0))}, Same()),
        option(51, "the same key again", {"key": jax.random.key(0)}, Same()),
        option(51, "an int as key", {"key": 0}, Refused(r"jax.random.key\(0\)|expected a JAX key")),
        option(
            51, "two keys", {"key": jax.random.split(jax.random.key(0))}, Refused("batch shape")
        ),
        array(
            52,
            "p of a million",
            {"inputs": wide, "targets": np.arange(2.0), "weight": np.ones(2)},
            Honest(),
            at((*BOTH, "recover", "EP-ROM"), dense),
            own_program=True,
            underdetermined=True,
        ),
    ]
    for size in (-1.0, 0.0, np.nan, np.inf, "0.1"):
        listed.append(
            option(49, f"step size {size!r}", {"step_size": size}, Refused("step_size is"))
        )
    limits: list[tuple[str, Any, Any]] = [
        ("max_steps", -1, NO_STEPS),
        ("max_steps", 2.5, None),
        ("max_steps", True, None),
        ("rtol", -1e-3, NOT_CONVERGED),
        ("rtol", float("nan"), NOT_CONVERGED),
        ("rtol", "small", None),
    ]
    for name, limit, traced in limits:
        words = Refused(f"{name} is|{name}.* and |expected|could not convert")
        bad = {name: limit}
        listed.append(option(50, f"{name} {limit!r}", bad, words, traced=traced, sizes=True))
    return listed
