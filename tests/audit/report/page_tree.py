"""A page as a tree, read strictly: every tag closed in order, as HTML wants it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br"}


@dataclass(slots=True)
class Node:
    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        parts = (part if isinstance(part, str) else part.text for part in self.children)
        return " ".join(" ".join(parts).replace("\u00a0", " ").split())

    def all(self, tag: str, style: str = "") -> list[Node]:
        """Elements below this one, by tag (or ``*``) and one of their classes."""
        nodes = [part for part in self.children if isinstance(part, Node)]
        found = [node for node in nodes if tag in ("*", node.tag) and (not style or style in node.styles)]
        return found + [inner for node in nodes for inner in node.all(tag, style)]

    @property
    def styles(self) -> list[str]:
        return (self.attributes.get("class") or "").split()


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("page")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def read_page(page: str) -> Node:
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert [node.tag for node in reader.open] == ["page"], "something is not closed"
    return reader.open[0]


def section(page: Node, title: str) -> Node:
    """The section, or figure, with this heading."""
    nodes = [*page.all("section"), *page.all("figure")]
    return next(node for node in nodes if any(head.text == title for tag in ("h2", "h3") for head in node.all(tag)))


def rows(table: Node) -> list[dict[str, str]]:
    """A table's rows, each as head to cell."""
    return [
        {str(cell.attributes["data-label"]): cell.text for cell in row.all("td")}
        for body in table.all("tbody")
        for row in body.all("tr")
    ]


def facts(node: Node) -> dict[str, str]:
    """What a list of names and meanings says."""
    pairs = [(row.all("dt"), row.all("dd")) for row in node.all("div")]
    return {names[0].text: meanings[0].text for names, meanings in pairs if len(names) == len(meanings) == 1}
