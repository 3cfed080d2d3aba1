import duckdb
import pytest

from dssm_core.inspection.columns import describe, separator_of
from dssm_core.inspection.features import context_features, feature_of, table_features


@pytest.fixture
def con():
    with duckdb.connect() as con:
        yield con


def of(con, values, kind="VARCHAR"):
    con.execute(f"CREATE OR REPLACE TABLE t (c {kind})")
    con.executemany("INSERT INTO t VALUES (?)", [[value] for value in values])
    return describe(con, "t")["c"]


def test_numbers_and_their_ends(con):
    column = of(con, ["3", "1", "2.5", None, " "])
    assert (column.rows, column.filled, column.distinct) == (5, 3, 3)
    assert (column.low, column.high, column.numbers) == (1, 3, 1)
    assert column.whole == pytest.approx(2 / 3)
    assert column.values == ("1", "2.5", "3")


def test_ids_with_leading_zeros_are_no_numbers(con):
    column = of(con, ["007", "008", "1"])
    assert column.padded == pytest.approx(2 / 3)
    assert not column.is_number
    assert feature_of(of(con, ["01", "02"] * 20)) == {"column": "c", "kind": "categorical"}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["a|b", "b|c", "a|c", "c"], "|"),
        (["x y", "y z", "x z", "z", "x y z", "x"], " "),
        (["Toy Story", "Jumanji 2", "Heat it"], None),
        (["a", "b", "c", "d"], None),
    ],
)
def test_the_separator_of_several_values_in_a_cell(con, cells, expected):
    of(con, cells)
    assert separator_of(con, "t", "c") == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["de", "fr", "it"] * 10, {"kind": "categorical"}),
        ([str(n / 2) for n in range(60)], {"kind": "numeric"}),
        ([str(n * 1000) for n in range(60)], {"kind": "numeric", "normaliser": "log"}),
        ([f"{n} red shoes" for n in range(60)], {"kind": "text"}),
        (["same"] * 10, None),
        ([f"key{n}" for n in range(60)], None),
        ([f"2024-03-01 10:00:{n:02d}" for n in range(60)], None),
    ],
)
def test_the_kind_of_a_feature(con, values, expected):
    feature = feature_of(of(con, values))
    assert feature == (expected and {"column": "c", **expected})


def test_a_table_of_features_knows_its_separators(con):
    con.execute("""
    CREATE TABLE items AS SELECT i AS id, concat('a', i % 3, ';b', i % 5) AS tags
    FROM range(30) r(i)
    """)
    found = table_features(con, "items", describe(con, "items"), {"id"})
    assert found == [{"column": "tags", "kind": "multi", "separator": ";"}]


def test_lists_of_one_length_of_fractions_are_vectors(con):
    con.execute("""
    CREATE TABLE items AS SELECT i AS id, [i / 3, 0.5] AS title_embedding,
        CASE WHEN i % 2 = 0 THEN [i / 3] ELSE [0.5, i / 3] END AS prices, [i, i + 1] AS parts
    FROM range(30) r(i)
    """)
    found = table_features(con, "items", describe(con, "items"), {"id"})
    assert {feature["column"]: feature["kind"] for feature in found} == {
        "title_embedding": "vector",
        "prices": "multi",
        "parts": "multi",
    }


def test_the_context_of_an_event_has_few_values(con):
    con.execute("""
    CREATE TABLE log AS SELECT i AS user, i % 2 AS device, i AS row_number, i % 7 / 2 AS price,
        i % 3 AS session_id FROM range(100) r(i)
    """)
    assert context_features(describe(con, "log"), {"user"}) == [
        {"column": "device", "kind": "categorical"}
    ]
