"""Every figure of the audit, in tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from keylatch.audit.report._budget_points import letters_of
from keylatch.audit.report._html import Content, Html, element, markup
from keylatch.audit.report._near_key_plot import NearKey, near_keys_in, share_of
from keylatch.audit.report._result import (
    Attack,
    Baseline,
    Json,
    Measured,
    attacks_in,
    baselines_in,
    entries,
    real,
    section,
    string,
)
from keylatch.audit.report._symbols import badge
from keylatch.audit.report._words import (
    NOTHING,
    count,
    counted,
    duration,
    number,
    percent,
    points,
    spread,
    words,
)

JSON_NAME = "report.json"
_IMAGES = {"attacker": "attacker's images", "evaluation": "test images"}
_ATTACKS = ("Attack", "Attacker has", "Recovered", "Baseline", "Margin", "Time and cost", "Note")


def attacks_table(result: Json) -> Html | None:
    """All attacks, breaks first; on a phone each row is a card."""
    attacks = attacks_in(result)
    if not attacks:
        return None
    letters = letters_of(attacks)
    rows = [(_style(attack), _attack(attack, letters.get(attack.name))) for attack in attacks]
    told = "Breaks first, then by the margin: points recovered above the baseline."
    if not all(attack.counts for attack in attacks):
        told += " “Uncounted” is what no outsider can do; it is measured all the same."
    return _section("All attacks", element("p", told), _table(_ATTACKS, rows, "cards"))


def summaries(result: Json) -> Html | None:
    """What each attack does, once."""
    told = {attack.name: attack.summary for attack in attacks_in(result) if attack.summary}
    return _section("What the attacks do", facts(sorted(told.items()))) if told else None


def baselines_table(result: Json) -> Html | None:
    """What attackers have without the model."""
    rows = [("", _baseline(baseline)) for baseline in baselines_in(result)]
    head = ("Baseline", "Labeled images", "Accuracy", "Seeds")
    return _section("Baselines: what an attacker has without your model", _table(head, rows)) if rows else None


def near_keys_table(result: Json) -> Html | None:
    """Nearly right keys."""
    keys = near_keys_in(result)
    rows = [("", _near_key(key)) for key in keys]
    wrong = f"Wrong {keys[0].unit}" if keys else ""
    head = (wrong, "Of the key", "Accuracy", "Chance to guess", "Opens")
    return _section("Nearly right keys", _table(head, rows)) if rows else None


def not_run_table(result: Json) -> Html | None:
    """What did not run, and why: a report that kept quiet about it would promise too much."""
    rows: list[tuple[str, Sequence[Content]]] = [
        ("", [_named(string(entry, "name") or "unnamed", string(entry, "variant")), string(entry, "reason") or NOTHING])
        for entry in entries(result, "not_run")
    ]
    return _section("Not run", _table(("Attack", "Why"), rows)) if rows else None


def provenance(result: Json) -> Html:
    """Everything that is needed to run the same audit again."""
    model, images, minutes = section(result, "model"), section(result, "images"), section(result, "minutes")
    run = [
        ("command", string(result, "command")),
        ("seeds", words(result.get("seeds"))),
        ("minutes", f"{words(minutes.get('used'))} used of {words(minutes.get('asked'))}" if minutes else None),
        (_IMAGES["attacker"], count(real(images, "attacker"))),
        (_IMAGES["evaluation"], count(real(images, "evaluation"))),
        *_digests(images.get("sha256")),
        ("format", string(result, "format")),
    ]
    described = [("name", model.get("name")), ("model_id", model.get("model_id")), ("classes", model.get("classes"))]
    groups = {
        "Run": run,
        "Model": described,
        "Lock": list(_lock(section(model, "lock"))),
        "Versions": list(section(result, "versions").items()),
        "Machine": list(section(result, "machine").items()),
    }
    note = f"The same figures, for programs: {JSON_NAME}, beside this page."
    parts = [(element("h3", name), facts(pairs)) for name, pairs in groups.items() if pairs]
    return _section("To run it again", element("p", note), [element("div", part, class_="group") for part in parts])


def _digests(value: object) -> list[tuple[str, object]]:
    """One digest, or one for each part of the images."""
    parts = value if isinstance(value, Mapping) else {"": value}
    return [(f"SHA-256 of {_IMAGES.get(name, 'images')}", digest) for name, digest in parts.items() if digest]


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Names and what they are."""
    rows = [element("div", element("dt", str(name)), element("dd", words(value))) for name, value in pairs]
    return element("dl", rows, class_="facts")


