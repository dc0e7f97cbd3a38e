"""Every notebook is a pair whose halves agree; the .py is the source."""

from pathlib import Path

import nbformat
import papermill
import pytest

from palimpsest.book import pairs

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SOURCE = """# %% [markdown]
# # Title

# %% tags=["parameters"]
size: str = "small"  # which size

# %% tags=["b", "a"]
print(size)

# %%
print(1)

# %%
print(1)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "01_x.py").write_text(SOURCE)
    pairs.write(tmp_path)
    return tmp_path


def test_committed_pairs_agree():
    assert pairs.differences(NOTEBOOKS) == []


@pytest.mark.parametrize("source", sorted(NOTEBOOKS.glob("*.py")), ids=lambda p: p.stem)
def test_both_halves_offer_the_same_parameters(source, tmp_path):
    nbformat.write(pairs.notebook(source), tmp_path / "made.ipynb")
    made = papermill.inspect_notebook(str(tmp_path / "made.ipynb"))
    assert made and made == papermill.inspect_notebook(str(source.with_suffix(".ipynb")))


def test_writing_twice_changes_nothing_and_ids_differ(folder):
    assert pairs.write(folder) == [] and pairs.differences(folder) == []
    nb = nbformat.read(folder / "01_x.ipynb", as_version=4)
    assert len({c["id"] for c in nb.cells}) == len(nb.cells) == 5
    nbformat.validate(nb)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda nb: nb.cells[1].update(source="size = 3"), "cell 1 differs"),
        (lambda nb: nb.cells[2].metadata.update(tags=["a"]), "cell 2 differs"),
        (lambda nb: nb.cells[0].update(cell_type="raw"), "cell 0 differs"),
        (lambda nb: nb.cells.pop(), "cell 4 differs"),
        (lambda nb: nb.cells[3].update(execution_count=2), "holds outputs"),
        (lambda nb: nb.cells[3].update(outputs=[nbformat.v4.new_output("stream", text="1")]), "holds outputs"),
    ],
)
def test_a_changed_twin_is_found(folder, change, message):
    nb = nbformat.read(folder / "01_x.ipynb", as_version=4)
    change(nb)
    (folder / "01_x.ipynb").write_text(nbformat.writes(nb))
    assert [message in line for line in pairs.differences(folder)] == [True]


def test_a_missing_half_is_found(folder):
    (folder / "02_y.py").write_text(SOURCE)
    (folder / "01_x.py").unlink()
    assert sorted(line.split(" has no ")[1] for line in pairs.differences(folder)) == [
        "01_x.py beside it",
        "02_y.ipynb beside it",
    ]


def test_tag_order_and_ids_do_not_matter(folder):
    nb = nbformat.read(folder / "01_x.ipynb", as_version=4)
    nb.cells[2].metadata["tags"].reverse()
    nb.cells[2]["id"] = "another"
    (folder / "01_x.ipynb").write_text(nbformat.writes(nb))
    assert pairs.differences(folder) == []
