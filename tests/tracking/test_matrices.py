"""The page of a trial's confusion matrices: the right figures, and names that stay text."""

from html.parser import HTMLParser

from study.tracking.matrices import matrices_page
from tests.made import some_result

HOSTILE = "<script>alert(1)</script>"


class Text(HTMLParser):
    """Tags and the text in the fields of tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.fields: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag, and the hint on a field."""
        self.tags.add(tag)
        if tag == "td":
            self.fields.append((dict(attrs)["title"] or "", ""))

    def handle_data(self, data: str) -> None:
        """Note the text of a field."""
        if (self.get_starttag_text() or "").startswith("<td") and data.strip():
            self.fields[-1] = (self.fields[-1][0], data)


def test_rows_are_percent_of_the_true_class_and_names_are_inert() -> None:
    found = Text(matrices_page(some_result(classes=("T", HOSTILE), confusion={"heldout": [[1, 3], [0, 3]]})))
    assert found.fields == [("1 cell", "25"), ("3 cells", "75"), ("0 cells", ""), ("3 cells", "100")]
    assert "script" not in found.tags


def test_a_class_without_cells_and_query_cells_with_other_classes() -> None:
    confusion = {"train": [[0, 0], [1, 1]], "query": [[2, 0], [0, 0], [1, 3]]}
    found = Text(matrices_page(some_result(classes=("B", "T"), truth_classes=("B", "NK", "T"), confusion=confusion)))
    assert [figure for _, figure in found.fields] == ["", "", "50", "50", "100", "", "", "", "25", "75"]
