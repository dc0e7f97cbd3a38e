"""The private text: a customer's note and the help desk's answer, in the desk's own stiff style, with secrets in it.

The desk speaks of itself in the third person, promises with "shall", never contracts, and signs. While a letter is put
together a secret is written `<kind:text>`; at the end the marks are cut out and become character spans.
"""

import re
from random import Random
from typing import Any

from grammar import COLOURS, DAYS, MONTHS, ROOMS, about_product, article, expand, pick, read_topics

FIRST_NAMES = """
    Ada Alma Anselm Arlo Bettina Bram Cato Celia Corin Dagny Dora Edda Elio Emeric Esme Fabian Fern Gideon Greta Hamo
    Hedy Ilse Imre Ines Ivo Jonas Juno Kasper Kit Lena Leopold Lotte Magnus Mara Milo Mina Nadir Nell Odile Orin Otto
    Petra Quentin Rafe Rhea Rufus Saskia Selma Silas Tamsin Theo Tilda Ugo Una Vera Viggo Wanda Willa Yara Zeno
""".split()
NAME_STARTS = """
    Al Ar Bar Bel Bram Cal Car Cor Dal Dun El Fal Fen Gar Gil Hal Har Hol Is Jor Kel Kir Lang Lin Mar Mel Mor Nor Ol
    Pel Quar Ram Ros Sel Stan Tal Thorn Ul Ver Wal Win Yel
""".split()
NAME_ENDS = """
    berry by croft dale den dorf dwick ford gate grave ham ing kin land ley lock low man mere mont ney ridge rick sby
    set stead sten ston thorpe ton vane vik ward well wick wood worth yard
""".split()
STREETS = """
    Abbot Acorn Alder Anchor Bell Birch Bishop Bridge Cedar Chapel Cherry Clover Copper Crane Dover Elm Ferry Fox Gorse
    Harbour Hazel Heron Ivy Kiln Larch Linden Maple Mill Mint Orchard Otter Pearl Pine Plum Quarry Quince Raven Rowan
    Saddle Sorrel Spring Stable Swan Tanner Thistle Turner Weaver Willow
""".split()
STREET_ENDS = "Street Road Lane Row Close Hill Way Court Yard Walk".split()
DIGITS = "0123456789"
SIGNS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # no I, O, 0, 1: hard to tell apart


def signs(rng: Random, count: int, alphabet: str = SIGNS) -> str:
    """`count` characters, each drawn evenly from the alphabet."""
    return "".join(pick(rng, alphabet) for _ in range(count))


def full_name(rng: Random) -> str:
    """An invented person."""
    return f"{pick(rng, FIRST_NAMES)} {pick(rng, NAME_STARTS)}{pick(rng, NAME_ENDS)}"


SECRETS = {
    "case": lambda rng: f"{signs(rng, 2, DIGITS)}-{signs(rng, 4, DIGITS)}",
    "phone": lambda rng: f"{signs(rng, 3, DIGITS)} {signs(rng, 4, DIGITS)}",
    "booking": lambda rng: signs(rng, 5),
    "name": full_name,
    "address": lambda rng: f"{2 + int(rng.random() * 197)} {pick(rng, STREETS)} {pick(rng, STREET_ENDS)}",
}

