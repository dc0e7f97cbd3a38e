"""The report: one page that fetches nothing and runs one script of its own, with the text of the data masked or inert."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from audits import EVIL, audited, people, write

from palimpsest import audit
from palimpsest.audit.signoff import LENGTH
from palimpsest.data.markup import SCRIPT
from palimpsest.errors import InputError


class Loads(HTMLParser):
    """Everything a page would fetch or run."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        outside = [v for k, v in given.items() if k in ("src", "href", "data") and not v.startswith(("data:", "#"))]
        handlers = [k for k in given if k.startswith("on")]
        if tag in ("script", "link", "iframe", "object") or outside or handlers:
            self.found.append((tag, given))


def page_of(folder):
    """The page of an audit without its own script, which is known by its hash, what it loads beside that, and its policy."""
    page_ = (folder / "report.html").read_text()
    digest = base64.b64encode(hashlib.sha256(SCRIPT.read_bytes()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert f'http-equiv="Content-Security-Policy" content="{policy}"' in page_
    assert page_.count(own := f"<script>{SCRIPT.read_text()}</script>") == 1
    loads = Loads()
    loads.feed(page_ := page_.replace(own, ""))
    return page_, loads.found


@pytest.fixture(scope="module")
def out(place, tmp_path_factory):
    """A finished audit with everything that a report can show."""
    folder = tmp_path_factory.mktemp("out")
    options = {"non_members": place / "others.jsonl", "reference": place / "base", "window": 8, "left_truncated": [4]}
    audited(place / "tuned", place / "members.jsonl", folder, **options)
    return folder


def test_a_page_that_fetches_nothing_runs_only_its_own_script_and_shows_no_text(out):
    page_, loads = page_of(out)
    assert (
        loads == [] and page_.count("data:image/png;base64,") == 3 and len(list((out / "figures").glob("*.png"))) == 3
    )
    assert "<table" in page_.split("Less context before the same target")[1].split("<h2>")[0] and "$" not in page_
    secrets = [code for row in people(24, 1) for code in re.findall(r"code (\d{6})", row["answer"])]
    written = page_ + (out / "summary.json").read_text()
    assert not [s for s in secrets if s in written]
    records = pd.read_parquet(out / "records.parquet")
    assert "token" not in records and "continuation" not in records


def test_the_numbers_of_the_summary_stand_on_the_page(out):
    text = (out / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", text, re.S)]
    found = [r for r in json.loads((out / "summary.json").read_text())["rates"] if r["measure"] == "verbatim"]
    for row in (r for r in found if r["group"] == "members" and r["model"] == "model" and r["total"]):
        share = f"{100 * row['rate']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f}), n = {row['total']}"
        share = share.replace(" (", " <small>(") + "</small>"
        asked = [str(row["k"]), "all" if row["m"] is None else str(row["m"]), row["end_token"]]
        assert [*asked, share] in [r[:4] for r in rows]


def test_the_page_is_made_again_from_the_folder(out):
    former = (out / "report.html").read_text()
    (out / "report.html").unlink()
    assert audit.report(out).read_text() == former
    with pytest.raises(InputError, match="holds no audit"):
        audit.report(out / "figures")


def test_shown_text_is_escaped(place, tmp_path):
    summary = audited(place / "tuned", place / "members.jsonl", tmp_path, approximate=False, show_secrets=True)
    assert any(EVIL in row["text"] for row in summary["most_at_risk"])
    page_, loads = page_of(tmp_path)
    assert loads == [] and summary["most_at_risk"][0]["text"][:10] in page_
    assert any("no non-members" in line for line in summary["warnings"])


def test_long_texts_of_records_at_risk_are_cut_and_masked_ones_tell_nothing(place, tmp_path):
    members = [{**row, "answer": row["answer"] + " Sincerely" * 30} for row in people(24, 1)]
    file = write(tmp_path / "long.jsonl", members)
    options = {"approximate": False, "long": "window"}
    rows = audited(place / "tuned", file, tmp_path / "shown", show_secrets=True, **options)["most_at_risk"]
    assert len(rows) == 24 and max(len(row["text"]) for row in rows) == LENGTH
    assert "Sincerely" not in json.dumps(
        audited(place / "tuned", file, tmp_path / "masked", **options)["most_at_risk"]
    )
