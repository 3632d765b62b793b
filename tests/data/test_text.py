import pytest

from spikeless.data import parse_corpus
from spikeless.data.corpora import text
from spikeless.errors import UserError


def documents(spec):
    return list(parse_corpus(spec).documents())


def test_files_are_documents_in_the_order_of_their_paths(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/deep/er.txt", "a.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert documents("text:**/*.txt") == ["a/deep/er.txt", "a/z.txt", "b.txt"]
    assert documents(f"text:{tmp_path}/b.*") == ["b.txt"]


def test_a_large_file_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path):
    paragraph = "\n".join(["schöne Wörter in einer Zeile"] * 30) + "\n\n"
    whole = paragraph * 2000
    (tmp_path / "book.txt").write_text(whole, encoding="utf-8")
    pieces = documents("text:book.txt")
    assert "".join(pieces) == whole
    assert len(pieces) > 10
    assert all(piece.endswith("\n\n") and len(piece) < 70_000 for piece in pieces)


def test_a_large_file_without_blank_lines_is_cut_all_the_same(tmp_path):
    whole = "é" * (text.WHOLE_BYTES + 7)
    (tmp_path / "line.txt").write_text(whole, encoding="utf-8")
    pieces = documents("text:line.txt")
    assert "".join(pieces) == whole
    assert max(map(len, pieces)) == text.PIECE_LIMIT_CHARACTERS


def test_a_byte_order_mark_is_not_text_and_blank_files_are_no_documents(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    (tmp_path / "b.txt").write_text(" \n\n")
    assert documents("text:*.txt") == ["hello"]


def test_validation_files_are_validation_only(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name)
    corpus = parse_corpus("text:*.txt,validation=b.txt")
    assert list(corpus.documents()) == ["a", "c"]
    assert list(corpus.validation_documents() or ()) == ["b"]
    assert parse_corpus("text:*.txt").validation_documents() is None
    with pytest.raises(UserError, match=r"every file that matches 'b.txt' is a validation file"):
        list(parse_corpus("text:b.txt,validation=*.txt").documents())


def test_the_fingerprint_follows_the_content_and_not_the_names(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}1.txt").write_text("first")
        (tmp_path / folder / f"{folder}2.txt").write_text("second")
    one, two = (parse_corpus(f"text:{folder}/*.txt") for folder in ("one", "two"))
    before = one.fingerprint()
    assert before == two.fingerprint()
    assert before != parse_corpus("text:one/*1.txt,validation=one/*2.txt").fingerprint()
    (tmp_path / "one" / "one2.txt").write_text("Second")
    assert one.fingerprint() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntwo\n\xff three", r"bad.txt: invalid UTF-8 at byte 8 \(line 3\); give UTF-8 text files"),
        (b"one\nt\0o", r"a NUL byte, so a binary file, at byte 5 \(line 2\)"),
        (b"\0\xff", "a NUL byte.*at byte 0"),
        (b"cut off \xc3", r"invalid UTF-8 at byte 8 \(line 1\)"),
        (b"x\n" * (1 << 20) + b"\xe2\x28", rf"at byte {1 << 21} \(line {(1 << 20) + 1}\)"),
        (b"a" * ((1 << 20) - 1) + b"\xc3" + b"(" + b"a" * 9, rf"at byte {(1 << 20) - 1} \(line 1\)"),
    ],
)
def test_files_that_are_not_text_are_named_with_the_place(tmp_path, content, message):
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        documents("text:*.txt")


def test_no_files_and_blank_files(tmp_path):
    (tmp_path / "blank.txt").write_text("\n")
    (tmp_path / "folder").mkdir()
    for pattern in ("nothing/*.txt", "folder/*"):
        with pytest.raises(UserError, match=rf"no file matches '{pattern[:6]}.*give a file or a pattern"):
            documents(f"text:{pattern}")
    with pytest.raises(UserError, match=r"'blank.txt' matches 1 file\(s\), all of them blank; give files with text"):
        documents("text:blank.txt")
    with pytest.raises(UserError, match="no file matches"):
        parse_corpus("text:nothing").fingerprint()
