"""Check what is in the wheel and the sdist of a folder; print the version they have.

`python contents.py DIST`, with Python alone.
"""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = Path(sys.argv[1])
(wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
(version,) = re.findall(r'__version__ = "(.+)"', (ROOT / "jaxpoly" / "version.py").read_text())
assert wheel.name == f"jaxpoly-{version}-py3-none-any.whl", wheel.name
assert sdist.name == f"jaxpoly-{version}.tar.gz", sdist.name

with zipfile.ZipFile(wheel) as archive:
    packed = set(archive.namelist())
    metadata = archive.read(f"jaxpoly-{version}.dist-info/METADATA").decode()
modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "jaxpoly").rglob("*.py")}
info = {
    f"jaxpoly-{version}.dist-info/{name}"
    for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")
}
expected = modules | {"jaxpoly/py.typed"} | info
assert packed == expected, f"in the wheel {packed - expected}, not in it {expected - packed}"
assert f"\nVersion: {version}\n" in metadata

with tarfile.open(sdist) as archive:
    names = {name.removeprefix(f"jaxpoly-{version}/") for name in archive.getnames()}
needed = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "PKG-INFO"}
needed |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("*.py")}
missing = (modules | needed) - names
assert not missing, f"not in the sdist: {missing}"
stray = {name for name in names if re.search(r"__pycache__|_build|results/|\.egg-info", name)}
assert not stray, f"in the sdist: {stray}"
print(version)
