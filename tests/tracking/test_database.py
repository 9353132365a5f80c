"""The files of the local store: what is wrong with them is told, with a remedy that works; what was moved is found."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from study.config.study import Tracking
from study.errors import InputError
from study.tracking.mirror import Projection
from study.tracking.registry import register
from study.tracking.store import open_store, refusals
from tests.scenes import Scene, scene
from tests.tracking.test_mirror import projection_of, runs_of


@pytest.fixture(scope="module")
def small() -> Scene:
    return scene(replicates=2)


@pytest.fixture(scope="module")
def shown(small: Scene, empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store that shows two trials and a registered choice; tests only copy it."""
    folder = shutil.copytree(empty, tmp_path_factory.mktemp("shown") / "a disk, 50% full")
    (folder / "best.yaml").write_text("best")
    with projection_of(small, folder) as projection:
        for result in list(small.results.values())[:2]:
            projection.project(result)
        register(projection, {}, {}, "", {"best.yaml": folder / "best.yaml"})
    assert not projection.behind
    return folder


def text_of(folder: Path, projection: Projection, run: str, name: str) -> str:
    to = folder / "downloaded"
    to.mkdir(exist_ok=True)
    return Path(projection.client.download_artifacts(run, name, str(to))).read_text(encoding="utf-8")


@pytest.mark.parametrize("copied", [False, True])
def test_artifacts_are_where_the_store_was_moved_to(small: Scene, shown: Path, tmp_path: Path, copied: bool) -> None:
    """Old ones are found there, new ones are written there, and nothing is written where it was."""
    before, after = tmp_path / "before", tmp_path / "[other] #1 disk Ω"
    shutil.copytree(shown, before)
    first = projection_of(small, before)
    (shutil.copytree if copied else shutil.move)(before, after)
    left = sorted(before.rglob("*"))
    results = list(small.results.values())[:3]
    with projection_of(small, after) as projection:
        for result in results:
            projection.project(result)
    assert not projection.behind
    assert projection.parent == first.parent
    runs = runs_of(projection)
    assert runs.keys() == {result.key for result in results}
    for run in runs.values():
        assert run.info.artifact_uri.startswith((after / "mlruns" / "artifacts").as_uri())
        assert "true \\ predicted" in text_of(after, projection, run.info.run_id, "confusion_heldout.csv")
    client, name = projection.client, small.config.name
    version = client.get_model_version_by_alias(name, "best")
    assert client.get_model_version_download_uri(name, version.version).startswith(after.as_uri())
    assert text_of(after, projection, version.run_id, "model/best.yaml") == "best"
    assert sorted(before.rglob("*")) == left, "nothing is written where it was"
    with closing(sqlite3.connect(after / "mlruns" / "mlflow.db")) as database:
        assert before.as_uri() not in "".join(database.iterdump())


def test_another_path_to_the_same_folder_is_no_move(small: Scene, shown: Path, tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    shutil.copytree(shown, real)
    link.symlink_to(real)
    assert not projection_of(small, real).behind
    there = projection_of(small, link)
    (uri, *_) = [run.info.artifact_uri for run in runs_of(there).values()]
    assert uri.startswith(real.as_uri())


def test_what_others_keep_in_the_database_stays_where_it_is(small: Scene, shown: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shown, tmp_path / "one")
    theirs = projection_of(small, folder).client
    places = ["s3://bucket/artifacts/theirs", (tmp_path / "theirs").as_uri(), f"{folder.as_uri()}-2/artifacts/x"]
    made = [theirs.create_experiment(f"theirs {at}", artifact_location=place) for at, place in enumerate(places)]
    moved = projection_of(small, folder.rename(tmp_path / "two"))
    assert [moved.client.get_experiment(one).artifact_location for one in made] == places


def test_what_the_environment_says_of_mlflow_is_set_aside_and_said(
    small: Scene,
    shown: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    elsewhere = "http://user:secret@127.0.0.1:9"
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    also = {"MLFLOW_EXPERIMENT_NAME": "other", "MLFLOW_RUN_ID": "0" * 32, "MLFLOW_ENABLE_ASYNC_LOGGING": "true"}
    for name, value in {**dict.fromkeys(names, elsewhere), **also}.items():
        monkeypatch.setenv(name, value)
    folder = shutil.copytree(shown, tmp_path / "own")
    (folder / "best.yaml").write_text("another")
    with projection_of(small, folder) as projection:
        for result in list(small.results.values())[:3]:
            projection.project(result)
        register(projection, {}, {}, "", {"best.yaml": folder / "best.yaml"})
    assert not projection.behind
    assert [run.info.status for run in runs_of(projection).values()] == ["FINISHED"] * 3
    assert int(projection.client.get_model_version_by_alias(small.config.name, "best").version) == 2
    assert {one.name for one in projection.client.search_experiments()} == {"Default", small.config.name}
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{' and '.join(names)} of the environment set aside")
    assert "secret" not in said and str(folder / "mlruns" / "mlflow.db") in said and "tracking.uri" in said
    assert os.environ[names[0]] == elsewhere, "others of this process may want it"


def cut(database: Path) -> None:
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])


