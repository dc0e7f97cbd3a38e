"""Figures as inline SVG: one drawing per panel, so that panels stand below one another on a telephone, in colours that follow the
page's theme, with text that can be selected and read aloud.

MyST-NB shows an SVG output as an image, which a page's style can't reach; so a figure is shown as HTML. `plt.Figure` stays what
chapters return: it is turned into HTML when a notebook shows it (`show_inline`), so a notebook in JupyterLab looks the same.
"""

import io
import itertools
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import HTML, display
from matplotlib.axes import Axes

from palimpsest.data.markup import table_as_html
from palimpsest.data.masking import escape

# What a page may redefine: book/_static/book.css has the colours for a dark page. Methods' own are added by `figures`.
COLORS: dict[str, str] = {"#b2182b": "member", "#2166ac": "other", "#e08214": "transferred"}
INK = {"#000000": 100, "#262626": 100, "#444444": 85, "#777777": 65, "#999999": 50, "#bbbbbb": 40, "#d8d8d8": 25}
INK |= {"#cccccc": 25, "#e8e8e8": 12}
PAPER = "#ffffff"
LEAST = 0.8  # a panel is drawn no smaller than this share of its own size, if the page has room for it
UNNAMED = "figure"  # until the book puts the caption there
WIDTH = re.compile(r"max-width:(\d+)px")
TAG, LONG = re.compile(r"<[^>]*>"), re.compile(r"-?\d+\.\d{3,}")
_COUNTER = itertools.count()


def as_html(figure: plt.Figure) -> str:
    """A figure as one SVG per panel in a grid that folds, and its legend below.

    Every panel is given the labels that it shared with its neighbours, since it may stand alone.
    """
    legends = figure.legends[:]
    for legend in legends:
        legend.remove()
    panels = [ax for ax in figure.axes if ax.get_visible()]
    for ax in panels:
        _complete(ax, panels)
    drawn = [_draw(figure, ax) for ax in panels]
    named = "".join(_legend(legend) for legend in legends)
    columns = max((ax.get_subplotspec().get_gridspec().ncols for ax in panels if ax.get_subplotspec()), default=1)
    least = LEAST * max((int(WIDTH.search(svg).group(1)) for svg in drawn), default=0)
    track = f"minmax(min(100%,max({least:.0f}px,calc(100%/{columns} - 0.5rem))),1fr)"
    style = f"display:grid;grid-template-columns:repeat(auto-fit,{track});gap:0.5rem;align-items:start"
    panels = f'<div style="{style}">{"".join(drawn)}</div>'
    return f'<div class="figure-panels" role="img" aria-label="{UNNAMED}">{panels}{named}</div>'


def show_inline() -> None:
    """In a notebook, show figures as `as_html` has them, and not as pictures as well, and tables as `table_as_html`."""
    if shell := get_ipython():
        # Not among the formatters by type of content: matplotlib's inline backend takes figures out of all of them when it starts.
        for_type = shell.display_formatter.ipython_display_formatter.for_type
        for_type(plt.Figure, lambda figure: display(HTML(as_html(figure))))
        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, table_as_html)


def _complete(ax: Axes, panels: list[Axes]) -> None:
    spec = ax.get_subplotspec()
    if spec is None:
        return
    ax.tick_params(labelleft=True, labelbottom=True)
    for other in panels:
        at = other.get_subplotspec()
        if at and at.rowspan.start == spec.rowspan.start and not ax.get_ylabel():
            ax.set_ylabel(other.get_ylabel(), fontsize=other.yaxis.label.get_size())
        if at and at.colspan.start == spec.colspan.start:
            ax.set_xlabel(ax.get_xlabel() or other.get_xlabel())
            ax.set_title(ax.get_title() or other.get_title(), fontsize=other.title.get_size())


def _draw(figure: plt.Figure, ax: Axes) -> str:
    others = [other for other in figure.axes if other is not ax and other.get_visible()]
    for other in others:
        other.set_visible(False)
    try:
        figure.draw_without_rendering()
        box = ax.get_tightbbox().transformed(figure.dpi_scale_trans.inverted()).padded(0.03)
        return _clean(_svg(figure, box))
    finally:
        for other in others:
            other.set_visible(True)


def _svg(figure: plt.Figure, box) -> str:
    out, how = io.StringIO(), {"svg.fonttype": "none", "svg.hashsalt": f"palimpsest {next(_COUNTER)}"}
    with mpl.rc_context(how):
        figure.savefig(out, format="svg", bbox_inches=box, transparent=True, metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _clean(svg: str) -> str:
    """Only the drawing, without names that nothing refers to, in the page's own font and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m.group() if m.group(1) in used else "", svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1; font-family: inherit", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    width = float(re.search(r'width="([\d.]+)pt"', svg).group(1))
    svg = re.sub(
        r'width="[\d.]+pt" height="[\d.]+pt"',
        f'style="width:100%;max-width:{width * 4 / 3:.0f}px" aria-hidden="true"',
        svg,
        count=1,
    )
    # Not what is written on an axis.
    svg = TAG.sub(lambda tag: LONG.sub(lambda m: f"{float(m.group()):.2f}", tag.group()), svg)
    svg = re.sub(r"#[0-9a-f]{6}", lambda m: _color(m.group()), svg)
    return re.sub(r"\n\s*", "\n", svg)


def _color(value: str) -> str:
    if value in COLORS:
        return f"var(--c-{COLORS[value]},{value})"
    if value in INK:
        return "currentColor" if INK[value] == 100 else f"color-mix(in srgb,currentColor {INK[value]}%,transparent)"
    return f"var(--pst-color-background,{value})" if value == PAPER else value


def _legend(legend) -> str:
    handles = zip(legend.legend_handles, legend.get_texts(), strict=True)
    entries = "".join(
        f'<li style="white-space:nowrap">{_sample(h)} {escape(text.get_text())}</li>' for h, text in handles
    )
    style = (
        "list-style:none;display:flex;flex-wrap:wrap;gap:0.1rem 1.1rem;padding:0;margin:0.4rem 0 0;font-size:0.8rem"
    )
    return f'<ul class="figure-legend" style="{style}">{entries}</ul>'


def _sample(handle) -> str:
    """What a legend has for an entry (a line, a bar, lines of intervals), drawn as in the panels."""
    figure = plt.Figure(figsize=(0.34, 0.14), layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(-1, 1))
    if isinstance(handle, mpl.lines.Line2D):
        line, mark = (
            ("color", "linestyle", "linewidth"),
            ("marker", "markersize", "markerfacecolor", "markeredgecolor"),
        )
        ax.plot([0, 1], [0, 0], **{name: plt.getp(handle, name) for name in line})
        ax.plot([0.5], [0], linestyle="", **{name: plt.getp(handle, name) for name in mark})
    else:  # a bar, or the lines of intervals, which have no face
        face = handle.get_facecolor()
        ax.scatter([0.5], [0], color=face if len(face) else handle.get_edgecolor(), s=16)
    return _clean(_svg(figure, None)).replace("width:100%;", "width:2em;vertical-align:middle;", 1)
