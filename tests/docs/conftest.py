"""The pages, and the parts that docs/extending.md adds, as if their files were in the package."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from spikeless.config import names_in

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def extended(tmp_path, monkeypatch):
    """Every example of docs/extending.md in its place: `my_lab` on the path, the others in their rooms.

    Gives the names of the modules.
    """
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    names = []
    for place, code in blocks:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
        names.append(place.removeprefix("src/").removesuffix(".py").replace("/", "."))
        if place.startswith("src/"):
            room = importlib.import_module(names[-1].rpartition(".")[0])
            monkeypatch.setattr(room, "__path__", [*room.__path__, str(path.parent)])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    names_in.cache_clear()
    yield names
    for name in names:
        if sys.modules.pop(name, None):
            room, _, part = name.rpartition(".")
            if vars(sys.modules[room]).get(part) is not None:
                delattr(sys.modules[room], part)
    sys.modules.pop("my_lab", None)
    names_in.cache_clear()
