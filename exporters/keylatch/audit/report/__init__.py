"""The report of an audit: one HTML page that needs nothing but itself.

    _result            the audit's JSON, read as values
    _html              elements, escaped
    _words             numbers as text
    _symbols           marks that stand in text
    _page              the page
    _verdict           what stands on top
    _budget_plot       recovered accuracy against labeled images
    _budget_points     which attacks that plot names, and where its points lie
    _near_key_plot     accuracy of nearly right keys
    _survival_plot     what harmless changes of an image do
    _axes              scales, grids and labels of the plots
    _tables            every figure
    _style             the style sheet

No scripts, no links, no fonts: the page says the same on a phone, on paper and in ten years.
"""

from __future__ import annotations

from keylatch.audit.report._page import render, write_report
from keylatch.audit.report._tables import JSON_NAME

__all__ = ["JSON_NAME", "render", "write_report"]
