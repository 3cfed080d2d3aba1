import gzip

import pytest

from dssm_core.errors import DataError
from dssm_core.inspection.formats import other_separator, tell_format


def tell(tmp_path, content, name="log.csv", encoding="utf-8"):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return tell_format(file)


ROWS = "".join(f"{n % 7},{n % 5},{1_709_251_200 + n}\n" for n in range(30))


def test_a_comma_inside_quotes_separates_nothing(tmp_path):
    lines = "".join(f'{n};{n % 3};"a; b"\n' for n in range(20))
    form = tell(tmp_path, "user;item;title\n" + lines)
    assert (form.separator, form.quote, form.header) == (";", '"', True)
    assert form.names == ("user", "item", "title")


def test_a_quote_that_closes_nowhere_is_a_character(tmp_path):
    lines = "".join(f'{n}\t{n % 3}\t5" disc\n' for n in range(20))
    assert tell(tmp_path, "user\titem\ttitle\n" + lines).quote == ""


@pytest.mark.parametrize("separator", ["\t", "|", ";", "::", " ", "\x01"])
def test_each_separator_is_found(tmp_path, separator):
    text = ("user,item,ts\n" + ROWS).replace(",", separator)
    form = tell(tmp_path, text)
    assert form.separator == separator
    assert form.names == ("user", "item", "ts")


def test_a_file_without_a_header_gets_names_by_position(tmp_path):
    form = tell(tmp_path, ROWS.replace(",", "::"))
    assert (form.header, form.names) == (False, ("column1", "column2", "column3"))
    assert form.table.names == form.names


@pytest.mark.parametrize(
    ("encoding", "expected"), [("utf-8", "utf-8"), ("utf-16", "utf-16"), ("latin-1", "latin-1")]
)
def test_encodings(tmp_path, encoding, expected):
    text = "user,item,name\n" + "".join(f"{n},{n % 3},é\n" for n in range(20))
    form = tell(tmp_path, text, encoding=encoding)
    assert form.encoding == expected
    assert bool(form.doubts) == (expected == "latin-1")


def test_gzip_is_unpacked(tmp_path):
    content = gzip.compress(("user,item,ts\n" + ROWS).encode())
    assert tell(tmp_path, content, "log.csv.gz").names == ("user", "item", "ts")


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (bytes(range(256)) * 20, "log.csv", "is no text"),
        (gzip.compress(ROWS.encode()), "log.csv", "let its name end in .gz"),
        (b"\x1f\x8b damaged", "log.csv.gz", "cannot be read"),
        (b"PK\x03\x04", "log.csv", "is a zip archive: unpack it"),
        ("user,item\n1,2\n".encode("utf-16-be"), "log.csv", "is no text"),
        (b"", "log.csv", "has no row"),
        (b"a\nb\nc\n", "log.csv", "has one column, whose first line is 'a'"),
        (b"1 2 3\n2 5\n3 1 2 4\n4 1\n5 6 7\n6 1\n", "log.txt", "source kind 'sequences'"),
    ],
)
def test_what_is_no_table_is_said(tmp_path, content, name, says):
    with pytest.raises(DataError, match=says):
        tell(tmp_path, content, name)


def test_another_separator_is_in_each_line_equally_often():
    assert other_separator(["1::2::3", "4::5::6"]) == "::"
    assert other_separator(["1 2 3", "4 5"]) == ""
