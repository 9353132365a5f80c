"""What is owed to MLflow: shown in order and once; what is refused waits, and holds nothing up."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from study.tracking.queue import Queue


class Store:
    """A store that can be locked."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.tried: list[str] = []
        self.refused: set[str] = set()

    def add(self, name: str) -> Callable[[], None]:
        """Return what shows something."""

        def show() -> None:
            self.tried.append(name)
            if name in self.refused:
                raise sqlite3.OperationalError("database is locked\nand a long trace")
            self.shown.append(name)

        return show


def test_what_is_refused_is_shown_later_and_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    store, queue = Store(), Queue(Path("studies/mine"))
    queue.show(store.add("a"))
    assert (store.shown, queue.behind) == (["a"], "")
    store.refused = {"b"}
    for name in "bcd":
        queue.show(store.add(name))
    assert (store.shown, store.tried) == (["a"], ["a", "b"]), "one wait, not one for each"
    assert queue.behind == "database is locked; 3 entries are missing"
    queue.catch_up()
    assert store.tried == ["a", "b", "b"]
    queue.catch_up()
    assert store.shown == ["a", "c", "d"], "the others come first, and b alone is refused"
    assert queue.behind == "database is locked; 1 entry is missing"
    assert [record.getMessage() for record in caplog.records] == [
        "MLflow is behind (database is locked); results are kept in studies/mine"
    ]
    store.refused = set()
    queue.catch_up()
    assert store.shown == ["a", "c", "d", "b"]
    assert (len(queue.owed), queue.behind) == (0, "")


def test_in_the_end_all_are_tried_and_what_is_missing_is_counted() -> None:
    store, queue = Store(), Queue(Path())
    store.refused = {"a", "b", "d"}
    for name in "abcde":
        queue.show(store.add(name))
    assert store.shown == []
    queue.finish()
    assert store.shown == ["c", "e"]
    assert queue.behind == "database is locked; 3 entries are missing"
    store.refused = {"b"}
    queue.finish()
    assert store.shown == ["c", "e", "a", "d"]
    assert queue.behind == "database is locked; 1 entry is missing"


def test_a_mistake_is_no_refusal() -> None:
    def show() -> None:
        raise KeyError("no such trial")

    with pytest.raises(KeyError):
        Queue(Path()).show(show)
