"""Pages of Great Expectations' Data Docs. Values of a log are text on them, never HTML.

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

    @pass_context
    def render_content_block(
        self, jinja_context: Any, content_block: Any, *arguments: Any, **named: Any
    ) -> Any:
        """The HTML of a part of a page, with plain texts escaped."""
        return super().render_content_block(
            jinja_context, _escaped(content_block), *arguments, **named
        )


def _escaped(block: Any) -> Any:
    if isinstance(block, list):
        return [_escaped(part) for part in block]
    return escape(block) if isinstance(block, str) else block
