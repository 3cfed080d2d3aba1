"""The documentation says what is there: its examples run, and the files it links to exist."""

import ast
import re
import tomllib

import pytest

from tests.conftest import REPO

PAGES = sorted(
    [
        *REPO.glob("*.md"),
        *REPO.glob("docs/*.md"),
        REPO / "mlflow" / "README.md",
        REPO / "deploy" / "kubernetes" / "README.md",
    ]
)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_file_that_a_page_names_is_there(page):
    path = (
        r"(?<![\w/.])((?:tests|benchmarks|configs|dssm_core|docs)/[\w./-]+\.(?:py|yaml|md|png))\b"
    )
    placeholders = {"configs/NAME.yaml", "configs/my-log.yaml"}
    text = page.read_text()
    new = set(re.findall(rf"^`{path}`$", text, re.MULTILINE))  # the title of an example
    names = set(re.findall(path, text)) - placeholders - new
    assert sorted(name for name in names if not (REPO / name).is_file()) == []
    assert sorted(name for name in new if not (REPO / name).parent.is_dir()) == []


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


ARCHITECTURE = (REPO / "docs" / "architecture.md").read_text()
CORE = REPO / "dssm_core"


def defined(node, names):
    """Whether a syntax tree defines the first name, inside it the next, and so on."""
    if not names:
        return True
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == names[0]:
            return defined(child, names[1:])
        targets = child.targets if isinstance(child, ast.Assign) else [getattr(child, "target", 0)]
        if names == [getattr(target, "id", "") for target in targets]:
            return True
    return False


def test_every_file_and_function_that_the_architecture_names_exists():
    references = re.findall(r"`([\w/]+\.py)(?::([\w.]+))?`", ARCHITECTURE)
    assert len(references) > 40
    missing = [
        f"{file}:{name}"
        for file, name in references
        if not (CORE / file).is_file()
        or not defined(ast.parse((CORE / file).read_text()), name.split(".") if name else [])
    ]
    assert missing == []


def test_the_architecture_lists_the_packages_in_the_order_that_the_linter_holds():
    listed = re.findall(r"^\| `(\w+)` \|", ARCHITECTURE, re.MULTILINE)
    contracts = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"][::-1]
    packages = [layer.removeprefix("dssm_core.") for layer in layers if "|" not in layer]
    assert listed == packages
    assert set(listed) == {file.parent.name for file in CORE.glob("*/__init__.py")}
    assert len(list(CORE.glob("*.py"))) <= 6


def text_of(node):
    """A string as a pattern: literal text, and anything where a value is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return node.value if isinstance(getattr(node, "value", None), str) else "\0"


def test_every_message_that_operations_explains_is_one_of_the_code():
    table = (REPO / "docs" / "operations.md").read_text().partition("## What the messages mean")[2]
    messages = re.findall(r"^\| `([^`]+)` \|", table.partition("\n## ")[0], re.MULTILINE)
    assert len(messages) > 10
    sources = [
        file for folder in ("dssm_core", "tasks", "dags") for file in (REPO / folder).rglob("*.py")
    ]
    texts = {
        text_of(node)
        for file in sources
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.JoinedStr | ast.BinOp | ast.Constant)
    }

    def said(message):
        parts = [part.strip() for part in message.split("…") if part.strip()]
        return any(re.search(".*".join(map(re.escape, parts)), text, re.DOTALL) for text in texts)

    assert [message for message in messages if not said(message)] == []
