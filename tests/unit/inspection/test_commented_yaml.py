import yaml

from dssm_core.inspection.commented_yaml import Remark, commented

SETTINGS = {
    "name": "x",
    "data": {"source": {"path": "/d", "columns": {"user_id": "who: me"}}, "positive": "a > 1"},
    "features": [{"column": "ü\n", "kind": "text"}],
}


def test_the_text_holds_the_settings_whatever_the_remarks_say():
    remarks = [
        Remark("name", "a # b"),
        Remark("data.source", "is " * 80, unsure=True),
        Remark("data.positive", "two\nlines", unsure=True),
        Remark("data", "all"),
    ]
    text = commented(SETTINGS, remarks, "head")
    assert yaml.safe_load(text) == SETTINGS
    assert text.startswith("# head\nname: x # a # b\ndata:\n  # all\n")
    assert "  # CHECK: two\n  # lines\n  positive: a > 1\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_without_remarks_there_is_no_comment():
    assert "#" not in commented(SETTINGS, [], "")
