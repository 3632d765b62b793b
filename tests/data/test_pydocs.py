import inspect
import subprocess
import sys
import textwrap

import pytest

from spikeless.data import parse_corpus
from spikeless.data.corpora import _docstrings
from spikeless.errors import SpikelessWarning, UserError

LONG = "a sentence about something, " * 10


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package `sample`, whose import would be noticed."""
    root = tmp_path / "sample"
    (root / "inner").mkdir(parents=True)
    (root / "site-packages").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (root / name).write_text(textwrap.dedent(text), encoding="utf-8")

    write("__init__.py", 'raise RuntimeError("imported!")\n')
    return write


def module(*names):
    return "".join(f'def f_{name}():\n    """{name} {LONG}"""\n\n' for name in names)


def first_words(corpus):
    return [document.split()[0] for document in corpus.documents()]


def test_long_docstrings_in_the_order_of_position(package):
    source = f'''
        """MODULE {LONG}"""
        class A:
            """CLASS {LONG}

            flush
                indented
            """
            def f(self):
                """METHOD {LONG}"""
                x = """not a docstring {LONG}"""
        if True:
            async def g():
                """BRANCH {LONG}"""
        def short():
            """Too short."""
    '''
    package("a.py", source)
    documents = list(parse_corpus("pydocs:sample").documents())
    assert [document.split()[0] for document in documents] == ["MODULE", "CLASS", "METHOD", "BRANCH"]
    assert documents[1] == inspect.cleandoc(documents[1])
    assert documents[1].endswith("\n\nflush\n    indented")


def test_files_in_the_order_of_their_paths_and_no_document_twice(package):
    package("b.py", module("B1", "SAME", "B2"))
    package("inner/a.py", module("SAME", "I1"))
    package("a.py", module("A1", "A1"))
    package("broken.py", '"""' + LONG)
    package("surrogate.py", f'"""\\ud800 {LONG}"""')
    package("site-packages/other.py", module("OTHER"))
    assert first_words(parse_corpus("pydocs:sample")) == ["A1", "B1", "SAME", "B2", "I1"]


def test_the_extraction_is_cached_until_a_source_changes(package, monkeypatch):
    package("a.py", module("A"))
    before = parse_corpus("pydocs:sample").fingerprint()
    with monkeypatch.context() as context:
        context.setattr(subprocess, "run", None)  # another extraction would fail
        assert parse_corpus("pydocs:sample").fingerprint() == before
    package("a.py", module("CHANGED"))
    assert parse_corpus("pydocs:sample").fingerprint() != before


def test_a_damaged_extraction_is_made_anew(package, cache):
    package("a.py", module("A"))
    before = parse_corpus("pydocs:sample").fingerprint()
    (path,) = cache.glob("pydocs/*/content/documents.jsonl")
    path.write_text('"something else"\n')
    with pytest.warns(SpikelessWarning, match="damaged cache.*documents.jsonl"):
        assert parse_corpus("pydocs:sample").fingerprint() == before
    assert first_words(parse_corpus("pydocs:sample")) == ["A"]


def test_packages_without_sources_are_named(package):
    for name in ("no_such_package", "sys", "os.path", "sample.inner", ""):  # a dotted name would import `sample`
        with pytest.raises(UserError, match=f"no Python sources of '{name}' were found.*text:GLOB"):
            parse_corpus(f"pydocs:stdlib+{name}" if name else "pydocs:json+").fingerprint()
    with pytest.raises(UserError, match="sample hold no long docstring"):
        parse_corpus("pydocs:sample").fingerprint()


def test_a_single_module_and_a_package_of_the_standard_library():
    corpus = parse_corpus("pydocs:json+textwrap")
    documents = list(corpus.documents())
    assert len(documents) > 5
    assert any("Wrap a single paragraph of text" in document for document in documents)
    assert min(map(len, documents)) >= _docstrings.MIN_CHARACTERS


def test_numpy_alone_is_a_megabyte_of_documentation_and_nothing_is_imported():
    """In a fresh process, to see what is imported: `antigravity` would open a browser."""
    code = """
        import sys
        from spikeless.data.corpora.pydocs import PyDocs
        documents = list(PyDocs(packages="numpy+antigravity").documents())
        print(len(documents), sum(map(len, documents)), len(set(documents)), "antigravity" in sys.modules)
    """
    run = [sys.executable, "-c", textwrap.dedent(code)]
    output = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    count, size, distinct, imported = output.split()
    assert int(count) == int(distinct) > 1000
    assert int(size) > 1_000_000
    assert imported == "False"
