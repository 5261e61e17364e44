"""The plots show the figures where they belong."""

from __future__ import annotations

from typing import Any

import pytest
import samples
from page_tree import Node, read_page, section

from keylatch.audit.report import render

TOP, BOTTOM = 12.0, 268.0


def figure(result: dict[str, Any], title: str) -> Node:
    return section(read_page(render(result)), title)


def number(node: Node, name: str) -> float:
    return float(str(node.attributes[name]).removesuffix("%"))


def marks(plot: Node) -> dict[str, Node]:
    """A plot's marks, by what they say when they are pointed at."""
    return {mark.all("title")[0].text: mark for mark in plot.all("g", "mark")}


def height(percent: float) -> Any:
    return pytest.approx(BOTTOM - percent / 100 * (BOTTOM - TOP), abs=0.06)


def test_each_counting_attack_is_a_mark_at_its_accuracy() -> None:
    result = samples.holds()
    shown = marks(figure(result, "What attackers recover"))
    counting = [entry for entry in result["attacks"] if entry["counts"]]
    assert len(shown) == len(counting) == 7
    mark = shown["fine-tune-all, 135 labeled images, 135 labeled images, 78.2 %"]
    assert number(mark.all("circle")[0], "cy") == height(78.2)
    bar = mark.all("line", "whisker")[0]
    assert (number(bar, "y1"), number(bar, "y2")) == (height(78.8), height(77.6))


def test_more_labels_stand_further_right_and_none_to_the_left() -> None:
    shown = marks(figure(samples.broken(), "What attackers recover"))
    x = {title: number((mark.all("circle") + mark.all("text"))[0], "cx" if mark.all("circle") else "x")
         for title, mark in shown.items() if "base-matching" in title}  # fmt: skip
    order = ["signs only, the public base", "13 labeled", "135 labeled", "1348 labeled"]
    places = [next(value for title, value in x.items() if f", {part}" in title) for part in order]
    assert places == sorted(places)
    free = [number(mark.all("circle")[0], "cx") for title, mark in shown.items() if "the artifact only" in title]
    assert max(free) < min(places)


def test_the_strongest_attacks_are_lettered_in_plot_legend_and_table() -> None:
    page = read_page(render(samples.holds()))
    plot = section(page, "What attackers recover")
    legend = [item.text for item in plot.all("ul", "legend")[0].all("li")]
    assert legend[0] == "A gate-removal 13.6 %, 2.5 points above its baseline"
    assert legend[2] == "C fine-tune-all 94.7 %, 0.4 points below its baseline"
    assert legend[3] == "2 results of other attacks"
    badges = [badge.text for badge in section(page, "All attacks").all("span", "badge")]
    assert badges == ["A", "B", "C", "C", "C"]
    assert sorted(mark.all("text")[0].text for mark in plot.all("g", "mark") if mark.all("text")) == badges


def test_breaks_are_diamonds_and_nothing_else_is() -> None:
    shown = marks(figure(samples.broken(), "What attackers recover"))
    diamonds = {title.split(",")[0] for title, mark in shown.items() if mark.all("polygon")}
    assert diamonds == {"base-matching", "free-gates"}
    assert sum(bool(mark.all("polygon")) for mark in shown.values()) == 3
    assert all("broken" in mark.styles for mark in shown.values() if mark.all("polygon"))


def test_the_area_of_breaks_begins_five_points_above_the_better_baseline() -> None:
    plot = figure(samples.broken(), "What attackers recover")
    edges = [[float(pair.split(",")[1]) for pair in str(line.attributes["points"]).split()]
             for line in plot.all("polyline", "zone-edge")]  # fmt: skip
    assert edges[0] == [height(11.14 + 5)] * 3
    assert edges[1] == [height(31.0 + 5)] * 3
    assert edges[2][1:-1] == [height(41.7 + 5), height(84.9 + 5), height(100)]


