"""Values of a log are text on the pages of Great Expectations."""

import pandas as pd

from dssm_core.data.expectations import Judge
from dssm_core.data.rules import Rule

IMAGE = "<img src=x onerror=alert({})>"
ESCAPED = "&lt;img src=x onerror=alert({})&gt;"


def test_a_value_with_html_is_text_on_every_page(tmp_path):
    raw, label = (IMAGE.format(number) for number in (1, 2))
    frame = pd.DataFrame(
        {
            "row": [0, 1, 2, 3],
            "timestamp": [raw, None, None, None],
            "label": [label, label, "b", "b"],
        }
    )
    rules = [
        Rule("ExpectColumnValuesToBeNull", "timestamp", f"a time, not {raw}", "correct it"),
        Rule("ExpectColumnValuesToBeInSet", "label", "b", "-", settings={"value_set": ["b"]}),
        Rule("ExpectColumnValuesToBeUnique", "label", "unique", "-"),
    ]
    verdicts = Judge(tmp_path, 0.5).judge("interactions", [frame], rules, "row", len(frame))
    assert verdicts[0].examples == (repr(raw),)  # as it is, for the message
    pages = "".join(page.read_text() for page in tmp_path.rglob("*.html"))
    assert "<img src=x" not in pages
    assert ESCAPED.format(1) in pages
    assert ESCAPED.format(2) in pages
    assert "&amp;lt;" not in pages  # escaped once


def test_the_name_of_a_column_is_text_on_every_page(tmp_path):
    name = IMAGE.format(1)
    frame = pd.DataFrame({"row": [0, 1], name: [1.0, 5.0]})
    settings = {"min_value": 0, "max_value": 2}
    rule = Rule("ExpectColumnValuesToBeBetween", name, "in 0 to 2", "-", settings=settings)
    Judge(tmp_path, 0.5).judge("interactions", [frame], [rule], "row", len(frame))
    pages = "".join(page.read_text() for page in tmp_path.rglob("*.html"))
    assert "<img src=x" not in pages
    assert ESCAPED.format(1) in pages
