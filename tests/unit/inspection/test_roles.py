import pytest

from dssm_core.errors import DataError
from dssm_core.inspection.columns import Column
from dssm_core.inspection.roles import guess_label, guess_roles, is_rating, words_of


def column(name, distinct=100, **facts):
    return Column(name, rows=1000, filled=1000, distinct=distinct, **facts)


def numbers(name, *values, **facts):
    found = [float(value) for value in values]
    whole = float(all(value.is_integer() for value in found))
    return column(
        name,
        distinct=len(values),
        numbers=1.0,
        whole=whole,
        low=min(found),
        high=max(found),
        values=values,
        **facts,
    )


def roles(*columns, times=("ts",), chosen=None, header=True):
    named = {each.name: each for each in (*columns, column("ts"))}
    return guess_roles(named, times, "log.csv", chosen or {}, header)


def test_words_of_names():
    assert words_of("clickArticleID") == ["click", "article", "id"]
    assert words_of("user_id:token") == ["user", "id"]


@pytest.mark.parametrize(
    ("names", "user", "item"),
    [
        (["user_id", "session_id", "click_article_id"], "user_id", "click_article_id"),
        (["visitorid", "event", "itemid"], "visitorid", "itemid"),
        (["user_id:token", "item_id:token"], "user_id:token", "item_id:token"),
        (["product_category_id", "product_id", "customer"], "customer", "product_id"),
        (["item_name", "uid", "iid"], "uid", "iid"),
        (["user_age", "movieId", "userId"], "userId", "movieId"),
    ],
)
def test_user_and_item_by_name(names, user, item):
    found = roles(*map(column, names))
    assert (found.user, found.item, found.time) == (user, item, "ts")


def test_a_session_is_a_user_if_there_is_none():
    found = roles(column("session_id"), column("article_id"))
    assert found.user == "session_id"
    assert "no column is called a user" in found.doubts[0]


def test_columns_without_names_are_taken_by_place():
    found = roles(
        column("column1"),
        column("column2"),
        numbers("column3", "1", "2", "3", "4", "5"),
        header=False,
    )
    assert (found.user, found.item, found.label) == ("column1", "column2", "column3")
    assert "no header" in found.doubts[0]


def test_a_person_decides():
    found = roles(column("who"), column("what"), chosen={"user_id": "who", "item_id": "what"})
    assert (found.user, found.item, found.doubts) == ("who", "what", ())


def test_a_log_without_user_or_item_is_refused_with_its_columns():
    with pytest.raises(DataError, match=r"user_id or item_id; .* 'colour', 'ts'. .*--user COLUMN"):
        roles(column("colour"))
    with pytest.raises(DataError, match="looks like item_id"):
        roles(column("user"))


def test_a_log_without_times_is_refused():
    with pytest.raises(DataError, match="no column whose times can be read"):
        roles(column("user"), column("item"), times=())


def test_the_time_of_the_event_is_not_that_of_the_session():
    found = roles(column("user"), column("item"), times=("session_start", "click_timestamp"))
    assert found.time == "click_timestamp"


@pytest.mark.parametrize(
    ("values", "positive", "labels"),
    [
        (["0", "1"], "label == 1", (0, 1)),
        (["1", "-1"], "label == 1", (-1, 1)),
        (["1", "2", "3", "4", "5"], "rating > 3", (1, 2, 3, 4, 5)),
        (["0.5", "1", "2", "5"], "rating > 3", (0.5, 1, 2, 5)),
        ([str(n) for n in range(1, 11)], "rating > 6", tuple(range(1, 11))),
    ],
)
def test_what_counts_as_a_positive(values, positive, labels):
    label = guess_label(numbers("rating", *values))
    assert (label.positive, label.labels) == (positive, labels)
    assert bool(label.doubt) == (label.name == "rating")


def test_a_boolean_column_is_a_label():
    found = Column("clicked", "BOOLEAN", 10, 10, 2, values=("true", "false"))
    assert roles(column("user"), column("item"), found).label == "clicked"
    assert guess_label(found).labels == (0, 1)


def test_a_scale_has_more_than_two_steps_and_no_text():
    assert is_rating(numbers("stars", "1", "2", "3"))
    assert not is_rating(numbers("stars", "0", "1"))
    assert not is_rating(column("stars", values=("good", "bad", "so-so")))
