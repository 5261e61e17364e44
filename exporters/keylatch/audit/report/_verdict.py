"""What stands on top of the page: the verdict, the figures behind it, and how to read them."""

from __future__ import annotations

from collections.abc import Sequence

from keylatch.audit._verdict import LEAST_KEY_BITS, MARGIN_POINTS
from keylatch.audit.report._html import Html, element
from keylatch.audit.report._result import Attack, Json, attacks_in, entries, real, section, string, strongest
from keylatch.audit.report._symbols import sign
from keylatch.audit.report._words import NOTHING, count, counted, number, percent, points

_WORDS = {"holds": "The lock holds", "broken": "The lock is broken", "incomplete": "No verdict: incomplete"}
_MEANINGS = {
    "holds": "No attack that ran got clearly more out of the locked model than its attacker has without it. "
    "That speaks of these attacks, these images and this much time; it is a measurement, not a proof.",
    "broken": "Somebody without a license can get clearly more out of this model than they have without it. "
    "Do not ship it as it is.",
    "incomplete": "Not enough of the audit ran to say whether the lock holds. What did run is below.",
}


def banner(result: Json) -> Html:
    """The verdict as a word, a sign and a color, with the audit's own sentence."""
    verdict = string(result, "verdict")
    known = verdict if verdict in _WORDS else "incomplete"
    word = _WORDS.get(verdict, f"No verdict: {verdict or 'missing'}")
    summary = string(result, "summary")
    return element(
        "section",
        element("h1", sign(known), element("span", word)),
        element("p", summary, class_="summary") if summary else None,
        element("p", _MEANINGS[known]),
        element("p", _extent(result), class_="extent"),
        class_=f"banner {known}",
    )


def key_figures(result: Json) -> Html:
    """The few figures that a decision needs."""
    accuracy, attack = section(result, "accuracy"), strongest(attacks_in(result))
    tiles = [
        _accuracy(accuracy, "original", "Original", "accuracy before locking"),
        _accuracy(accuracy, "unlocked", "Unlocked", "with the license"),
        _accuracy(accuracy, "locked", "Locked", "the file alone, as a thief has it"),
        _accuracy(accuracy, "chance", "Chance", "guessing without looking"),
        _strongest(attack),
        _bits(result),
    ]
    return element("dl", tiles, class_="tiles")


def how_to_read() -> Html:
    """Three sentences for those who do not do this every day."""
    sentences = [
        "Whoever has some images can train a network without yours: what that gives is the baseline, and no lock can "
        "keep anyone below it.",
        f"An attack breaks the lock if it recovers more than {MARGIN_POINTS:.0f} points above the better baseline of "
        f"its attacker; so do nearly right keys, if they leave less than {LEAST_KEY_BITS} bits to guess.",
        "Accuracies are percentages of test images that no attack saw; ranges go from the lowest to the highest of "
        "repeated runs with other random seeds.",
    ]
    return element("section", element("h2", "How to read this"), element("ol", [element("li", it) for it in sentences]))


def _extent(result: Json) -> str:
    ran, left = list(entries(result, "attacks")), len(list(entries(result, "not_run")))
    names = len({string(entry, "name") for entry in ran})
    parts = [f"{counted(names, 'attack')} with {counted(len(ran), 'budget')}" if ran else "No attack ran"]
    parts += [f"{left} not run"] if left else []
    images, minutes = section(result, "images"), section(result, "minutes")
    measured, used = real(images, "evaluation"), real(minutes, "used")
    parts += [f"measured on {count(measured)} images"] if measured is not None else []
    parts += [f"{used:.1f} minutes"] if used is not None else []
    return " · ".join(parts)


def _accuracy(accuracy: Json, key: str, name: str, meaning: str) -> Html:
    value = real(accuracy, key)
    missing = "needs the owner's vault" if key in ("original", "unlocked") else "not measured"
    return _tile(name, percent(value), [meaning if value is not None else missing], f"tile-{key}")


def _strongest(attack: Attack | None) -> Html:
    if attack is None:
        return _tile("Strongest attack", NOTHING, ["no attack ran"], "tile-attack")
    with_what = f"{attack.name}, {attack.given or 'the artifact only'}"
    beside = f"baseline {percent(attack.baseline)}, {attack.baseline_name}: {points(attack.margin)} points"
    style = f"tile-attack{' broken' if attack.broken else ''}"
    return _tile("Strongest attack", percent(attack.recovered.value), [beside, with_what], style)


def _bits(result: Json) -> Html:
    bits = real(section(section(result, "model"), "lock"), "code_bits")
    effective = real(result, "effective_key_bits")
    if effective is None:
        return _tile(
            "Key bits",
            count(bits),
            ["in the code; how many are left for nearly right keys was not measured"],
            "tile-bits",
        )
    of = f"of {number(bits)} bits in the code" if bits is not None else "bits"
    left = f"{of} are left to guess if a nearly right key counts"
    style = f"tile-bits{' broken' if effective < LEAST_KEY_BITS else ''}"
    return _tile("Effective key bits", number(effective), [left], style)


def _tile(name: str, figure: str, notes: Sequence[str], style: str) -> Html:
    notes_below = [element("span", note, class_="note") for note in notes]
    return element("div", element("dt", name), element("dd", element("b", figure), notes_below), class_=f"tile {style}")
