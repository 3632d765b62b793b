"""An HTML page with figures: everything in one file, nothing fetched from anywhere."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from spikeless.files import write_text
from spikeless.report.style import Figure
from spikeless.words import counted

__all__ = ["write_page"]

HERE = Path(__file__).parent


def write_page(
    path: Path, template: Path, *, title: str, sections: Mapping[str, Sequence[Figure]], **content: Any
) -> None:
    """Write one self-contained page, crash-safely.

    Args:
        path: the file to write.
        template: extends `page.html.jinja` of this folder, and may import `parts.html.jinja`.
        title: the page's heading.
        sections: the figures, by the title of their section.
        content: what else the template names.

    Raises:
        UserError: the file cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["counted"] = counted
    page = environment.get_template(template.name).render(
        title=title,
        sections=sections,
        plots=[json.loads(figure.plot.to_json() or "{}") for each in sections.values() for figure in each],
        plotly=get_plotlyjs(),
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        js=(HERE / "page.js").read_text(encoding="utf-8"),
        **content,
    )
    write_text(path, page)
