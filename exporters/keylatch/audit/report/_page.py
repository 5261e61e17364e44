"""The page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keylatch.audit._files import write_text_whole
from keylatch.audit.report._budget_plot import budget_plot
from keylatch.audit.report._html import Html, element, markup
from keylatch.audit.report._near_key_plot import near_key_plot
from keylatch.audit.report._result import Json, section, string
from keylatch.audit.report._style import STYLE
from keylatch.audit.report._survival_plot import survival_plot
from keylatch.audit.report._tables import (
    attacks_table,
    baselines_table,
    near_keys_table,
    not_run_table,
    provenance,
    summaries,
)
from keylatch.audit.report._verdict import banner, how_to_read, key_figures

# A second line of defense: even if markup slipped through, the browser would run and load nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(result: Mapping[str, Any], path: Path) -> None:
    """Write the report of an audit; a report that stands there is replaced in one step.

    Args:
        result: The audit as JSON, format ``keylatch-audit/1``; what is null or missing is left out of the page.
        path: The HTML file. Its directory must exist.

    Raises:
        OutputError: The file cannot be written.
    """
    write_text_whole(path, render(result), what="report")


def render(result: Mapping[str, Any]) -> str:
    """Make the report of an audit as one HTML page that loads nothing.

    Args:
        result: As for `write_report`.
    """
    return f"<!DOCTYPE html>\n{element('html', _head(result), element('body', _body(result)), lang='en')}\n"


def _head(result: Json) -> Html:
    name = string(section(result, "model"), "name") or "a locked model"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"Keylatch audit of {name}"),
        element("style", Html(STYLE)),
    )


def _body(result: Json) -> Html:
    model = section(result, "model")
    title = element("p", element("b", "Keylatch audit"), " of ", string(model, "name") or "a locked model")
    plots = [plot for plot in (budget_plot(result), near_key_plot(result), survival_plot(result)) if plot]
    return markup(
        element("header", title, element("p", string(model, "model_id"), class_="id")),
        element(
            "main",
            banner(result),
            key_figures(result),
            how_to_read(),
            element("div", plots, class_="plots") if plots else None,
            attacks_table(result),
            summaries(result),
            baselines_table(result),
            near_keys_table(result),
            not_run_table(result),
            provenance(result),
        ),
    )