def test_every_break_lies_in_the_area_and_nothing_else_does() -> None:
    result = samples.broken()
    plot = figure(result, "What attackers recover")
    free, with_base, scale = (
        [float(pair.split(",")[1]) for pair in str(line.attributes["points"]).split()]
        for line in plot.all("polyline", "zone-edge")
    )
    limits = dict(zip(samples.BUDGETS, scale[1:-1], strict=True))
    for entry in (entry for entry in result["attacks"] if entry["counts"]):
        limit = limits.get(entry["labeled"], (with_base if "base" in entry["given"] else free)[0])
        assert (height(entry["recovered"]).expected < limit) == entry["broken"], entry


@pytest.mark.parametrize("title", ["What attackers recover", "What nearly right keys give"])
def test_chance_and_the_unlocked_model_are_lines(title: str) -> None:
    plot = figure(samples.holds(), title)
    for name, percent in (("unlocked", 97.55), ("chance", 11.14)):
        lines = plot.all("line", name)
        assert lines
        assert all(number(line, "y1") == height(percent) for line in lines)
        assert plot.all("text", name)[0].text.split()[-1] == name


def test_baselines_are_lines_with_their_ranges() -> None:
    plot = figure(samples.broken(), "What attackers recover")
    for style, values in (("base-a", (34.2, 81.5, 95.1)), ("base-b", (41.7, 84.9, 94.6))):
        (line,) = plot.all("polyline", style)
        heights = [float(pair.split(",")[1]) for pair in str(line.attributes["points"]).split()]
        assert heights == [height(value) for value in values]
        assert [number(bar, "y1") for bar in plot.all("line", style)] == [height(value + 2) for value in values]


def test_near_keys_fall_from_left_to_right() -> None:
    shown = list(marks(figure(samples.broken(), "What nearly right keys give")).items())
    assert shown[0][0] == "1 wrong bits: 91.2 %"
    places = [(number(mark.all("circle")[0], "cx"), number(mark.all("circle")[0], "cy")) for _, mark in shown]
    assert len(places) == 8
    assert places == sorted(places)
    assert places[0][1] == height(91.2)


def test_survival_is_grouped_by_change_with_both_accuracies() -> None:
    result = samples.broken()
    result["survival"] = result["survival"][0::2] + result["survival"][1::2]
    plot = figure(result, "What harmless changes do")
    names = [title.text for title in plot.all("h4")]
    assert sorted(names) == ["dynamic int8 quantization", "half precision", "jpeg", "pruning", "resize"]
    row = next(row for row in plot.all("div", "change") if row.text.startswith("20 % of"))
    assert row.text == "20 % of the smallest weights 94.0 % 10.7 %"
    assert number(row.all("circle", "unlocked-mark")[0], "cx") == 94.0
    assert [inner.attributes["x"] for inner in row.all("svg") if inner.attributes.get("overflow")] == ["10.7%"]
    assert [line.attributes["x1"] for line in row.all("line", "unlocked")] == ["97.55%"]


def test_without_the_owner_survival_shows_the_locked_model_alone() -> None:
    result = samples.holds()
    result["survival"] = [samples.survival("jpeg", "quality 60", None)]
    plot = figure(result, "What harmless changes do")
    assert not plot.all("circle", "unlocked-mark")
    assert "with the license" not in [item.text for item in plot.all("li")]
    assert plot.all("div", "change")[1].text == "quality 60 10.7 %"


def test_without_figures_there_are_no_plots() -> None:
    assert not read_page(render(samples.minimal())).all("figure")


@pytest.mark.parametrize("kept", [["gate-removal"], ["fine-tune-all"], ["near-key"]])
def test_plots_of_few_attacks_are_drawn(kept: list[str]) -> None:
    result = samples.holds()
    result["attacks"] = [entry for entry in result["attacks"] if entry["name"] in kept]
    page = read_page(render(result | {"baselines": []}))
    titles = [title.text for title in page.all("h3")]
    assert ("What attackers recover" in titles) == (kept != ["near-key"])
