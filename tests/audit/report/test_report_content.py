"""The report says all that the audit found, in an order that helps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import samples
from page_tree import Node, facts, read_page, rows, section

import keylatch.audit.report
from keylatch.audit._result import (
    AttackResult,
    AuditResult,
    BaselineResult,
    NearKey,
    NotRun,
    References,
    SurvivalRow,
)  # fmt: skip
from keylatch.audit.report import JSON_NAME, render

RESULTS = [samples.holds, samples.broken, samples.minimal]


def page_of(result: dict[str, Any]) -> Node:
    return read_page(render(result))


def attack_rows(result: dict[str, Any]) -> list[dict[str, str]]:
    return rows(section(page_of(result), "All attacks"))


@pytest.mark.parametrize("build", RESULTS)
def test_the_page_is_well_formed(build: Any) -> None:
    page = page_of(build())
    assert [node.tag for node in page.all("*")[:1]] == ["html"]
    assert len(page.all("h1")) == 1
    assert not page.all("script")
    assert not page.all("a")
    assert not page.all("img")


@pytest.mark.parametrize(
    ("verdict", "words"),
    [("holds", "The lock holds"), ("broken", "The lock is broken"), ("incomplete", "No verdict: incomplete")],
)
def test_the_verdict_is_a_word_a_sign_and_a_color(verdict: str, words: str) -> None:
    page = page_of(samples.minimal() | {"verdict": verdict, "summary": "In one sentence."})
    (banner,) = page.all("section", "banner")
    assert banner.all("h1")[0].text == words
    assert verdict in banner.styles
    assert len(banner.all("svg", "sign")) == 1
    assert banner.all("p", "summary")[0].text == "In one sentence."


def test_the_signs_of_the_verdicts_differ() -> None:
    pages = [page_of(samples.minimal() | {"verdict": verdict}) for verdict in ("holds", "broken", "incomplete")]
    assert len({page.all("svg", "sign")[0].all("path")[0].attributes["d"] for page in pages}) == 3


@pytest.mark.parametrize("verdict", ["secure", "", None, 7])
def test_an_unknown_verdict_never_looks_like_a_good_one(verdict: object) -> None:
    (banner,) = page_of(samples.holds() | {"verdict": verdict}).all("section", "banner")
    assert banner.all("h1")[0].text.startswith("No verdict")
    assert "holds" not in banner.styles


def test_the_key_figures_stand_on_top() -> None:
    tiles = facts(page_of(samples.broken()))
    assert tiles["Original"].startswith("98.4 %")
    assert tiles["Unlocked"].startswith("97.5 %")
    assert tiles["Locked"].startswith("10.2 %")
    assert tiles["Chance"].startswith("11.1 %")
    assert tiles["Strongest attack"] == (
        "63.4 % baseline 41.7 %, public base: +21.7 points base-matching, 13 labeled images, the public base"
    )
    assert tiles["Effective key bits"].startswith("96.4 of 256 bits")


def test_the_strongest_attack_is_one_that_counts() -> None:
    result = samples.holds()
    assert max(entry["recovered"] - entry["baseline"] for entry in result["attacks"] if not entry["counts"]) > 5
    assert "gate-removal" in facts(page_of(result))["Strongest attack"]
    result["attacks"] = [entry for entry in result["attacks"] if not entry["counts"]]
    assert facts(page_of(result))["Strongest attack"] == "– no attack ran"


def test_the_break_rule_and_its_numbers_are_explained() -> None:
    (how,) = [node for node in page_of(samples.holds()).all("section") if "How to read this" in node.text]
    assert len(how.all("li")) == 3
    assert "more than 5 points above the better baseline" in how.text
    assert "less than 80 bits" in how.text


@pytest.mark.parametrize("build", RESULTS)
def test_every_attack_is_in_the_table_with_all_its_figures(build: Any) -> None:
    result = build()
    table = attack_rows(result) if result["attacks"] else []
    assert len(table) == len(result["attacks"])
    for entry in result["attacks"]:
        recovered = f"{entry['recovered']:.1f} % {entry['low']:.1f} to {entry['high']:.1f}"
        margin = f"{entry['recovered'] - entry['baseline']:+.1f}".replace("-", "−")
        expected = {
            "Attacker has": entry["given"],
            "Recovered": recovered,
            "Baseline": f"{entry['baseline']:.1f} % {entry['baseline_name']}",
            "Time and cost": "4.2 s 160 steps · 20,480 queries · 2 seeds",
        }
        found = [row for row in table if expected.items() <= row.items() and entry["name"] in row["Attack"]]
        assert found, entry
        assert any(row["Margin"].split()[0] == margin for row in found)
        assert any(entry["note"].strip() in row["Note"] for row in found)


def test_breaks_come_first_then_the_margin_and_what_does_not_count_last() -> None:
    result = samples.broken()
    samples.random.Random(1).shuffle(result["attacks"])
    table = attack_rows(result)
    kinds = ["break" in row["Margin"] for row in table]
    assert kinds == [True] * 3 + [False] * (len(table) - 3)
    assert ["uncounted" in row["Margin"] for row in table] == [False] * (len(table) - 4) + [True] * 4
    for part in (table[:3], table[3:-4], table[-4:]):
        margins = [float(row["Margin"].split()[0].replace("−", "-")) for row in part]
        assert margins == sorted(margins, reverse=True)


def test_a_break_with_a_small_margin_still_comes_first() -> None:
    result = samples.holds()
    result["attacks"][-2] |= {"broken": True, "recovered": 20.0}
    assert attack_rows(result)[0]["Recovered"].startswith("20.0 %")


def test_what_was_cut_short_and_which_signs_were_found_is_told() -> None:
    notes = [row["Note"] for row in attack_rows(samples.holds())]
    assert "stopped early by the time limit" in notes
    assert "signs right: 51.2 %, 49.9 %" in notes


def test_baselines_near_keys_and_what_did_not_run_are_in_tables() -> None:
    page = page_of(samples.broken())
    baselines = rows(section(page, "Baselines: what an attacker has without your model"))
    assert len(baselines) == 8
    assert {
        "Baseline": "from scratch",
        "Labeled images": "1,348",
        "Accuracy": "95.1 % 93.1 to 97.1",
        "Seeds": "2",
    } in baselines
    near = rows(section(page, "Nearly right keys"))
    assert len(near) == 8
    assert near[0] == {
        "Wrong bits": "1", "Of the key": "0.4 %", "Accuracy": "91.2 % 88.2 to 93.2", "Chance to guess": "2 −248.0",
        "Opens": "yes",
    }  # fmt: skip
    assert rows(section(page, "Not run"))[0] == {
        "Attack": "trigger-inversion 1348 labeled images, seed 1",
        "Why": "no time was left",
    }


def test_near_block_keys_have_wrong_entries() -> None:
    result = samples.holds() | {
        "near_keys": [{"wrong": 2, "unit": "entries", "share": 12.5, "accuracy": 33.3, "low": 30.0, "high": 36.0}]
    }
    near = rows(section(page_of(result), "Nearly right keys"))
    assert near[0] == {"Wrong entries": "2", "Of the key": "12.5 %", "Accuracy": "33.3 % 30.0 to 36.0",
                       "Chance to guess": "–", "Opens": "–"}  # fmt: skip


def test_an_audit_can_be_run_again_from_its_report() -> None:
    result = samples.holds()
    page = page_of(result)
    told = facts(section(page, "To run it again"))
    assert told["command"] == result["command"]
    assert told["seeds"] == "0, 1"
    assert told["model_id"] == samples.MODEL_ID
    assert told["SHA-256 of attacker's images"] == samples.DIGEST
    assert told["SHA-256 of test images"] == samples.DIGEST[::-1]
    assert told["minutes"] == "4.23 used of 5.0"
    assert told["layers"] == "layer1.0.conv1 (64 channels), layer3.1.conv2 (256 channels)"
    assert told["patch"] == "size 8, corner bottom right"
    for group in ("versions", "machine"):
        assert {name: str(value) for name, value in result[group].items()}.items() <= told.items()
    assert JSON_NAME == "report.json"
    assert JSON_NAME in section(page, "To run it again").text


def test_one_digest_of_all_images_is_shown_too() -> None:
    result = samples.holds()
    result["images"]["sha256"] = samples.DIGEST
    assert facts(section(page_of(result), "To run it again"))["SHA-256 of images"] == samples.DIGEST


def test_the_report_reads_what_an_audit_writes() -> None:
    attack = AttackResult(
        name="sign-recovery", variant="few", summary="Guesses.", given="13 labeled images", labeled=13, unlabeled=0,
        recovered=21.5, low=20.9, high=22.1, baseline=34.2, baseline_name="from scratch", broken=False, counts=True,
        seeds=2, seconds=1.5, cost={"steps": 160.0}, truncated=False, note="nothing found", signs_right=(51.25,),
    )  # fmt: skip
    result = AuditResult(
        verdict="holds", summary="It holds.", model=samples.holds()["model"],
        accuracy=References(98.4, 97.6, 10.2, 11.1), attacks=(attack,),
        baselines=(BaselineResult("from scratch", 13, 34.2, 30.1, 38.3, 2, "cut short"),),
        near_keys=(NearKey(1, "bits", 0.4, 15.9, 12.9, 17.9, seeds=2, log2_chance=-248.0, opens=False),),
        effective_key_bits=248.0, survival=(SurvivalRow("jpeg", "quality 60", 96.0, 10.7, "pillow"),),
        not_run=(NotRun("no-key", "seed 1", "no time was left"),), images=samples.holds()["images"], seeds=(0, 1),
        minutes={"asked": 5.0, "used": 4.2}, versions={"torch": "2.13.0"}, machine={"cores": 8},
        command="keylatch audit",
    )  # fmt: skip
    page = page_of(result.to_json())
    row = "sign-recovery few 13 labeled images 21.5 % 20.9 to 22.1 34.2 % from scratch −12.7 1.5 s 160 steps · 2 seeds"
    for words in (
        "The lock holds It holds.", f"{row} signs right: 51.2 %; nothing found", "sign-recovery Guesses.",
        "from scratch cut short 13 34.2 % 30.1 to 38.3 2", "1 0.4 % 15.9 % 12.9 to 17.9 2 −248.0 no",
        "quality 60 pillow 96.0 % 10.7 %", "no-key seed 1 no time was left", "seeds 0, 1", "torch 2.13.0", "cores 8",
        "4.2 used of 5.0", "command keylatch audit",
    ):  # fmt: skip
        assert words in page.text


def test_the_public_names_are_these() -> None:
    assert keylatch.audit.report.__all__ == ["JSON_NAME", "render", "write_report"]
    folder = Path(keylatch.audit.report.__file__).parent
    for path in folder.glob("_[a-z]*.py"):
        assert f"\n    {path.stem} " in str(keylatch.audit.report.__doc__), path.name


def test_what_needs_the_owners_vault_says_so() -> None:
    tiles = facts(page_of(samples.minimal()))
    assert tiles["Original"] == tiles["Unlocked"] == "– needs the owner's vault"
    assert tiles["Strongest attack"] == "– no attack ran"


@pytest.mark.parametrize("result", [{}, dict.fromkeys(samples.holds()), {key: [] for key in samples.holds()}])
def test_a_result_with_nothing_in_it_is_still_a_page(result: dict[str, Any]) -> None:
    assert page_of(result).all("h1")[0].text.startswith("No verdict")


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, "12", True, []])
def test_what_is_no_finite_number_is_a_dash(nothing: object) -> None:
    result = samples.holds()
    hollow = dict.fromkeys(("recovered", "low", "high", "baseline", "seconds", "seeds", "labeled"), nothing)
    result["attacks"] = [result["attacks"][0] | hollow]
    result["accuracy"] = dict.fromkeys(result["accuracy"], nothing)
    page = page_of(result)
    assert rows(section(page, "All attacks"))[0]["Recovered"] == "–"
    assert facts(page)["Locked"].startswith("–")
    assert "nan" not in page.text
    assert "inf " not in page.text
