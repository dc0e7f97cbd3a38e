"""The prose of notebooks and pages, as readers meet it: sentences, and the terms of the glossary that stand there unlinked."""

import re
from pathlib import Path

import jupytext

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "book" / "glossary.md"
PAGES = [
    *sorted((ROOT / "notebooks").glob("[0-9]*.py")),
    *sorted(p for p in (ROOT / "book").glob("*.md") if p.stem not in ("glossary", "api", "bibliography")),
]
FILES = [*PAGES, GLOSSARY, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
# What is no sentence of the page: comments, code, formulas, raw markup, headings, targets, tables.
CODE = re.compile(r"^(`{3,}|~{3,})(?!\{(?:note|admonition|glossary)).*?^\1\s*$", re.MULTILINE | re.DOTALL)
NO_PROSE = [
    (re.compile(r"<!--.*?-->", re.DOTALL), " "),
    (CODE, "\n"),
    (re.compile(r"\$\$.*?\$\$", re.DOTALL), " formula "),
    (re.compile(r"^(#+ .*|\(\S+\)=|\|.*|:::.*|```.*|:\w+: .*)$", re.MULTILINE), "\n"),
    (re.compile(r"\$[^$\n]*(?:\n[^$\n]+)?\$"), "x"),
]
ROLE, LINK, TAG = (
    re.compile(r"\{[\w:+-]+\}`([^`<]*?)\s*(?:<[^`]*>)?`"),
    re.compile(r"!?\[([^\]]*)\]\([^)]*\)"),
    re.compile(r"<[^>]*>"),
)
TERM = re.compile(r"\{term\}`([^`]*)`")
FOLD, INLINE = re.compile(r"<details>.*?</details>", re.DOTALL), re.compile(r"`[^`]*`")
ITEM = re.compile(r"^\s*([-*]|\d+\.)\s+|^: ", re.MULTILINE)
# Terms that every page is about, or plain words as well: they need no link where they first stand.
PLAIN = set(
    "record,prompt,response,member,half,dose,validation,split,secret,teacher,student,method,arm,study,run,token,loss,hit,verbatim,"
    "window,claim,family,seed,transferred,distil,fine-tuning,memorize,epoch,bit,null,inherited,shed,left-truncated,logit,divergence,"
    "learning rate".split(",")
)
FORMS = {  # how a term may stand, where it isn't the term with an s
    "canary": r"canar(?:y|ies)",
    "family": r"famil(?:y|ies)",
    "baseline": r"(?<!blind )baselines?",
    "ROUGE": r"ROUGE(?:-\w)?",
    "(n, p)-discoverable": r"\(n, p\)-discoverable",
    "epsilon": r"epsilon|ε",
    "differential privacy": r"differential privacy|DP-SGD",
    "null": r"nulls?",
    "p-value": r"p-values?",
    "twin": r"twins?",
    "greedy decoding": r"greedy decoding|decoded greedily",
}


def terms() -> list[str]:
    """Every term of the glossary."""
    (body,) = re.findall(r"```\{glossary\}\n(.*?)```", GLOSSARY.read_text(encoding="utf-8"), re.DOTALL)
    return [line for line in body.splitlines() if line and not line.startswith(" ")]


def prose(path: Path) -> str:
    """The text of a notebook's Markdown cells, or of a page."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = jupytext.read(path).cells
    return "\n\n".join(
        c.source for c in cells if c.cell_type == "markdown" and "remove-cell" not in c.metadata.get("tags", [])
    )


def told(path: Path) -> str:
    """Its prose without what is no sentence; links and roles still stand in it."""
    text = prose(path)
    for pattern, instead in NO_PROSE:
        text = pattern.sub(instead, text)
    return text


def sentences(path: Path) -> list[str]:
    """Its sentences, names of code as one word each."""
    text = LINK.sub(r"\1", re.sub(r"`[^`]*`", "code", ROLE.sub(r"\1", TAG.sub("\n\n", told(path)))))
    blocks = re.split(r"\n\s*\n", ITEM.sub("\n\n", text))
    return [s for block in blocks for s in re.split(r"(?<=[.?!:])[\"*_)\u201d]*\s+", " ".join(block.split())) if s]


def linked(path: Path) -> list[str]:
    """The terms that it links, in order."""
    return [target(role) for role in TERM.findall(prose(path))]


def unlinked(path: Path) -> list[str]:
    """Terms that stand in its prose plainly before they are linked, or are never linked."""
    text = prose(path)
    return [term for term in terms() if term not in PLAIN and (found := first_plain(text, term)) and not found[1]]


def first_plain(text: str, term: str) -> tuple[re.Match, bool] | None:
    """Where a term first stands as plain words, and whether a link to it comes before; None where it never does."""
    form = FORMS.get(term, re.escape(term) + "s?").replace("\\ ", r"\s+")
    words = re.compile(rf"(?<![\w-])(?:{form})(?![\w-])", re.IGNORECASE if term.islower() else 0)
    found = words.search(masked(text))
    linked_at = next((m.start() for m in TERM.finditer(text) if target(m[1]) == term), len(text))
    return found and (found, linked_at < found.start())


def masked(text: str) -> str:
    """The text, as long as it was, without all places where a link can't stand or would be in the way: headings, code, formulas, links,
    folds of raw HTML."""
    for pattern in (*(p for p, _ in NO_PROSE), FOLD, ROLE, LINK, TAG, INLINE):
        text = pattern.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    return text


def target(role: str) -> str:
    """The term that a role `{term}` is about."""
    found = re.search(r"<([^>]*)>$", role)
    return (found[1] if found else role).strip()
