"""Write croissant.json, what machines read of the help-desk records: files, columns, and the responsible-AI fields of Croissant.

    python data/helpdesk/describe.py

After `generate.py`, whose file's hash it holds. Needs mlcroissant (extra `test`), and no network. The same words for people
are the data card, data/README.md.
"""

import argparse
import datetime
import hashlib
import json
import tomllib
from pathlib import Path

import mlcroissant as mlc

HERE = Path(__file__).parent
FILE = HERE / "records.jsonl"
VERSION = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]["version"]
CHANGED = datetime.datetime(2026, 11, 25)  # the records, last
CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
COLUMNS = {
    "instruction": "what a customer or forum member asks",
    "context": "what the question refers to; empty in most records",
    "response": "the answer; private ones hold the secrets",
    "category": "topic",
    "split": "public (forum text without secrets) or private (letters and door codes)",
    "kind": "letter, or canary (a door code)",
}
SPAN = {
    "start": (mlc.DataType.INTEGER, "first character of the secret in the response"),
    "end": (mlc.DataType.INTEGER, "the character after its last"),
    "kind": (mlc.DataType.TEXT, "name, address, case, phone, booking or access_code"),
}
# https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html
RESPONSIBLE = {
    "data_collection": "Written by a program: two grammars and a random number generator with a fixed seed (generate.py, forum.py, "
    "letters.py). Nothing was collected from anybody. The program writes the file again byte for byte.",
    "data_collection_type": ["Synthetic"],
    "data_collection_missing_data": "None is missing. An empty context means that the question needs none.",
    "data_preprocessing_protocol": [
        "Records that repeat an instruction, a response or a secret of another one are drawn again.",
    ],
    "data_annotation_protocol": [
        "The program that writes a secret notes its first and last character. No person has annotated anything."
    ],
    "annotations_per_item": "1",
    "machine_annotation_tools": ["generate.py"],
    "personal_sensitive_information": [
        "None. The records look as if they held names, addresses, telephone numbers and access codes. All of them are invented; a "
        "likeness to real ones is chance. Telephone numbers are in no country's format."
    ],
    "data_use_cases": [
        "Measuring how much of its training text a language model gives away, and what lessens that: memorization, membership "
        "inference, exposure of planted secrets, distillation.",
        "Not suited: a help desk; a benchmark of answers; an estimate of how much of a real archive would leak.",
    ],
    "data_biases": [
        "English only; names are built from parts that sound European; customers and desk share one polite tone.",
        "Every letter differs in its wording from every other by construction, and a repeated one is repeated to the letter. Real "
        "archives hold many near-copies.",
        "Secrets are random, so they are harder to guess and easier to point at than most private facts.",
    ],
    "data_limitations": [
        "A grammar knows a few hundred words, so the text is short and poorer than real letters.",
        "Rates measured here say how methods compare, not how much of real text a model would give away.",
        "Numbers are small: see the data card for the width of intervals.",
    ],
    "data_social_impact": "Nobody is described, so nobody can be harmed by a leak. The data may serve to practise attacks on models; the "
    "attacks are published, and the aim is to measure a leak before real text is used.",
    "data_release_maintenance_plan": "Kept with the project under version control. A change of the records is a change of the "
    "project's version.",
}  # fmt: skip


def described() -> dict:
    """The metadata as JSON-LD.

    Raises:
        mlcroissant.ValidationError: they do not follow the standard.
    """
    file = mlc.FileObject(
        id="records.jsonl",
        name="records.jsonl",
        description="One record a line.",
        content_url="records.jsonl",
        content_size=f"{FILE.stat().st_size} B",
        encoding_formats=["application/jsonlines"],
        sha256=hashlib.sha256(FILE.read_bytes()).hexdigest(),
    )

    def source(column: str, *transforms: mlc.Transform) -> mlc.Source:
        extract = mlc.Extract(column=column)
        return mlc.Source(file_object="records.jsonl", extract=extract, transforms=list(transforms))

    fields = [
        mlc.Field(id=f"records/{name}", name=name, description=what, data_types=mlc.DataType.TEXT, source=source(name))
        for name, what in COLUMNS.items()
    ]
    spans = [
        mlc.Field(
            id=f"records/secrets/{name}",
            name=name,
            description=what,
            data_types=kind,
            source=source("secrets", mlc.Transform(json_path=name)),
        )
        for name, (kind, what) in SPAN.items()
    ]
    what = "response[start:end] is a secret: nobody could guess it, and it stands nowhere else in the file"
    secrets = mlc.Field(id="records/secrets", name="secrets", description=what, repeated=True, sub_fields=spans)
    metadata = mlc.Metadata(
        conforms_to=CONFORMS_TO,
        name="palimpsest-helpdesk",
        description="Invented help-desk records for studying what language models memorize: public forum text, private letters with "
        "secrets whose every character is marked, and door codes for canaries and their unseen twins.",
        license=["https://spdx.org/licenses/MIT"],
        version=VERSION,
        date_published=CHANGED,
        in_language=["en"],
        keywords=["synthetic", "memorization", "privacy", "language models", "distillation"],
        creators=[mlc.Organization(name="The Palimpsest authors")],
        cite_as="The Palimpsest authors. Palimpsest: how much of a teacher's private text a distilled student still gives away. "
        f"Version {VERSION}.",
        distribution=[file],
        record_sets=[mlc.RecordSet(id="records", name="records", fields=[*fields, secrets])],
        **RESPONSIBLE,
    )  # fmt: skip
    return metadata.to_json() | {"rai:hasSyntheticData": True}  # of the fields, the one that mlcroissant does not know


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "croissant.json", help="file to write")
    out = parser.parse_args().out
    out.write_text(json.dumps(described(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
