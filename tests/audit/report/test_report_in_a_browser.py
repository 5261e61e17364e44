"""The report in headless Chromium: it fits a phone and a desk, can be seen, prints, and loads nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import samples
from browser import Frame, measure, photograph, print_page
from PIL import Image

from keylatch.audit.report import render

WIDTHS = (360, 390, 700, 910, 1280)
PAPER_WIDTH = 688  # CSS pixels of A4 between its margins
BUILDS = {"holds": samples.holds, "broken": samples.broken, "minimal": samples.minimal}
NO_SPACES = "w" * 180


def unbroken() -> dict[str, Any]:
    """Names that no space breaks, everywhere."""
    result = samples.broken()
    result["model"]["name"] = result["command"] = NO_SPACES
    for entry in result["attacks"][:3] + result["survival"][:2] + result["not_run"]:
        entry |= {"name": NO_SPACES, "note": NO_SPACES, "setting": NO_SPACES, "variant": NO_SPACES, "reason": NO_SPACES}
    result["baselines"].append(samples.baseline(NO_SPACES, 135, 50.0))
    return result


def on_paper(page: str) -> str:
    """The page with its rules for print in force, so that it can be measured like the others."""
    return page.replace("@media screen", "@media not all").replace("@media print", "@media all")


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    pages = {name: render(build()) for name, build in {**BUILDS, "unbroken": unbroken}.items()}
    frames = {f"{name}-{width}": Frame(page, width) for name, page in pages.items() for width in WIDTHS}
    frames |= {f"{name}-{PAPER_WIDTH}": Frame(on_paper(page), PAPER_WIDTH) for name, page in pages.items()}
    return measure(frames, tmp_path_factory.mktemp("browser"))


@pytest.mark.parametrize("width", [*WIDTHS, PAPER_WIDTH])
@pytest.mark.parametrize("name", [*BUILDS, "unbroken"])
def test_nothing_is_wider_than_the_window(name: str, width: int, laid_out: tuple[dict[str, Any], str]) -> None:
    found = laid_out[0][f"{name}-{width}"]
    assert found["client"] == width
    assert found["scroll"] == width
    assert found["outside"] == []


@pytest.mark.parametrize("width", [*WIDTHS, PAPER_WIDTH])
@pytest.mark.parametrize("name", [*BUILDS, "unbroken"])
def test_no_two_labels_of_a_plot_touch(name: str, width: int, laid_out: tuple[dict[str, Any], str]) -> None:
    assert laid_out[0][f"{name}-{width}"]["touching"] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_text_in_plots_is_large_enough_to_read(width: int, laid_out: tuple[dict[str, Any], str]) -> None:
    assert laid_out[0][f"broken-{width}"]["smallest"] > 10


def test_rows_are_cards_on_a_phone_only(laid_out: tuple[dict[str, Any], str]) -> None:
    displays = {width: laid_out[0][f"broken-{width}"]["cards"] for width in WIDTHS}
    assert displays == {360: "grid", 390: "grid", 700: "grid", 910: "table-row", 1280: "table-row"}


def test_the_browser_loads_nothing_and_complains_of_nothing(laid_out: tuple[dict[str, Any], str]) -> None:
    found, console = laid_out
    assert console == ""
    assert {entry["loaded"] for entry in found.values()} == {0}


def test_the_policy_stops_what_would_be_run_or_loaded(tmp_path: Path) -> None:
    """Were a name ever to become markup; and the control that the test above can fail."""
    slipped = '<script>window.hacked = true</script><img src="picture.png"></body>'
    found, console = measure({"slipped": Frame(render(samples.holds()).replace("</body>", slipped), 390)}, tmp_path)
    assert not found["slipped"]["hacked"]
    assert "violates the following Content Security Policy" in console
    without = re.sub(r"<meta http-equiv[^>]*>", "", render(samples.holds()).replace("</body>", slipped))
    assert measure({"open": Frame(without, 390)}, tmp_path)[0]["open"]["hacked"]


def test_the_page_can_be_seen_on_a_phone_and_a_desk(tmp_path: Path) -> None:
    frames = {"phone": Frame(render(samples.holds()), 390, 844), "desk": Frame(render(samples.broken()), 1280, 844)}
    with Image.open(photograph(frames, tmp_path)) as picture:
        image = picture.convert("RGB")
    assert image.size == (1670, 844)
    phone, desk = image.crop((0, 0, 390, 844)), image.crop((390, 0, 1670, 844))
    assert share_of_color(phone, (0x17, 0x6A, 0x4C)) > 0.15, "the banner is green"
    assert share_of_color(desk, (0xB3, 0x26, 0x1E)) > 0.10, "the banner is red"
    for part in (phone, desk):
        assert share_of_color(part, (255, 255, 255)) > 0.2
        below = part.crop((0, 420, part.width, 844))
        assert len(below.getcolors(maxcolors=100_000) or []) > 20, "text and figures below the banner"


@pytest.mark.parametrize(("name", "most"), [("holds", 4), ("broken", 9)])
def test_the_page_prints_on_a_few_sheets_of_a4(name: str, most: int, tmp_path: Path) -> None:
    printed = print_page(render(BUILDS[name]()), tmp_path)
    pages = re.findall(rb"/Type\s*/Page\b", printed)
    assert 2 <= len(pages) <= most
    sizes = {
        tuple(round(float(side)) for side in box.split()) for box in re.findall(rb"/MediaBox\s*\[([^\]]*)\]", printed)
    }
    assert sizes == {(0, 0, 595, 842)}
    assert b"/URI" not in printed


def share_of_color(image: Image.Image, color: tuple[int, int, int]) -> float:
    counts = {found: count for count, found in image.getcolors(maxcolors=1_000_000) or []}
    return counts.get(color, 0) / (image.width * image.height)
