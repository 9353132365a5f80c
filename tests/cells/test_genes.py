"""Names of genes: taken from another column, without versions, and files that mean the same genes by other names."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from anndata import AnnData

from study.cells.check import check_data
from study.cells.genes import Naming, name_genes, shared_genes
from study.cells.sheet import Sheet
from study.cells.twins import prepare
from study.config.composition import compose
from study.config.data import DataConfig
from study.errors import InputError
from tests.cells.test_alignment import dense, separate
from tests.made import FINE

N = 30
SYMBOLS = [f"SYM{i}" for i in range(N)]
IDS = [f"ENSG{i:011d}" for i in range(N)]
VERSIONED = [f"{name}.{i % 7 + 1}" for i, name in enumerate(IDS)]
Var = pd.DataFrame


def sheet(where: str, names: list[str], **columns: list[object]) -> Sheet:
    var = Var(columns, index=pd.Index(names))
    return Sheet(where, Var(), var.index, None, var=var)


@cache
def plain() -> DataConfig:
    return compose(FINE).data


def data(**changes: object) -> DataConfig:
    return plain().model_copy(update=changes)


def shared(config: DataConfig, *sheets: Sheet) -> tuple[list[str], list[str], list[str]]:
    """Genes, problems and warnings."""
    problems: list[str] = []
    warnings: list[str] = []
    named = [name_genes(one, config, warnings) for one in sheets]
    return list(shared_genes(named, config, problems, warnings)), problems, warnings


def obeyed(config: DataConfig, message: str) -> DataConfig:
    """What the message says to say, said."""
    said = re.findall(r"data\.(\w+)=(\w+)", message)
    assert said, message
    return config.model_copy(update={key: yaml.safe_load(value) for key, value in said})


CASES: dict[str, tuple[list[Sheet], str, dict[str, object], list[str]]] = {
    "a version in both": (
        [sheet("r", VERSIONED), sheet("q", [f"{name}.{i % 5 + 1}" for i, name in enumerate(IDS)])],
        "q: shares 5 of the 30 genes of r as they are, 30 of 30 without '.N' at the end. "
        "Say data.strip_gene_version=true.",
        {},
        IDS,
    ),
    "a version in one": (
        [sheet("r", IDS), sheet("q", VERSIONED[::-1])],
        "q: shares 0 of the 30 genes of r as they are, 30 of 30 without '.N'",
        {},
        IDS,
    ),
    "symbols are in a column of the reference": (
        [sheet("r", IDS, gene_symbols=SYMBOLS, kind=["Gene Expression"] * N), sheet("q", SYMBOLS)],
        "as they are, 30 of 30 by var['gene_symbols']. Say data.gene_names=gene_symbols.",
        {},
        SYMBOLS,
    ),
    "ids with versions are in a column of a query": (
        [sheet("r", IDS), sheet("q", SYMBOLS, gene_ids=VERSIONED)],
        "30 of 30 by var['gene_ids'] without '.N' at the end. "
        "Say data.gene_names=gene_ids data.strip_gene_version=true.",
        {},
        IDS,
    ),
    "the column that was asked for is the wrong one": (
        [sheet("r", IDS, other=[f"x{i}" for i in range(N)]), sheet("q", IDS)],
        "30 of 30 by the index of var. Say data.gene_names=null.",
        {"gene_names": "other"},
        IDS,
    ),
    "numbers, and names in a column": (
        [
            sheet("r", [str(i) for i in range(N)], feature_name=SYMBOLS),
            sheet("q", [str(i) for i in range(N)], feature_name=SYMBOLS[::-1]),
        ],
        "q: shares 0 of the 30 genes of r as they are (those of q are called '0', '1', '2' and so on), "
        "30 of 30 by var['feature_name']. Say data.gene_names=feature_name.",
        {},
        SYMBOLS,
    ),
    "two queries, of which one needs another name": (
        [sheet("r", VERSIONED), sheet("p", VERSIONED), sheet("q", IDS)],
        "q: shares 0 of the 30 genes",
        {},
        IDS,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_names_that_would_meet_better_are_found_told_and_work(name: str) -> None:
    sheets, said, changes, genes = CASES[name]
    config = data(**changes)
    _, (problem,), warnings = shared(config, *sheets)
    assert said in problem
    assert warnings == []
    assert shared(obeyed(config, problem), *sheets) == (genes, [], [])


def test_names_in_another_case_are_told_and_can_be_written_alike() -> None:
    mouse, human = sheet("q", [name.capitalize() for name in SYMBOLS]), sheet("r", SYMBOLS)
    _, (problem,), _ = shared(data(), human, mouse)
    assert "q: shares 0 of the 30 genes of r as they are, 30 of 30 in capitals. Write them alike" in problem
    (command,) = re.findall(r"`(.+)`", problem)
    adata = AnnData(np.ones((2, N)), var=mouse.var)
    exec(command, {"adata": adata})
    assert shared(data(), human, sheet("q", list(adata.var_names))) == (SYMBOLS, [], [])


def test_few_genes_that_are_all_there_are_a_warning() -> None:
    genes, problems, (warning,) = shared(data(), sheet("r", IDS), sheet("q", IDS[:10], gene_symbols=SYMBOLS[:10]))
    assert (genes, problems) == (IDS[:10], [])
    assert warning == "q: shares 10 of the 30 genes of r as they are (it has 10)."


def test_half_of_the_genes_are_not_few_but_more_are_told_of() -> None:
    half = [*IDS[:16], *VERSIONED[16:]]
    _, problems, (warning,) = shared(data(), sheet("r", IDS), sheet("q", half))
    assert problems == []
    assert "shares 16 of the 30 genes of r as they are, 30 of 30 without '.N'" in warning
    assert shared(obeyed(data(), warning), sheet("r", IDS), sheet("q", half)) == (IDS, [], [])
    assert shared(data(), sheet("r", IDS), sheet("q", IDS[:16])) == (IDS[:16], [], [])


def test_numbers_name_no_genes() -> None:
    numbers = [str(i) for i in range(N)]
    _, problems, _ = shared(data(), sheet("r", numbers), sheet("q", numbers))
    assert "q: shares 0 of the 30 genes" in problems[0], "though all are equal"
    assert "Write the names of the genes into the index of var." in problems[0]
    chosen = [str(7 * i) for i in range(N)]
    assert "'0', '7', '14' and so on" in shared(data(), sheet("r", SYMBOLS), sheet("q", chosen))[1][0]
    genes, problems, (warning,) = shared(data(), sheet("one", numbers, gene_symbols=SYMBOLS, n=list(range(N))))
    assert (genes, problems) == (numbers, []), "one file means one thing by them"
    assert "one: its genes are called '0', '1', '2' and so on. Names may be in var: 'gene_symbols'" in warning
    entrez = ["1", "9", "12", "100130302"]
    assert shared(data(), sheet("r", entrez), sheet("q", entrez)) == (entrez, [], [])


def test_genes_that_would_have_one_name_keep_their_own() -> None:
    symbols = ["SYM0", "SYM0", "", None, *SYMBOLS[4:]]
    one = sheet("r", IDS, symbol=symbols)
    genes, problems, warnings = shared(data(gene_names="symbol"), one)
    assert (genes, problems) == ([*IDS[:4], *SYMBOLS[4:]], [])
    assert warnings == [
        "r: 1 names would each be that of several genes ('SYM0'): "
        "these genes keep the names that they have in var's index."
    ]
    pair = sheet("r", ["ENSG01.1", "ENSG01.2", "ENSG02.3", "ENSG03.1_PAR_Y", "AC012345.1"])
    names, twice = Naming(None, strip=True).names(pair)
    assert list(names) == ["ENSG01.1", "ENSG01.2", "ENSG02", "ENSG03_PAR_Y", "AC012345.1"], "symbols end in .N too"
    assert twice == ["ENSG01"]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("gene_symbol", "r, q: var has no column 'gene_symbol' (data.gene_names). Did you mean 'gene_symbols'?"),
        (
            "kind",
            "r: var['kind'] (data.gene_names) has 1 different values for 30 genes, so it does not name them. "
            "Choose another column: 'gene_symbols'.",
        ),
    ],
)
def test_a_column_that_names_no_genes(column: str, said: str) -> None:
    sheets = [sheet("r", IDS, gene_symbols=SYMBOLS, kind=["Gene Expression"] * N), sheet("q", SYMBOLS)]
    _, (problem,), _ = shared(data(gene_names=column), *sheets)
    assert problem.startswith(said)


# --- files


def test_files_meet_by_the_column_that_one_of_them_has(toy: AnnData, tmp_path: Path) -> None:
    reference, query = toy[:30].copy(), toy[30:, ::-1].copy()
    right = prepare(separate(tmp_path, {"reference": reference, "a": query}), ["a"], tmp_path / "right")["a"]
    query.var["feature_name"] = pd.Categorical(query.var_names)
    query.var_names = [f"ENSG{i:011d}.3" for i in range(20)]
    config = separate(tmp_path, {"reference": reference, "a": query})
    (problem,) = check_data(config).problems
    with pytest.raises(InputError, match=re.escape(problem)):
        prepare(config, ["a"], tmp_path / "p")
    assert not (tmp_path / "p").exists()
    cells = prepare(obeyed(config, problem), ["a"], tmp_path / "p")["a"]
    assert cells.digest() == right.digest()
    np.testing.assert_array_equal(cells.counts.toarray()[:30], dense(reference))


def test_repeated_names_of_the_index_are_mended_by_a_column(
    toy: AnnData, combined: Callable[..., DataConfig], tmp_path: Path
) -> None:
    toy.var["gene_ids"] = IDS[:20]
    toy.var.index = pd.Index(["twice", "twice", *SYMBOLS[2:20]])
    cells = prepare(combined(toy, gene_names="gene_ids"), ["q1"], tmp_path)["q1"]
    assert cells.genes.tolist() == IDS[:20]
    assert "gene names occur more than once" in check_data(combined(toy)).problems[0]
