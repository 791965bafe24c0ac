"""One self-contained HTML page from a folder of results: tables, figures, provenance."""

import base64
import json
from html import escape
from pathlib import Path

from experiments import registry, results
from experiments.ledger_files import RefusedError

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>jaxpoly experiments</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
        padding: 0 1rem; color: #222; background: #fff; }}
h2 {{ margin-top: 3rem; border-top: 1px solid #ccc; padding-top: 1rem; }}
pre {{ overflow-x: auto; background: #f6f6f6; padding: 0.8rem; font-size: 0.8rem; }}
figure {{ margin: 1.5rem 0; }}
img {{ max-width: 100%; height: auto; }}
figcaption, summary {{ color: #555; font-size: 0.9rem; }}
</style>
</head>
<body>
<h1>jaxpoly experiments</h1>
<ul>
{contents}
</ul>
{sections}
</body>
</html>
"""


def write_page(out: Path = Path("results")) -> Path:
    """Write `report.html` from all results in a folder; figures and styles are inside.

    Args:
        out: the folder of results, where the page goes too.

    Returns:
        The page.

    Raises:
        RefusedError: no results there, or damaged ones.
    """
    names = [name for name in registry.NAMES if _file(out, name) is not None]
    if not names:
        raise RefusedError(f"{out} holds no results; run an experiment first, or use --out")
    contents = "\n".join(
        f'<li><a href="#{name}">{name}</a>: {escape(registry.summary(name))}</li>' for name in names
    )
    sections = "\n".join(_section(out, name) for name in names)
    page = out / "report.html"
    results.replace_file(
        page, lambda path: Path(path).write_text(PAGE.format(contents=contents, sections=sections))
    )
    return page


def _file(out: Path, name: str) -> Path | None:
    """Return the file of results of an experiment, if there is one."""
    return next(
        (path for suffix in (".nc", ".json") if (path := out / (name + suffix)).is_file()), None
    )


def _section(out: Path, name: str) -> str:
    path = _file(out, name)
    assert path is not None
    try:
        saved = results.read(path)
    except ValueError as error:
        raise RefusedError(f"{error}; move it away") from error
    provenance = results.provenance_of(saved)
    pictures = sorted(out.glob(f"{name}.svg")) + sorted(out.glob(f"{name}-*.svg"))
    figures = "\n".join(
        f'<figure><img alt="{escape(picture.stem)}" src="data:image/svg+xml;base64,'
        f'{base64.b64encode(picture.read_bytes()).decode()}">'
        f"<figcaption>{escape(picture.stem)}</figcaption></figure>"
        for picture in pictures
    )
    taken = f"{provenance['wall_seconds']:.0f} s on {provenance['device']}"
    versions = provenance["versions"]
    made = f"{taken}, {provenance['dtype']}, jaxpoly {versions['jaxpoly']}, jax {versions['jax']}"
    return f"""<section id="{name}">
<h2>{name}</h2>
<p>{escape(registry.experiment(name).__doc__).strip()}</p>
<p>{escape(made)}; commit {escape(provenance["commit"])}; data in
<code>{escape(path.name)}</code>.</p>
{figures}
<pre>{escape(registry.experiment(name).table(saved))}</pre>
<details><summary>Provenance</summary>
<pre>{escape(json.dumps(provenance, indent=1))}</pre></details>
</section>"""
