"""The documentation says what is there: its examples run, and the files it links to exist."""

import re

import pytest

from tests.conftest import REPO

PAGES = sorted([*REPO.glob("*.md"), *REPO.glob("docs/*.md"), REPO / "mlflow" / "README.md"])
LINK = re.compile(r"\]\(([^)\s#]+)?(#[^)\s]+)?\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page):
    broken = []
    for path, anchor in LINK.findall(FENCE.sub("", page.read_text())):
        if path.startswith(("http:", "https:", "mailto:")):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor[1:] not in anchors(target)):
            broken.append(path + anchor)
    assert broken == []


def test_the_notebook_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    [code] = re.findall(
        r"<!-- notebook -->\n```python\n(.*?)```", (REPO / "README.md").read_text(), re.DOTALL
    )
    assert len(code.splitlines()) <= 20
    (tmp_path / "configs").symlink_to(REPO / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    scope: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), scope)  # the example is ours
    printed = capsys.readouterr().out
    assert "served recall@200" in printed
    assert re.search(r"^0\.\d+$", printed, re.MULTILINE)
    answers = scope["bundle"].retrieve(scope["queries"], k=200)
    assert list(answers.columns) == ["item_ids", "scores", "source"]
    assert [len(items) for items in answers["item_ids"]] == [200, 200]