SOON = "(this week|within (three|five|ten) days|without delay|by return|before the month is out|in due course)"
# What the customer writes, and what the desk can answer; each answer holds exactly one secret.
TOPICS = """
# repair
? The {part} of my {p} (is broken|has cracked|came loose|snapped off)[ (on {day}|last week)].
? (On {day}|Last night|This morning) the {part} of my {p} (broke|bent|fell off|jammed).
? My {p} ({do} not work|gave up)[ since {day}], I think it is the {part}.
? The {part} on the {p} in our {room} (rattles|sticks|leaks|smells burnt).
? Can you (mend|repair|look at) my {p}? The {part} is (loose|worn out|gone|cracked).
! A new {part} shall (leave|be posted) for {address}[ (on {day}|{soon})].
! The {p} shall be (fetched|collected) from {address}[ (on {day}|{soon})].
! Our fitter {name} shall (mend|replace|refit) the {part}[ {soon}].
! A spare {part} (is|has been) set aside (under|against) {booking}.
! Kindly (quote|mark the box with) {case} when the {p} (come{s} in|{is} sent in).
! To (fix|settle) a day for the {part}, (ring|telephone) {phone}.

# delivery
? My {p} {has} not (arrived|come|turned up)[, ordered in {month}].
? Where {is} the {p} I (ordered|paid for|bought) (in {month}|on {day}|two weeks ago)?
? The {p} {was} due on {day} and I (still wait|have heard nothing|am still without {it}).
? When will the {p} for our {room} (arrive|be here|come)?
! The {p} (shall reach|{is} on the way to) {address}[ (by {day}|{soon})].
! The (parcel|crate|box) travels under {booking}[ and is due (on {day}|{soon})].
! Our driver {name} shall (bring|carry) {it} to the door[ on {day}].
! A search for the {p} is (opened|entered) as {case}.
! The depot (answers|can be reached) on {phone}[ until {hour}].
! The {p} {was} (left|handed in) at {address}[ on {day}].

# exchange
? I (ordered|wanted) {a2}{colour} {p} and got {colour2}.
? The {p} you sent {is} {colour2}, not {colour}.
? In the box (I found|was|there was) the {colour2} {p}, (not mine|I asked for {colour}).
? Can I (swap|exchange) the {colour2} {p} for {colour}?
! The {colour} {one} shall (leave|be sent) for {address}[ {soon}].
! (Return|Send back) the {colour2} {one} under {booking}[, postage paid].
! The exchange is (entered|filed) as {case}[ and costs nothing].
! {name} of the packing room shall (see to this|send the {colour} {one})[ {soon}].
! Kindly (ring|telephone) {phone} (before|once) the box is (sealed|returned).

# billing
? I was (charged|billed) twice for (my|the) {p}.
? The bill for my {p} is (too high|wrong|not mine)[, it says {month}].
? I sent the {p} back in {month} and (want|still miss) my money.
? Why do I pay a fee for the {p}[ in our {room}]?
! The (refund|credit) is (entered|filed) as {case}[ and shall be paid {soon}].
! A (cheque|corrected bill) shall (leave|be posted) for {address}[ {soon}].
! {name} of accounts shall (amend|cancel) the bill[ {soon}].
! The sum is credited against {booking}[ (on {day}|{soon})].
! Accounts can be (reached|asked) on {phone}[ until {hour}].

# visit
? Please (move|shift|put off) the visit for my {p} to {day}.
? Nobody came (on {day}|last {day}) to (see|fit|check) the {p}.
? Can someone (fit|install|check|set up) the {p} in our {room}[ on {day}]?
? At what time do you come for the {p}[ on {day}]?
! {name} shall (call|attend|be at the door) (on {day}[ at {hour}]|at {hour}).
! The (new visit|visit) is booked under {booking}[ for {day}].
! Our fitter is (sent|due) to {address}[ (on {day}|at {hour})].
! Should the hour not suit, (ring|telephone) {phone}.
! The (day|visit) is (entered|noted) as {case}.

# cancelling
? I (want to|must) cancel (my order of|the order for) the {p}.
? Please do not send the {p}, (I found another|it is too late now|we moved house).
? We no longer need the {p} for the {room}.
! The order is (struck out|closed) as {case}[ at no cost].
! {name} of orders shall (confirm|settle) this[ {soon}].
! Should the {p} still come, (refuse {it} and|kindly) (ring|telephone) {phone}.
! A form to sign shall be (posted|sent) to {address}[ {soon}].
! The deposit is held (under|against) {booking}[ for your next order].

# parts
? Is there a spare {part} for my {p}?
? I have (lost|mislaid|broken) the {part} of (the|my) {p}.
? Do you still (sell|stock|make) the {part} (of|for) my {p}?
! (The last|A spare|A used) {part} shall be (posted|sent) to {address}[ {soon}].
! (This|The) {part} can be (ordered|claimed|fetched) under {booking}.
! {name} of stores shall (look for one|advise on this)[ {soon}].
! The {part} is listed as {case}[ and in stock (from {day}|again)].
! Stores can be (reached|asked) on {phone}[ until {hour}].

# advice
? May I use the {p} in the {room}[ all day]?
? How often should the {part} of the {p} be (changed|oiled|checked)?
? Who can show our {room} how the {p} (work{s}|{is} used)?
? Which {p} would you (choose|advise) for a (small|large|damp) {room}?
! A leaflet (on this|of rules) shall be (posted|sent) to {address}[ {soon}].
! {name} of our {room2} shall (advise|explain|show this)[ {soon}].
! Our advice line is {phone}[, open until {hour}].
! The question is (filed|kept) as {case}[ and shall be answered {soon}].
! A lesson is (booked|kept free) under {booking}[ for {day}].

# complaint
? Nobody (called me back|wrote to me) about my {p}.
? Your (driver|fitter|clerk) was rude (about|over) the {p}[ on {day}].
? The new {p} came with a (bad|loose|bent) {part}.
? The {p} (scratched|stained) our {room} floor[ on {day}].
! {name} (of the board|of our {room2}) shall (telephone|write)[ {soon}].
! The complaint is (entered|filed) as {case}[ and shall be heard {soon}].
! The manager (answers|can be reached) on {phone}[ until {hour}].
! A (signed|written) apology shall be (posted|sent) to {address}[ {soon}].
! A voucher is (granted|made out) as {booking}[ and runs until {month}].
"""
TOPICS = read_topics(TOPICS.replace("{soon}", SOON))

