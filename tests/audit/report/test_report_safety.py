"""Names in a report are others': none becomes markup, none reaches out, none rewrites a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import samples
from page_tree import read_page

from keylatch.audit.report import render, write_report
from keylatch.errors import OutputError

HOSTILE = [
    "<script>alert(1)</script>",
    '"]]><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "</title></style></svg><iframe src=//evil>",
    "<!-- ",
    "&lt;b&gt;&#x3c;script>",
    "javascript:alert(1)",
]


def with_names(value: Any, name: str) -> Any:
    """The result with every text replaced, keys of open maps too, but for what is compared with known words."""
    match value:
        case dict():
            known = {"verdict", "baseline_name"}
            return {key: part if key in known else with_names(part, name) for key, part in value.items()}
        case list():
            return [with_names(part, name) for part in value]
        case str():
            return name
    return value


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str) -> None:
    result = with_names(samples.broken(), name)
    result |= {"versions": {name: name}, "machine": {name: name}}
    result["model"]["lock"][name] = name
    result["attacks"][0]["cost"] = {name: 3}
    # Long, so that what is drawn for a name that has to be cut is among what is expected.
    expected, found = (read_page(render(one)) for one in (with_names(samples.broken(), "a" * 40), result))
    assert {node.tag for node in found.all("*")} <= {node.tag for node in expected.all("*")}
    allowed = {key for node in expected.all("*") for key in node.attributes}
    assert {key for node in found.all("*") for key in node.attributes} <= allowed
    told = " ".join(name.split())
    assert found.all("title")[0].text == f"Keylatch audit of {told}"
    assert found.text.count(told) > 100


@pytest.mark.parametrize("char", ["\u202e", "\u2066", "\x00", "\x1b", "\u200b", "\ud800", "\x85", "\u2028"])
def test_characters_that_rewrite_a_line_are_spelled_out(char: str) -> None:
    page = render(with_names(samples.holds(), f"safe{char}model"))
    page.encode()
    assert char not in page
    assert f"safe{ascii(char)[1:-1]}model" in read_page(page).text


def test_line_breaks_become_spaces() -> None:
    assert "one two three" in read_page(render(samples.holds() | {"summary": "one\n two\t\r\nthree"})).text


@pytest.mark.parametrize("build", [samples.holds, samples.broken, samples.minimal])
def test_nothing_is_loaded(build: Callable[[], dict[str, Any]]) -> None:
    page = render(build())
    for reach in (
        "http:",
        "https:",
        "//",
        "src=",
        "href",
        "@import",
        "url(",
        "<link",
        "<script",
        "<iframe",
        "@font-face",
    ):
        assert reach not in page, reach
    (policy,) = [meta for meta in read_page(page).all("meta") if "http-equiv" in meta.attributes]
    assert policy.attributes == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    }


def test_the_same_result_makes_the_same_page() -> None:
    assert render(samples.broken()) == render(samples.broken())


def test_a_report_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    for build in (samples.holds, samples.broken):
        write_report(build(), path)
        assert path.read_bytes() == render(build()).encode()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_report(samples.holds(), path)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OutputError, match="No space left"):
        write_report(samples.broken(), path)
    assert path.read_bytes() == render(samples.holds()).encode()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"report .*report\.html cannot be written"):
        write_report(samples.holds(), tmp_path / "missing" / "report.html")
