"""The public names and their signatures are those on file, and each has an example.

`python tests/test_public_api.py` writes the file anew.
"""

import enum
import inspect
import re
import types
from pathlib import Path
from typing import Any

import pytest

import jaxpoly
from jaxpoly import estimator, estimator_plots

FILE = Path(__file__).parent / "public_api.txt"
REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
PUBLIC = {name: getattr(jaxpoly, name) for name in jaxpoly.__all__ if name != "__version__"} | {
    "estimator.QuadraticNetworkClassifier": estimator.QuadraticNetworkClassifier,
    "estimator.QuadraticNetworkRegressor": estimator.QuadraticNetworkRegressor,
    "estimator_plots.plot_neurons": estimator_plots.plot_neurons,
    "estimator_plots.plot_spectrum": estimator_plots.plot_spectrum,
}
BY_NAME = {name.rpartition(".")[2]: value for name, value in PUBLIC.items()}
POINTER = re.compile(r"see `(\w+)`|`(\w+)` builds and documents it")


class Named:
    """A default that is a function, shown by its name and not by its address."""

    def __init__(self, function: Any):
        self.function = function

    def __repr__(self) -> str:
        return self.function.__name__


def signature(function: Any) -> str:
    """Arguments with their kinds and defaults, without annotations, which differ by Python."""
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if inspect.isfunction(parameter.default):
            parameter = parameter.replace(default=Named(parameter.default))
        parameters.append(parameter.replace(annotation=parameter.empty))
    return str(inspect.Signature(parameters))


def own(member: Any) -> bool:
    """Whether a member of a class is a function, method or property written in jaxpoly."""
    member = getattr(member, "__func__", getattr(member, "fget", member))
    return inspect.isfunction(member) and member.__module__.startswith("jaxpoly")


def members(kind: type) -> dict[str, Any]:
    """The public methods and properties of a class, those of its bases in jaxpoly included."""
    found = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("jaxpoly"):
            found |= {n: m for n, m in vars(base).items() if n == "__call__" or n[0] != "_"}
    return {name: member for name, member in found.items() if own(member)}


def lines() -> list[str]:
    """One line for each public name, sorted."""
    found = []
    for name, value in PUBLIC.items():
        if isinstance(value, types.ModuleType):
            functions = [(n, f) for n, f in vars(value).items() if inspect.isfunction(f)]
            own_ones = [(n, f) for n, f in functions if f.__module__ == value.__name__]
            found += [f"{name}.{n}{signature(f)}" for n, f in own_ones if n[0] != "_"]
        elif inspect.isclass(value) and issubclass(value, enum.Enum):
            found += [f"{name}.{member.name} = {member.value}" for member in value]
        elif inspect.isclass(value):
            built = issubclass(value, Exception) or getattr(value, "_is_protocol", False)
            found.append(name if built else f"{name}{signature(value)}")
            for method, member in members(value).items():
                shown = "" if isinstance(member, property) else signature(getattr(value, method))
                found.append(f"{name}.{method}{shown}")
        else:
            found.append(f"{name}{signature(value)}")
    return sorted(found)


def test_public_names_and_signatures_are_those_on_file():
    expected, found = FILE.read_text().splitlines(), lines()
    lost = [f"- {line}" for line in expected if line not in found]
    new = [f"+ {line}" for line in found if line not in expected]
    assert not lost + new, (
        "the public API has changed; if that is meant, tell it in CHANGELOG.md and run "
        "python tests/test_public_api.py:\n" + "\n".join(lost + new)
    )
    assert found == expected


def examples(value: Any) -> bool:
    """Whether the docstring of a value, or of one of its methods, has an example."""
    texts = [value.__doc__ or ""]
    if inspect.isclass(value):
        texts += [getattr(value, name).__doc__ or "" for name in members(value)]
    return any(">>>" in text for text in texts)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring_with_an_example_or_says_where_one_is(name):
    text = PUBLIC[name].__doc__
    # What dataclasses and NamedTuple write by themselves is no docstring.
    assert text
    assert not text.startswith(f"{name}(")
    shown = [first or second for first, second in POINTER.findall(text)]
    assert examples(PUBLIC[name]) or any(examples(BY_NAME[n]) for n in shown if n in BY_NAME)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_methods_have_docstrings(name):
    value = PUBLIC[name]
    if inspect.isclass(value) and not getattr(value, "_is_protocol", False):
        assert all(getattr(value, method).__doc__ for method in members(value))


def test_the_reference_lists_every_public_name():
    pages = "\n".join(page.read_text() for page in sorted(REFERENCE.glob("*.md")))
    listed = set(re.findall(r"^\.\. auto\w+:: jaxpoly\.([\w.]+)$", pages, flags=re.MULTILINE))
    assert set(PUBLIC) - listed == set(), "add them to a page of docs/reference"


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n")
    print(f"{FILE} has {len(lines())} lines")
