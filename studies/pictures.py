"""The pictures of docs/results and of the README, made from the committed JSON: `python studies/pictures.py`.

Each is a page with the named figures of a comparison's report, photographed by Chromium, which must be installed
(`chromium` on the path, or its path in $CHROMIUM).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from spikeless.experiments.analysis.comparison import read_comparison
from spikeless.experiments.presentation.figures import lines, sections
from spikeless.report.page import write_page

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
TEMPLATE = Path(__file__).with_name("picture.html.jinja")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A photograph of figures.

    Attributes:
        file: to write.
        comparison: the folder below docs/results that has the JSON.
        titles: of the figures, in order.
        height: of the photograph; its width is 1000 [pixels].
    """

    file: Path
    comparison: str
    titles: tuple[str, ...]
    height: int


PICTURES = (
    Picture(
        file=ROOT / "docs" / "figures" / "spike-no-more.png",
        comparison="2026-11-21-spike-no-more",
        titles=("Final validation loss", "Largest gradient norm"),
        height=520,
    ),
    Picture(
        file=ROOT / "docs" / "figures" / "tev-mlra.png",
        comparison="2026-11-21-tev-mlra",
        titles=("Final validation loss", "Difference to baseline"),
        height=520,
    ),
)


def photograph(picture: Picture, chromium: str) -> None:
    """Write one picture."""
    comparison = read_comparison(RESULTS / picture.comparison / "comparison.json")
    known = {each.title: each for figures in sections(comparison).values() for each in figures}
    missing = [title for title in picture.titles if title not in known]
    if missing:
        raise SystemExit(f"{picture.comparison} has no figure {missing[0]!r}; it has {', '.join(known)}")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        figures = {"": [known[title] for title in picture.titles]}
        write_page(page, TEMPLATE, title=picture.file.stem, sections=figures, lines=lines(comparison))
        shot = Path(folder) / "shot.png"
        command = [chromium, "--headless", "--no-sandbox", f"--screenshot={shot}", "--hide-scrollbars"]
        command += [f"--window-size=1000,{picture.height}", "--blink-settings=preferredColorScheme=1"]
        command += ["--virtual-time-budget=6000", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        shutil.copy(shot, picture.file)


def main() -> None:
    """Write every picture whose comparison is there."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        sys.exit("pictures need Chromium; install it, or set CHROMIUM to its path")
    for picture in PICTURES:
        if (RESULTS / picture.comparison / "comparison.json").exists():
            photograph(picture, chromium)


if __name__ == "__main__":
    main()
