"""The account of a sweep."""

from study.sweep.ledger import Tree
from tests.made import planned


def test_what_starts_from_a_failed_stage_is_blocked_and_all_else_goes_on() -> None:
    tree = Tree(planned("{scanvi.linear_classifier: {levels: [true, false]}}", replicates=2).stages[::-1])
    (root,) = tree.ready()
    assert root.parent is None
    children = [one for one in tree.stages if one.parent == root.key]
    assert len(children) == 2
    tree.state[root.key] = "running"
    (other,) = tree.ready()
    assert other.parent is None, "a child waits for its parent, another root does not"
    tree.fail(root, "the loss is nan")
    assert {tree.state[one.key] for one in children} == {"blocked"}
    assert {tree.reasons[one.key] for one in children} == {
        "blocked: the pretraining it starts from failed: the loss is nan"
    }
    assert (tree.count("failed"), tree.count("blocked"), tree.count("waiting")) == (1, 2, 3)
    assert not tree.over
    while group := tree.ready():
        tree.state[group[0].key] = "done"
    assert tree.over


def test_what_could_not_be_written_ends_a_sweep_once_nothing_runs() -> None:
    tree = Tree(planned("{scanvi.linear_classifier: {levels: [true, false]}}", replicates=1).stages)
    (running,) = tree.ready()
    tree.state[running.key], tree.unwritten = "running", "the disk is full"
    assert not tree.ready()
    assert not tree.over
    tree.state[running.key] = "done"
    assert tree.over