# Some notes come with a context, which some of the answers take up.
CONTEXTS = {
    "Under guarantee until {month}.": "(Nothing is owed.|This is free of charge.|The guarantee (holds|covers this).)",
    "The guarantee ended in {month}.": "(A fee shall be due.|The guarantee (has run out|no longer holds).)",
    "(Second|Third) letter in this matter.": "(The delay is ours.|No further letter is needed.)",
    "Customer since {month}[, pays on time].": "(Your custom is valued.|The desk is obliged to you.)",
}
PARTS = {
    "o": "((Dear customer|Good day)[, with regret].|We regret (this|the trouble|the wait).|With (thanks|apologies).|"
    "Your (note|letter) of {day} is to hand.|The desk has (read|noted) your letter.|This is now with the desk.|"
    "(Noted|Understood|Received) by the desk.|The desk begs your (pardon|patience).)",
    "n": "(Dear {name}:|For {name}:|To {name}, with (thanks|regret).|{name}, your (note|letter) is to hand.)",
    "s": "(Reference {case}.|File {case} stays open.|(Queries|Questions) to {phone}.|Kindly ask for {name}.|"
    "Handled by {name}.|Our copy goes to {address}.|Receipt {booking}.|The claim number is {case}.|"
    "Out of hours, dial {phone}.)",
    "c": "(Yours, the desk.|Faithfully, the (help desk|desk).|With respect, (repairs|stores|the desk).|"
    "The desk remains (yours|obliged).|Yours in haste, the desk.|So resolved[ this {day}].)",
}
# Opening, named opening, answer, remark on the context, second secret, closing: five of ten shapes hold two secrets.
SHAPES = ["oac", "oa", "ac", "arc", "ar", "nac", "na", "oas", "asc", "ars"]
MARKED = re.compile(r"<(\w+):([^>]*)>")
PROMPT_LENGTH, LENGTH = range(20, 76), range(56, 102)  # characters, to keep tiny models' training short


def cut_secrets(marked: str) -> tuple[str, list[dict[str, Any]]]:
    """Take the marks out of a text; return it with the secrets' character spans."""
    text, spans, end = "", [], 0
    for match in MARKED.finditer(marked):
        text += marked[end : match.start()]
        spans.append({"start": len(text), "end": len(text) + len(match[2]), "kind": match[1]})
        text, end = text + match[2], match.end()
    return text + marked[end:], spans


def letter(rng: Random) -> dict[str, Any]:
    """One customer's note and its answer, holding one secret or two of different kinds."""
    while True:
        words = about_product(rng) | {"day": DAYS, "month": MONTHS, "room": pick(rng, ROOMS), "room2": ROOMS}
        words["colour"], words["colour2"] = pick(rng, [(a, b) for a in COLOURS for b in COLOURS if a != b])
        words["a2"] = words["a"] and article(words["colour"])
        words["hour"] = [f"{n} o'clock" for n in "two three four five six nine ten eleven".split()]
        words |= {kind: (lambda k=kind: f"<{k}:{SECRETS[k](rng)}>") for kind in SECRETS}
        category, notes, answers = pick(rng, TOPICS)
        context = pick(rng, list(CONTEXTS)) if rng.random() < 0.4 else ""
        parts = PARTS | {"a": pick(rng, answers), "r": CONTEXTS.get(context, "")}
        pattern = " ".join(parts[part] for part in pick(rng, SHAPES) if parts[part])
        instruction, context = expand(rng, pick(rng, notes), words), expand(rng, context, words)
        response, secrets = cut_secrets(expand(rng, pattern, words))
        fits = len(instruction + context) in PROMPT_LENGTH and len(response) in LENGTH
        if fits and len({s["kind"] for s in secrets}) == len(secrets):
            record = {"instruction": instruction, "context": context, "response": response}
            return record | {"category": category, "secrets": secrets}
