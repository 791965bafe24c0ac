"""What the README shows is what runs."""

import re
from pathlib import Path

from experiments import registry

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_python_blocks_run_and_print_what_they_say():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["error"] < 1e-5
    (start,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/index.md").read_text(), re.DOTALL)
    del namespace["predictions"]
    exec(compile(start, "index.md", "exec"), namespace)
    assert namespace["predictions"].shape == (600,)


def test_the_python_block_of_the_page_on_experiments_runs():
    page = (ROOT / "docs" / "experiments.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    namespace: dict = {}
    exec(compile(block, "experiments.md", "exec"), namespace)
    assert namespace["success"].shape == (3,)
    assert namespace["success"][-1] >= 0.5


def test_the_page_on_experiments_names_every_command():
    page = (ROOT / "docs" / "experiments.md").read_text()
    for name in registry.NAMES:
        assert f"| `{name}` |" in page


def test_ci_runs_the_test_command_of_the_readme():
    install, run = re.search(
        r"`(python -m pip install [^&`]*) && (python -m pytest)`", README
    ).groups()
    script = (ROOT / ".ci" / "run").read_text()
    assert run in script
    assert install.split()[-2:] == ["-e", '".[test]"']
    assert install.replace("install", "install -q") in script


def test_pictures_of_the_readme_exist():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).is_file()
