"""Bad inputs by their numbers: not finite, of extreme scale, degenerate, unruly."""

import numpy as np

from experiments.bad_inputs_cases import (
    BOTH,
    DEGENERATE,
    FINITE_ONLY,
    NONFINITE,
    NOT_CONVERGED,
    Case,
    Honest,
    M,
    P,
    Refused,
    Right,
    X,
    Y,
    array,
    at,
    normal,
    off_by,
    on,
    planted,
    replaced,
    scaled,
    spoilt,
    value,
)


def not_finite() -> list[Case]:
    listed = []
    for row, where, healthy in ((22, "inputs", X), (24, "targets", Y)):
        for bad in (np.nan, np.inf, -np.inf):
            number = 23 if where == "inputs" and not np.isnan(bad) else row
            listed.append(
                value(
                    number,
                    f"{bad} in the {where}",
                    {where: spoilt(healthy, bad)},
                    NONFINITE,
                    at(BOTH, FINITE_ONLY),
                )
            )
    for bad in (np.nan, np.inf):
        listed.append(
            value(
                0,
                f"{bad} in the weights",
                {"weight": spoilt(np.ones(M), bad)},
                NONFINITE,
                at(BOTH, FINITE_ONLY),
            )
        )
    negative = {"weight": spoilt(np.ones(M), -1.0)}
    none = {"weight": np.zeros(M)}
    holed = X.copy()
    holed[3, 2], holed[7], holed[11, 0] = np.nan, np.inf, -np.inf
    lanes = {"inputs": np.stack([X * np.nan] * 3), "targets": np.stack([Y] * 3)}
    every = lanes | {"weight": np.ones((3, M))}
    listed += [
        value(0, "a negative weight", negative, Refused("negative"), traced=NONFINITE),
        value(
            0, "weights all zero", none, Refused("zero"), traced=DEGENERATE, underdetermined=True
        ),
        value(
            25,
            "rows that are not finite, dropped",
            {"inputs": holed, "drop": True},
            Right(),
            {"classifier": Honest()},
            num_dropped=3,
        ),
        value(
            25,
            "targets that are not finite, dropped",
            {"targets": spoilt(Y, np.nan), "drop": True},
            Right(),
            num_dropped=1,
        ),
        array(
            26, "a whole batch bad", every, Refused(r"axes|dim 3|\(m, p\)"), {"batch": NONFINITE}
        ),
    ]
    return listed


def scales() -> list[Case]:
    listed = []
    factors = (
        (27, 1e20, "1e20"),
        (28, 1e-20, "1e-20"),
        (28, 1e-30, "1e-30"),
        (29, 1e-200, "1e-200"),
        (29, 1e-310, "denormal"),
        (30, 1e150, "1e150"),
        (30, 1e300, "near overflow"),
    )
    for row, factor, name in factors:
        for which in ("inputs", "targets"):
            changed = scaled(**{which: factor})
            lost = not 1e-305 < (factor if which == "targets" else 1 / factor / factor) < 1e305
            wanted = at(BOTH, Refused("do not fit into")) if lost else {}
            if which == "targets":
                wanted.pop("classifier", None)
            title = f"{which} of scale {name}"
            listed.append(value(row, title, changed, Honest(), wanted))
    for row, factor in ((27, 1e20), (28, 1e-20), (28, 1e-30), (29, 1e-40), (30, 1e38)):
        for which in ("inputs", "targets"):
            lost = which == "inputs" or not 1e-37 < factor < 1e37
            # Beside ordinary targets these inputs have an L out of the range of float32.
            names = BOTH if which == "inputs" else ("regressor",)
            refused = at(names, Refused("do not fit into float32|contains infinity"))
            listed.append(
                array(
                    row,
                    f"{which} of scale {factor:g} in float32",
                    scaled(**{which: factor}, dtype=np.float32),
                    Honest(),
                    refused if lost else {},
                    own_program=True,
                )
            )
    columns = X * 10.0 ** np.linspace(-8, 8, P)
    listed += [
        value(31, "columns of scale 1e-8 to 1e8", on(columns), Honest(), {"recover": Right()}),
        value(31, "targets of 1e20 beside inputs of 1", scaled(targets=1e20), Honest()),
        value(31, "inputs and targets of 1e20", scaled(1e20, 1e20), Honest()),
    ]
    return listed


def unruly() -> list[Case]:
    rng = np.random.default_rng(7)
    repeated = X[np.arange(M) % 30]
    line = np.outer(normal(8, (M,)), normal(9, (P,)))
    steep = X * 10.0 ** -np.linspace(0, 14.65, P)
    signs = np.where(X > 0, 1.0, -1.0)
    one_hot = np.eye(P)[np.arange(M) % P]
    fitted = {"recover": Right(), "regressor": Right()}
    gross = off_by(1e6)
    rest = dict(inputs=X, truth=Y)
    listed = [
        value(32, "inputs all zero", {"inputs": 0 * X}, DEGENERATE, at(BOTH, Honest())),
        value(33, "targets all zero", {"targets": 0 * Y}, DEGENERATE, at(BOTH, Honest())),
        value(33, "targets constant", {"targets": 0 * Y + 3}, DEGENERATE, at(BOTH, Honest())),
        value(34, "a column of zeros", on(replaced(2, 0)), Right(), {"classifier": Honest()}),
        value(34, "a constant column", on(replaced(2, 3.0)), Honest(), fitted),
        value(34, "a duplicate column", on(replaced(2, X[:, 5])), Honest(), fitted),
        value(35, "duplicate rows", on(repeated), Honest(), {"recover": Right()}),
        value(
            35, "inputs of rank 1", on(line), Honest(), {"recover": Right(), "regressor": Right()}
        ),
        value(36, "inputs of condition 0.1/eps", on(steep), Honest()),
        value(37, "inputs +-1", on(signs), Honest(), {"recover": Right()}),
        value(37, "one-hot inputs", on(one_hot), Honest()),
        value(38, "inputs of mean 100", on(X + 100), Honest(), fitted),
        value(39, "Cauchy inputs", on(rng.standard_cauchy((M, P))), Honest()),
        value(39, "t(1.5) inputs", on(rng.standard_t(1.5, (M, P))), Honest()),
        value(40, "a target off by 1e6", {"targets": gross}, NOT_CONVERGED, at(BOTH, Honest())),
        value(
            40, "a target off by 1e6, robust", rest | {"targets": gross, "robust": True}, Right()
        ),
        value(
            41, "targets of noise", {"targets": normal(11, (M,))}, NOT_CONVERGED, at(BOTH, Honest())
        ),
        value(42, "equal eigenvalues", {"targets": planted(X, (1.0, 1.0))}, Right()),
        value(
            43, "eigenvalues 1 and 1 + 1e-10", {"targets": planted(X, (1.0, 1 + 1e-10))}, Right()
        ),
        value(
            44,
            "a tie at r and r + 1",
            {"targets": planted(X, (2.0, 1.0, 1.0))},
            NOT_CONVERGED,
            at(BOTH, Honest()),
        ),
        value(
            45,
            "true rank below the rank asked",
            {"targets": planted(X, (1.0,))},
            Right(),
            {"factored descent": Right(0.01)},
        ),
        value(
            45,
            "true rank above the rank asked",
            {"targets": planted(X, (2.0, -1.0, 0.01))},
            Right(0.02),
        ),
        value(46, "eigenvalues a and -a", {"targets": planted(X, (1.5, -1.5))}, Right()),
    ]
    return listed
