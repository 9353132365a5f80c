"""Names that are one though spelled in two ways, labels put together, labels that mean none or are only codes."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from anndata import AnnData
from anndata.io import read_elem

from study.cells.check import check_data
from study.cells.names import means_none
from study.cells.prepared import Cells
from study.cells.sources import query_names
from study.cells.twins import prepare
from study.config.data import DataConfig
from study.errors import InputError
from tests.cells.test_alignment import separate

Write = Callable[..., DataConfig]
pytestmark = pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")  # converters from R write less than anndata


def refusal(config: DataConfig, folder: Path) -> str:
    """The one message that data are refused with, of `check` and of `prepare` alike."""
    with pytest.raises(InputError) as raised:
        prepare(config, query_names(config), folder / "prepared")
    assert str(raised.value) == "\n".join(check_data(config).problems)
    assert not (folder / "prepared").exists()
    return str(raised.value)


def obeyed(config: DataConfig, message: str) -> DataConfig:
    """What the message says to say, said."""
    said = re.findall(r"data\.(\w+)=(\w+)", message)
    assert said, message
    return config.model_copy(update={key: yaml.safe_load(value) for key, value in said})


def recolumn(cells: AnnData, key: str, spellings: Mapping[str, Sequence[str]]) -> None:
    """Write values of a column in several ways in turn, the first as it was."""
    ways = {name: cycle([name, *others]) for name, others in spellings.items()}
    cells.obs[key] = [next(ways[value]) if value in ways else value for value in cells.obs[key].astype(str)]


def known(cells: Cells) -> dict[str, tuple[str, str]]:
    """Label (or truth) and batch of each cell, in words."""
    labels = [cells.classes[code] for code in cells.labels] + [(*cells.truth_classes, "")[code] for code in cells.truth]
    batches = [cells.batches[code] for code in cells.batch]
    return dict(zip(cells.names, zip(labels, batches, strict=True), strict=True))


# --- one name, spelled in two ways


@pytest.mark.parametrize(
    ("key", "spellings", "said"),
    [
        ("ds", {"q1": ["q1 "]}, ("obs['ds'] (data.dataset_key): 'q1' and 'q1 ' differ", "different datasets")),
        ("label", {"B": ["b", " B"]}, ("' B' and 'B' and 'b' differ only by blanks or case", "different classes")),
        ("run", {"Run 1": ["run1", "RUN\N{NO-BREAK SPACE}1"]}, ("'RUN\\xa01' and 'Run 1' and 'run1'", "batches")),
    ],
)
def test_two_spellings_are_refused_and_can_be_one(
    toy: AnnData, combined: Write, tmp_path: Path, key: str, spellings: dict[str, list[str]], said: tuple[str, ...]
) -> None:
    toy.obs["run"] = ["Run 1", "Run 1", "Run 2"] * 20
    right = prepare(combined(toy, batch_key="run"), ["q1", "q2"], tmp_path / "right")
    recolumn(toy, key, spellings)
    config = combined(toy, batch_key="run")
    message = refusal(config, tmp_path)
    for words in said:
        assert words in message, message
    config = obeyed(config, message)
    assert query_names(config) == ("q1", "q2", "self", "none")
    cells = prepare(config, ["q1", "q2"], tmp_path / "prepared")
    assert [cells[name].digest() for name in cells] == [right[name].digest() for name in cells]
    assert check_data(config).problems == ()


def test_what_the_configuration_says_is_the_spelling_and_others_are_trimmed(
    toy: AnnData, combined: Write, tmp_path: Path
) -> None:
    toy.obs["ds"] = toy.obs["ds"].map({"ref": "Ref ", "q1": "Q1", "q2": " q2"})
    toy.obs["label"] = toy.obs["label"].replace({"A": " A"})
    config = combined(toy, clean_names=True, queries={"one": {"of": "q1", "drop": ["a"]}, "q2": {}})
    cells = prepare(config, ["one", "q2"], tmp_path)
    assert cells["one"].classes == ("B", "C", "a"), "as the configuration has it"
    assert {label for label, _ in list(known(cells["one"]).values())[30:]} == {"B", "C"}
    assert cells["q2"].batches == ("q1", "q2", "ref")
    assert query_names(config.model_copy(update={"queries": {}})) == ("Q1", "q2", "self", "none")


def test_names_of_files_are_the_users_own(toy: AnnData, tmp_path: Path) -> None:
    parts = {"reference": toy[:30].copy(), "A": toy[30:50].copy(), "a": toy[50:].copy()}
    cells = prepare(separate(tmp_path, parts, clean_names=True), ["A", "a"], tmp_path / "p")
    assert {name: found.n_query for name, found in cells.items()} == {"A": 20, "a": 10}


def test_spellings_of_labels_that_are_not_used_are_no_concern(toy: AnnData, combined: Write) -> None:
    toy.obs["label"] = np.where(toy.obs["ds"] == "ref", toy.obs["label"], toy.obs["label"].str.lower() + " ")
    assert check_data(combined(toy, truth_key=None)).problems == ()


# --- labels put together


def test_labels_are_put_together_as_if_the_file_said_so(toy: AnnData, combined: Write, tmp_path: Path) -> None:
    config = combined(toy, labels={"T cell": ["A", "C"]}, queries={"q": {"of": "q1", "compose": {"T cell": 1, "B": 1}}})
    cells = prepare(config, ["q"], tmp_path / "p")["q"]
    toy.obs["label"] = toy.obs["label"].astype(str).replace({"A": "T cell", "C": "T cell"})
    right = combined(toy, queries=dict(config.queries))
    assert cells.digest() == prepare(right, ["q"], tmp_path / "right")["q"].digest()
    assert cells.truth_classes == ("B", "T cell"), "B is not named, and keeps its name"
    with pytest.raises(InputError, match="none of its cells has the label 'A'"):
        prepare(
            right.model_copy(update={"queries": {"q": config.queries["q"].model_copy(update={"drop": ("A",)})}}),
            ["q"],
            tmp_path / "no",
        )


def test_labels_change_places_and_numbers_get_names(toy: AnnData, combined: Write, tmp_path: Path) -> None:
    toy.obs["label"] = np.arange(60) % 3
    config = combined(toy, labels={"one": [0], "two": [1], "0": [2]})
    labels = [label for label, _ in known(prepare(config, ["q1"], tmp_path)["q1"]).values()][:30]
    assert labels == ["one", "two", "0"] * 10


def test_a_label_that_only_a_query_has_can_be_put_together(toy: AnnData, combined: Write, tmp_path: Path) -> None:
    toy.obs["label"] = toy.obs["label"].astype(str).mask(toy.obs_names == "cell31", "a2")
    cells = prepare(combined(toy, labels={"A": ["a2"]}), ["q1"], tmp_path)["q1"]
    assert known(cells)["cell31"] == ("A", "q1")
    assert cells.truth_classes == ("A", "B", "C")


def test_misspelt_labels_are_named_with_their_nearest(toy: AnnData, combined: Write, tmp_path: Path) -> None:
    toy.obs["label"] = toy.obs["label"].replace({"A": "CD4 T cell", "B": "CD8 T cell"})
    message = refusal(combined(toy, labels={"T": ["CD4 T cells", "CD8 T cell"]}), tmp_path)
    assert message.startswith("data.labels.T: no cell has the label 'CD4 T cells'. Did you mean 'CD4 T cell'?")
    assert "'C', 'CD4 T cell', 'CD8 T cell'" in message
    assert "\n" not in message, "the other label is right"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"T": ["A"], "B": ["C", "A"]}, "labels puts 'A' under 'T' and under 'B': choose one"),
        ({" ": ["A"]}, "'A' under ' ', which is no name"),
        ({"T": []}, "at least 1 item"),
    ],
)
def test_labels_are_put_under_one_name(toy: AnnData, combined: Write, labels: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        combined(toy, labels=labels)


# --- labels that mean none


@pytest.mark.parametrize(
    ("label", "none"),
    [
        *(
            (label, True)
            for label in ("unknown", "Unassigned", "nan", "NA", "N/A", "<NA>", "None", "doublet", "?", "--")
        ),
        *(
            (label, True)
            for label in ("Not assigned", "un-labeled", "Doublets", "unknown_3", "Unknown cells", "low quality")
        ),
        *(
            (label, False)
            for label in ("NK", "Naive", "Na+ channel", "other", "T cell", "Unipolar brush cell", "1", "Null cell 2b")
        ),
    ],
)
def test_usual_spellings_of_no_label(label: str, none: bool) -> None:
    assert means_none(label) is none


def test_labels_that_mean_none_are_warned_of_with_the_remedy(toy: AnnData, combined: Write) -> None:
    toy.obs["label"] = toy.obs["label"].astype(str).mask(toy.obs["label"] == "B", "nan")
    toy.obs.iloc[0, 1] = 'not "assigned"'
    (warning, *_) = [text for text in check_data(combined(toy)).warnings if "no label" in text]
    assert "the labels 'nan', 'not \"assigned\"' (11 reference cells)" in warning
    assert """'data.unlabelled=["nan", "not \\"assigned\\""]'""" in warning


# --- codes


def coded(path: Path, key: str, names: Sequence[str], where: str) -> None:
    """Leave a column as converters from R do: codes, with their names elsewhere."""
    with h5py.File(path, "r+") as file:
        labels = read_elem(file["obs"][key])
        del file["obs"][key]
        missing = np.iinfo(np.int32).min  # R's NA
        file["obs"][key] = np.array([names.index(one) if one in names else missing for one in labels], dtype=np.int32)
        if where:
            file[where] = np.array(names, dtype=h5py.string_dtype() if "uns" in where else "S")


def several(toy: AnnData, folder: Path, names: bool) -> tuple[DataConfig, Mapping[str, Cells]]:
    """The toy as three files whose labels are codes, in another order in each; and what it is as names."""
    beside, in_uns = "obs/__categories/label", "uns/label_categories"
    files = {"reference": ("ABC", beside), "a": ("CAB", beside), "b": ("BCA", in_uns)}
    parts = {"reference": toy[:30].copy(), "a": toy[30:50].copy(), "b": toy[50:].copy()}
    config = separate(folder, parts, truth_key="label")
    right = prepare(config, ["a", "b"], folder / "right")
    for name, (levels, where) in files.items():
        coded(folder / f"{name}.h5ad", "label", list(levels), where if names else "")
    return config, right


def test_codes_get_the_names_that_their_file_has(toy: AnnData, tmp_path: Path) -> None:
    config, right = several(toy, tmp_path, names=True)
    cells = prepare(config, ["a", "b"], tmp_path / "p")
    assert [cells[name].digest() for name in cells] == [right[name].digest() for name in cells]


def test_codes_of_several_files_are_refused_unless_they_are_named(toy: AnnData, tmp_path: Path) -> None:
    config, _ = several(toy, tmp_path, names=False)
    message = refusal(config, tmp_path)
    assert message.count("its labels are numbers ('0', '1', '2')") == 3
    assert "b.h5ad: its labels" in message
    assert "'data.labels={NAME: [0], ...}' if a number means the same in all files" in message
    named = config.model_copy(update={"labels": {"zero": ("0",), "one": ("1",), "two": ("2",)}})
    cells = prepare(named, ["a"], tmp_path / "p")["a"]
    assert cells.classes == ("one", "two", "zero")
    alone = config.model_copy(update={"truth_key": None})
    assert check_data(alone).problems == (), "labels of one file mean what they mean"


def test_codes_of_one_file_are_warned_of(toy: AnnData, combined: Write) -> None:
    toy.obs["label"] = np.arange(60) % 3
    report = check_data(combined(toy))
    assert report.problems == ()
    (warning,) = [text for text in report.warnings if "codes" in text]
    assert "the labels are numbers ('0', '1', '2')" in warning
    assert "'data.labels={NAME: [0], ...}'" in warning
    assert not check_data(combined(toy, labels={"A": ["0"]})).warnings


def test_codes_beyond_the_names_of_their_file_stay_codes(toy: AnnData, combined: Write) -> None:
    config = combined(toy)
    coded(config.path or Path(), "label", ["A", "B", "C"], "")
    with h5py.File(config.path, "r+") as file:
        file["obs/__categories/label"] = np.array(["A", "B"], dtype=h5py.string_dtype())
    assert any("the labels are numbers ('0', '1', '2')" in text for text in check_data(config).warnings)


def test_a_code_that_is_missing_is_no_label(toy: AnnData, combined: Write, tmp_path: Path) -> None:
    config = combined(toy)
    coded(config.path or Path(), "label", ["B", "C"], "obs/__categories/label")
    assert "missing or empty for 10 of 30 cells" in refusal(config, tmp_path)


def test_a_column_of_true_and_false_tells_reference_from_queries(
    toy: AnnData, combined: Callable[..., DataConfig]
) -> None:
    toy.obs["of_reference"] = toy.obs["ds"] == "ref"
    values = {"dataset_key": "of_reference", "reference_value": True, "queries": {"other": {"of": False}}}
    report = check_data(combined(toy, **values))
    assert not report.problems
    assert report.cells["cells"].to_list() == [30, 30]
