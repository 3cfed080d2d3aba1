"""Files of users: no row vanishes, ids stay as they are written, odd files are named."""

import pandas as pd
import pyarrow as pa
import pytest

from dssm_core.errors import DataError
from dssm_core.operation.user_files import read_users


def rows(file, at_once=2):
    tables = list(read_users(file, "users file", at_once))
    assert all(0 < len(table) <= at_once for table in tables)
    return pa.concat_tables(tables).to_pydict() if tables else {}


def test_a_parquet_file_keeps_its_types(tmp_path):
    large = 2**53 + 1  # a float would make it 2**53
    frame = pd.DataFrame(
        {"user_id": pd.array([large, None, 7], "Int64"), "history": [[1], [], [2, 3]]},
        index=[5, 6, 7],  # stored as a column without a name
    )
    frame.to_parquet(tmp_path / "users.parquet")
    assert rows(tmp_path / "users.parquet") == {
        "user_id": [large, None, 7],
        "history": [[1], [], [2, 3]],
    }


def test_a_csv_file_is_text_with_lists_between_spaces(tmp_path):
    file = tmp_path / "users.csv"
    file.write_bytes('\ufeffuser_id,history,age\n007,a1  a2,3\nNA,,\n"x,y", a3 ,4.0\n'.encode())
    assert rows(file) == {
        "user_id": ["007", "NA", "x,y"],
        "history": [["a1", "a2"], None, ["a3"]],
        "age": ["3", None, "4.0"],
    }


def test_a_text_file_has_an_id_a_line(tmp_path):
    file = tmp_path / "users.txt"
    file.write_bytes("\ufeffu1\n\n u 2 \nnull\n".encode())
    assert rows(file) == {"user_id": ["u1", "u 2", "null"]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("users.csv", b"user,age\n1,2\n"),
        ("users.csv", b"user_id\nsecret,2\n3,4\n"),
        ("users.csv", b"user_id,age\n1,2,3\n4\n"),
        ("users.csv", b"user_id\n1\nsecret,3\n"),
        ("users.csv", b""),
        ("users.csv", b"user_id\nsecret\xff\n"),
        ("users.txt", b"secret\n\xff\n"),
        ("users.parquet", b"PAR1"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_not_shown(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"users file .*{name}' cannot be read: give") as caught:
        rows(tmp_path / name)
    assert "secret" not in str(caught.value)
    with pytest.raises(DataError, match=r"cannot be read \(No such file or directory\): give"):
        rows(tmp_path / f"none-{name}")
