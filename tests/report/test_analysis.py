"""What is finished is explained over whole replicates."""

from pathlib import Path

from study.report.analysis import analyse
from study.report.finished import Finished, read_finished
from study.trials.store import write_failure
from tests.scenes import on_disk


def test_a_begun_replicate_is_left_out_and_a_failed_trial_is_not_waited_for(tmp_path: Path) -> None:
    study = on_disk(tmp_path, but=1)
    last = study.plan.trials[-1]
    begun = analyse(study, read_finished(study))
    assert begun.attribution is not None and len(begun.table) == 23
    assert {one.replicates for one in begun.attribution.attributions} == {2}
    assert [one.outcome for one in begun.verdicts] == list(study.config.outcomes)
    write_failure(study.config.directory, last.key, "out of memory")
    ended = analyse(study, read_finished(study))
    assert ended.attributed is not None and begun.attributed is not None
    assert set(begun.attributed.counts["replicate"]) == {0, 1} and set(ended.attributed.counts["replicate"]) == {
        0,
        1,
        2,
    }


def test_nothing_finished_is_an_empty_analysis(tmp_path: Path) -> None:
    study = on_disk(tmp_path, replicates=1, but=8)
    found = analyse(study, Finished({}, {}, {}))
    assert found.attribution is None and found.verdicts == () and found.flips is None and found.table.empty
    assert set(found.frames(study.plan)) == {"trials", "probes"}
