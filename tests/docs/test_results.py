"""Every table of the README and of docs/results is what the committed JSON says."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "studies" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "studies")  # what its own folder is to a script
        spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


PAGES = [
    page
    for page in (ROOT / "README.md", *(ROOT / "docs" / "results").glob("*/README.md"))
    if "<!-- table:" in page.read_text()
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_say_what_the_json_says(page, tables):
    text = page.read_text(encoding="utf-8")
    assert tables.with_tables(page, text) == text, "run `python studies/tables.py`"


def test_a_changed_number_is_noticed(tables):
    page = ROOT / "README.md"
    text = page.read_text(encoding="utf-8")
    changed = re.sub(r"(\| `scaled_embed` \| )\d", r"\g<1>9", text, count=1)
    assert changed != text
    assert tables.with_tables(page, changed) == text


def test_the_readme_has_a_table_from_json_and_links_its_folder():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for folder in re.findall(r"<!-- table: \w+ (\S+)/\S+ -->", text):
        assert f"({folder}/README.md)" in text