def _attack(attack: Attack, letter: str | None) -> list[Content]:
    margin: list[Content] = [element("b", points(attack.margin))]
    margin += [element("span", "break", class_="tag broken")] if attack.broken else []
    margin += [] if attack.counts else [element("span", "uncounted", class_="tag")]
    return [
        _named(attack.name, "" if attack.variant == attack.given else attack.variant, letter),
        attack.given or (f"{attack.labeled:,} labeled images" if attack.labeled else "the artifact only"),
        _ranged(attack.recovered),
        markup(percent(attack.baseline), _small(attack.baseline_name)),
        margin,
        markup(duration(attack.seconds), _small(" · ".join(_costs(attack)))),
        "; ".join(_notes(attack)),
    ]


def _costs(attack: Attack) -> list[str]:
    costs = [
        f"{number(value) if isinstance(value, int | float) else words(value)} {key}"
        for key, value in attack.cost.items()
    ]
    return [*costs, *([counted(attack.seeds, "seed")] if attack.seeds else [])]


def _notes(attack: Attack) -> list[str]:
    notes = ["stopped early by the time limit"] if attack.truncated else []
    if attack.signs_right:
        notes.append("signs right: " + ", ".join(percent(share) for share in attack.signs_right))
    return [*notes, *([attack.note] if attack.note else [])]


def _baseline(baseline: Baseline) -> list[Content]:
    labeled = count(baseline.labeled) if baseline.labeled else "none"
    seeds = count(baseline.seeds) if baseline.seeds else NOTHING
    return [_named(baseline.name, baseline.note), labeled, _ranged(baseline.accuracy), seeds]


def _near_key(key: NearKey) -> list[Content]:
    opens = NOTHING if key.opens is None else "yes" if key.opens else "no"
    chance = NOTHING if key.log2_chance is None else markup("2", element("sup", points(key.log2_chance)))
    return [number(key.wrong), share_of(key) or NOTHING, _ranged(key.accuracy), chance, opens]


def _lock(lock: Json) -> Iterable[tuple[str, object]]:
    for key, value in lock.items():
        if key == "layers" and isinstance(value, list):
            layers = [
                f"{string(layer, 'name')} ({words(layer.get('channels'))} channels)" for layer in entries(lock, key)
            ]
            yield key, ", ".join(layers)
        else:
            yield key, value


def _named(name: str, variant: str, letter: str | None = None) -> Html:
    return markup(badge(letter) if letter else None, element("b", name), _small(variant))


def _ranged(measured: Measured) -> Html:
    return markup(percent(measured.value), _small(spread(measured)))


def _small(told: str) -> Html | None:
    return element("small", told) if told else None


def _style(attack: Attack) -> str:
    return "broken" if attack.broken else "" if attack.counts else "uncounted"


def _section(title: str, *content: Content) -> Html:
    return element("section", element("h2", title), *content)


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[Content]]], style: str = "") -> Html:
    titles = [element("th", title, scope="col") for title in head]
    body = [element("tr", _cells(head, cells), class_=row_style or None) for row_style, cells in rows]
    top, bottom = element("thead", element("tr", titles)), element("tbody", body)
    return element("table", top, bottom, class_=style or None)


def _cells(head: Sequence[str], cells: Sequence[Content]) -> list[Html]:
    # The label is an attribute too: where rows are cards, the head is not shown.
    return [
        element("td", element("div", cell), data_label=title, class_=None if cell else "empty")
        for title, cell in zip(head, cells, strict=True)
    ]
