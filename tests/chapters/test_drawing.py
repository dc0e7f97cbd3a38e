"""Figures and tables as HTML that a page can restyle."""

import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from palimpsest.chapters import drawing, figures


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


def test_colours_are_the_pages_to_change(drawn):
    assert f"var(--c-m-sft,{figures.COLORS['sft']})" in drawn and "currentColor" in drawn
    assert "#262626" not in drawn and "DejaVu" not in drawn


def test_no_name_stands_twice_and_none_is_kept_that_nothing_refers_to(drawn):
    names = re.findall(r' id="([^"]+)"', drawn)
    assert len(names) == len(set(names)) and all(f"#{name}" in drawn for name in names)


def test_drawing_leaves_the_figure_as_it_was():
    figure, axes = figures.panels(1, 2)
    drawing.as_html(figure)
    assert all(ax.get_visible() for ax in axes.flat)
    plt.close(figure)


def test_intervals_are_set_apart_and_text_is_inert():
    html = drawing.table_as_html(pd.DataFrame({"a": ["12.3 % (10.0 to 14.9)", "<b>bold</b> (x)"]}))
    assert "12.3 % <small>(10.0 to 14.9)</small>" in html and "<b>" not in html and html.count("<small>") == 1
    assert 'role="region" tabindex="0"' in html
