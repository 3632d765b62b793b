"""Every table of the README and of docs/results is what the committed JSON says."""

import importlib.util
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from spikeless.data import Sampler, prepare, validation_batches
from spikeless.recipes import compose

ROOT = Path(__file__).parents[2]


def loaded(name):
    """A script of `studies` as a module, for as long as it is needed."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "studies" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "studies")  # what its own folder is to a script
        spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def tables():
    yield from loaded("tables")


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


# --- reference losses ---


@pytest.fixture(scope="module")
def references():
    yield from loaded("reference_losses")


def test_counts_by_hand(references):
    """Three tokens; the pairs 0 1, 1 2, 2 0, 0 1 were seen, and 0 1, 1 1 are to be predicted."""
    seen = [(torch.tensor([[0, 1]]), torch.tensor([[1, 2]])), (torch.tensor([[2, 0]]), torch.tensor([[0, 1]]))]
    found = references.reference_losses(seen, [(torch.tensor([[0, 1]]), torch.tensor([[1, 1]]))], 3)
    share = (2 + 1) / (4 + 3)  # of token 1
    assert found.uniform == pytest.approx(math.log(3))
    assert found.unigram == pytest.approx(-math.log(share))
    after_0, after_1 = (2 + 50 * share) / (2 + 50), (0 + 50 * share) / (1 + 50)
    assert found.bigram == pytest.approx(-(math.log(after_0) + math.log(after_1)) / 2)


def test_counts_are_of_the_batches_that_a_run_saw(references, tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat and looked at the dog. " * 40)
    (tmp_path / "b.txt").write_text("the dog sat on the cat and looked at the mat. " * 4)
    data = prepare(f"text:{tmp_path}/a.txt,validation={tmp_path}/b.txt", "bytes")
    run = compose("deep_nano", (), ["steps=3", "data.batch_size=2", "data.sequence_length=8", "evaluation.tokens=16"])
    found = references.losses_of_seed(run, data, 5)
    sampler = Sampler(data.train, 8, 5)
    seen = [each for step in range(3) for each in zip(*(part.tolist() for part in sampler.batch(step, 2)), strict=True)]
    followers = Counter(pair for inputs, targets in seen for pair in zip(inputs, targets, strict=True))
    targets = Counter(target for pair, count in followers.items() for target in [pair[1]] * count)
    size, total = data.tokenizer.vocab_size, sum(targets.values())
    assert total == 3 * 2 * 8
    held_out = [
        pair
        for batch in validation_batches(data.validation, 8, 2, 16)
        for inputs, outputs in zip(*(part.tolist() for part in batch), strict=True)
        for pair in zip(inputs, outputs, strict=True)
    ]
    unigram = {token: (targets[token] + 1) / (total + size) for token in range(size)}
    before = Counter(pair[0] for pair, count in followers.items() for _ in range(count))
    bigram = [(followers[a, b] + 50 * unigram[b]) / (before[a] + 50) for a, b in held_out]
    assert len(held_out) == 16
    assert found.unigram == pytest.approx(-sum(math.log(unigram[b]) for _, b in held_out) / 16)
    assert found.bigram == pytest.approx(-sum(map(math.log, bigram)) / 16)


def test_every_experiment_has_its_reference_losses_on_its_page(references):
    for experiment in references.EXPERIMENTS:
        path = references.RESULTS / experiment.file
        losses = json.loads(path.with_name("reference.json").read_text())["losses"]
        [found] = (each for each in losses if each["file"] == path.name)
        assert found["bigram"] < found["unigram"] < found["uniform"]
        page = path.with_name("README.md").read_text(encoding="utf-8")
        assert f"| [{path.name}]({path.name}) |" in page
        assert page.index("**Read this first.**") < page.index("<!-- table:")
