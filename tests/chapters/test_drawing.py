"""Figures and tables as HTML that a page can restyle."""

import re

import matplotlib.pyplot as plt
import nbclient
import nbformat
import pytest

from palimpsest.chapters import drawing, figures


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def drawn():
    figure, axes = figures.panels(1, 2)
    for ax, size in zip(axes[0], ("medium", "small"), strict=True):
        ax.plot([0, 1], [0, 1], "o-", color=figures.COLORS["sft"], label="SFT")
        ax.set_title(size)
    axes[0, 0].set_ylabel("share")
    return drawing.as_html(figures.legend(figure, axes))


def test_every_panel_is_a_drawing_of_its_own_with_the_labels_it_shared(drawn):
    svgs = re.findall(r"<svg.*?</svg>", drawn.split('<ul class="figure-legend"')[0], re.DOTALL)
    assert len(svgs) == 2
    for svg, size in zip(svgs, ("medium", "small"), strict=True):
        assert f">{size}</text>" in svg and ">share</text>" in svg and ">0.0</text>" in svg


def test_the_legend_stands_once_below(drawn):
    assert drawn.count("<li") == 1 and drawn.rstrip().endswith("</ul></div>") and "SFT</li>" in drawn


def test_marks_with_intervals_keep_their_colour_in_the_legend():
    figure, axes = figures.panels(1, 1)
    for place, method in enumerate(("sft", "word_kd")):
        axes[0, 0].errorbar([place], [0], xerr=[[1], [1]], fmt="o", color=figures.COLORS[method], label=method)
    listed = drawing.as_html(figures.legend(figure, axes)).split('<ul class="figure-legend"')[1]
    assert "--c-m-sft" in listed and "--c-m-word_kd" in listed


def test_colours_are_the_pages_to_change(drawn):
    assert f"var(--c-m-sft,{figures.COLORS['sft']})" in drawn and "currentColor" in drawn
    assert "#262626" not in drawn and "DejaVu" not in drawn


def test_no_name_stands_twice_and_none_is_kept_that_nothing_refers_to(drawn):
    names = re.findall(r' id="([^"]+)"', drawn)
    assert len(names) == len(set(names)) and all(f"#{name}" in drawn for name in names)


def test_marks_say_which_records():
    once, often, alone, control = (
        figures.mark_of(*asked) for asked in (("member",), ("member", 4), ("teacher_only", 16), ("non_member",))
    )
    assert [m["marker"] for m in (once, often, alone, control)] == ["o", "s", "D", "o"]
    assert [m["mfc"] for m in (once, often, alone, control)] == [None, None, None, "white"]


def test_a_sign_stays_with_its_number_and_nothing_said_is_nothing_shown():
    assert (
        figures.say("24% of a", "23.5 % (1.0 to 2.0), Min-K%").data
        == "24\u00a0% of a\n23.5\u00a0% (1.0 to 2.0), Min-K%"
    )
    assert figures.say() is None and figures.say("") is None


def test_names_at_lines_ends_are_apart_and_inside():
    figure, axes = figures.panels(1, 1)
    axes[0, 0].set_ylim(0, 1)
    figures.name_lines(axes[0, 0], 3, {"sft": 1.0, "word_kd": 1.0, "seq_kd": 0.99, "fkl": 0.0})
    heights = sorted(text.get_position()[1] for text in axes[0, 0].texts)
    assert heights[-1] <= 1 and min(b - a for a, b in zip(heights, heights[1:], strict=False)) >= 0.0749


def test_drawing_leaves_the_figure_as_it_was():
    figure, axes = figures.panels(1, 2)
    drawing.as_html(figure)
    assert all(ax.get_visible() for ax in axes.flat)
    plt.close(figure)


def test_numbers_on_an_axis_are_left_as_they_are():
    figure, axes = figures.panels(1, 1)
    axes[0, 0].plot([0.12345, 0.125], [0, 1])
    axes[0, 0].set_xticks([0.12345, 0.125], ["0.12345", "0.125"])
    html = drawing.as_html(figure)
    assert ">0.125</text>" in html and ">0.12345</text>" in html
    assert not re.search(r' d="[^"]*\d\.\d{3}', html)


def test_a_kernel_shows_figures_as_drawings_and_tables_as_ours():
    """As in JupyterLab: the inline backend starts with the first figure and must not undo it."""
    cells = [
        "from palimpsest.chapters import figures\nfigures.set_theme()",
        "figures.panels(1, 1)[0]",
        "import pandas\npandas.DataFrame([1])",
    ]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(nb, kernel_name="python3").execute()
    for cell, said in zip(nb.cells[1:], ("figure-panels", "table-frame"), strict=True):
        assert said in cell.outputs[0].data["text/html"] and not any(
            "image/png" in o.get("data", {}) for o in cell.outputs
        )


def test_a_number_with_its_interval_has_no_minus_before_nothing():
    assert figures.between(-0.04, -0.5, 0.04, "+.1f") == "+0.0 (-0.5 to +0.0)"
    assert figures.between(-0.004, -0.006, 1) == "0.00 (-0.01 to 1.00)"
    assert figures.between(1.0, float("nan"), 2.0) == "not measurable"