def hole(database: Path) -> None:
    """Damage what sqlite does not look at when it opens a database."""
    content = bytearray(database.read_bytes())
    at = content.rindex(b"confusion") if b"confusion" in content else len(content) // 2
    page = at // 4096 * 4096
    content[page : page + 4096] = b"\xff" * 4096
    database.write_bytes(content)


def with_sql(*statements: str) -> Callable[[Path], None]:
    def change(database: Path) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return change


VERSION = "update alembic_version set version_num = '{}'"
DAMAGED, OTHER = "is damaged", "written by another version of MLflow"
# What is done to a database, and what is then said of it.
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut short": (cut, DAMAGED),
    "a page of it is overwritten": (hole, DAMAGED),
    "no database": (lambda database: database.write_bytes(b"no database " * 1000) and None, DAMAGED),
    "not MLflow's": (with_sql("alter table runs rename to walks", "create table runs (a int)"), DAMAGED),
    "of a newer MLflow": (with_sql(VERSION.format("abcdef123456"), "drop table webhook_events"), OTHER),
    "of an older MLflow": (with_sql(VERSION.format("451aebb31d03")), OTHER),
    "a folder": (lambda database: database.unlink() or database.mkdir(), "is a folder, where MLflow's database"),
}


@pytest.fixture
def own(shown: Path, tmp_path: Path) -> Path:
    """The store in a folder of one's own, whole in its one file."""
    folder = shutil.copytree(shown, tmp_path / "own")
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


@pytest.mark.parametrize("name", BROKEN)
def test_a_database_that_cannot_be_used_is_one_message_with_a_remedy(name: str, small: Scene, own: Path) -> None:
    database = own / "mlruns" / "mlflow.db"
    change, said = BROKEN[name]
    change(database)
    with pytest.raises(InputError) as refused:
        projection_of(small, own)
    message = str(refused.value)
    assert message.startswith(f"{database}: ") and said in message
    assert "Move it aside; 'scanvi-study sync'" in message
    assert "\n" not in message and "sqlalche.me" not in message and "SELECT" not in message


def test_a_database_that_was_moved_aside_is_made_anew(small: Scene, own: Path, tmp_path: Path) -> None:
    """With what a killed run has left of it lying there still."""
    database = own / "mlruns" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("insert into experiment_tags values ('a', 'b', 0)")
        connection.commit()
        log = Path(f"{database}-wal").read_bytes()
    database.rename(tmp_path / "aside.db")
    (own / "mlruns" / "mlflow.db-wal").write_bytes(log)
    with projection_of(small, own) as projection:
        for result in small.results.values():
            projection.project(result)
    assert not projection.behind
    assert {key: run.info.status for key, run in runs_of(projection).items()} == dict.fromkeys(
        small.results, "FINISHED"
    )


def test_files_where_folders_belong_and_the_other_way_round(small: Scene, tmp_path: Path) -> None:
    (tmp_path / "mlruns").write_text("a file")
    with pytest.raises(InputError, match=r"mlruns: is a file, where MLflow needs a folder.*tracking\.directory"):
        projection_of(small, tmp_path)
    assert (tmp_path / "mlruns").read_text() == "a file"
    folder = tmp_path / "own" / "mlruns"
    folder.mkdir(parents=True)
    (folder / "artifacts").write_text("")
    with pytest.raises(InputError, match=r"artifacts: is a file"):
        projection_of(small, folder.parent)
    (folder / "artifacts").unlink()
    (folder / "mlflow.db").symlink_to("/nowhere/mlflow.db")
    with pytest.raises(InputError, match=r"mlflow\.db: is a link to /nowhere/mlflow\.db, which is not there"):
        projection_of(small, folder.parent)
    with pytest.raises(InputError, match=r"a%20b/mlruns: MLflow opens no database"):
        projection_of(small, tmp_path / "a%20b")


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracking = Tracking(uri="http://127.0.0.1:9")
    with (
        pytest.raises(InputError, match=r"^tracking\.uri=http://127\.0\.0\.1:9: .*\(Connection refused\)\. Start the"),
        refusals(tracking),
    ):
        open_store(tracking).search_experiments()
    wrong = Tracking(uri="postgresql+nodriver://127.0.0.1/mlflow")
    with (
        pytest.raises(InputError, match=r"^tracking\.uri=postgresql\+nodriver://127\.0\.0\.1/mlflow: "),
        refusals(wrong),
    ):
        open_store(wrong).search_experiments()
