"""Pages of Great Expectations' Data Docs. Values and names of a log are text on them, never HTML.

Great Expectations makes this view by its name, so that nothing else imports this module.
"""

from __future__ import annotations

from html import escape
from typing import Any

from great_expectations.render.view import DefaultJinjaPageView
from jinja2 import pass_context


class EscapedView(DefaultJinjaPageView):  # type: ignore[misc]  # its class is untyped here
    """The default view, which writes texts outside of templates, such as the cells of a table of
    values, into a page as they are.
    """

    def render(self, document: Any, *arguments: Any, **named: Any) -> Any:
        """The HTML of a page. A section about a column has the column's name."""
        for section in document.sections:
            for block in section.content_blocks:
                _escape_heading(block, section.section_name)
            section.section_name = _escaped(section.section_name)
        return super().render(document, *arguments, **named)

    @pass_context
    def render_content_block(
        self, jinja_context: Any, content_block: Any, *arguments: Any, **named: Any
    ) -> Any:
        """The HTML of a part of a page, with plain texts escaped."""
        return super().render_content_block(
            jinja_context, _escaped(content_block), *arguments, **named
        )


def _escape_heading(block: Any, name: str) -> None:
    """Escape the name of a column in the heading of its section."""
    heading = getattr(getattr(block, "header", None), "string_template", None)
    if heading is not None and heading["template"] == name:
        heading["template"] = escape(name)


def _escaped(block: Any) -> Any:
    if isinstance(block, list):
        return [_escaped(part) for part in block]
    return escape(block) if isinstance(block, str) else block
