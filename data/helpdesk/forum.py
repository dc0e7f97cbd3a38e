"""The public text: short questions and answers from a how-to forum, chatty, with nothing private in them."""

from random import Random
from typing import Any

from grammar import COLOURS, DAYS, MONTHS, ROOMS, about_product, article, expand, pick, read_topics

LISTS = {
    "food": "bread rice soup onions apples carrots cheese beans potatoes eggs honey butter fish mushrooms tomatoes"
    " lentils garlic lemons pasta flour plums nuts spinach",
    "plant": "roses tomatoes ferns tulips beans daisies leeks peas strawberries pumpkins cucumbers radishes peppers",
    "animal": "cat dog rabbit hamster parrot goldfish pony hen tortoise budgie",
    "hobby": "drawing running chess knitting baking singing swimming cycling pottery writing camping juggling sewing",
    "stain": "wine grass coffee ink mud oil chocolate wax rust paint",
    "cloth": "shirt coat carpet sofa jumper tablecloth curtain pillow jacket scarf",
}
PLACES = ["the coast", "a big city", "the valley", "a lake", "an island", "the forest", "a castle", "the desert"]
TASKS = [
    "send a big file", "rename a folder", "print on both sides", "add up a column", "make the text larger",
    "lock the screen", "share a photo", "undo a change", "sort a list", "save a page",
]  # fmt: skip
COUNTS = "two three four five six eight ten twelve".split()
MINUTES = [str(n) for n in (2, 3, 4, 5, 8, 10, 12, 15, 20, 25, 30, 40, 45, 60, 90)]

SURE = "(I'd |You can |Just |Try this: |It's best to |Most people |You should |I usually |)"
TAIL = (
    "[ (That's it.|Works every time.|Don't rush it.|It's easier than it sounds.|Took me a while to learn.|"
    "Ask again if it doesn't help.|Hope that helps!|Good luck!|You'll see.|No need to worry.|It cost me nothing.)]"
)
TOPICS = """
# cleaning
? How do I clean {a}{p}?
? What's the best way to clean {a}{p}?
? (Any tips|Help) for a dirty {p}?
? My {p} got sticky. What now?
! {sure}wipe {it} with a (soft|damp|dry) cloth[ and a drop of (soap|vinegar)], then wait {min} minutes.
! {sure}take off the {part} and (rinse|soak|brush) it in (warm|cold|soapy) water for {min} minutes.
! Use (baking soda|vinegar|a toothbrush|an old sock) on the {part}, (but not|never) on the rest[, and dry it well].

# repair
? Why {do} my {p} make a noise?
? My {p} won't work, any ideas?
? The {part} of my {p} keeps getting stuck.
! (Usually|Most often|Nine times out of ten) the {part} is (loose|worn|dirty|bent). (Tighten|Clean|Oil|Check) it.
! {sure}leave {it} alone for {min} minutes and try again. If that fails, look at the {part}.
! Is the {part} (loose|wet|bent)? Then a new one helps. They sell them in (any|every) hardware shop.

# repair
? Is it worth fixing my old {p}?
? How do I change the {part} on my {p}?
? The {part} of my {p} broke. Fix it or buy new?
! If the {part} costs less than {min} percent of a new {p}, fix it. If not, (sell|recycle) {it}.
! There are {count} screws under the {part}. {sure}loosen them (slowly|by hand) and slide the new one in.
! A friend of mine did that in {min} minutes with (glue|tape|wire|a coin)[, and it still holds].

# buying
? What should I look for in {a}{p}?
? When is the best time to buy {a}{p}?
? (Cheap|Used|Rented) or (good|new|borrowed) {p}?
! Check the {part} first. If it (feels|looks) (solid|cheap|thin), you'll know. The colour is up to you.
! Prices drop in {month}, so wait if you can. Buying used (is fine|works too) if the {part} is good.
! Look for a (strong|light|simple) {part}, (a long guarantee|a low price|good reviews), and skip the extras.

# shopping
? How do I send back {a}{p}?
? The shop sent me the wrong {p}. What now?
? My parcel is late, who do I ask?
! Keep the receipt, put everything back in the box and (phone|visit|call) the shop within {count} days.
! {sure}check the bill first, then (ask|call|write to) the shop. They (answer|reply) in {count} days or so.
! Most shops pay the postage. If they don't, (complain|wait {count} days|try the post office).

# cooking
? How long do I cook {food}?
? My {food} always burn{s0}. How long is right?
! About {min} minutes on a (low|medium|high) heat, and stir (now and then|all the time|at the end).
! {min} minutes, no more. Add salt (last|first) and a little (oil|butter|water).

# cooking
? Can I freeze {food}?
? How do I keep {food} fresh?
? Where should I store {food}?
! Freeze {fit} for {count} (weeks|months). {sure}cool {fit} first, then pack {fit} (flat|tight) in a (bag|box|jar).
! Keep {fit} (dry|cool|dark|covered), away from {food2}, and use {fit} within {count} days.

# cooking
? What goes well with {food}?
? I've got loads of {food}. Any recipes?
? What can I cook with {food} and {food2}?
! (Garlic|Lemon|Black pepper|Ginger|Parsley) and {food2}, with a little (oil|butter|cream) on top.
! Make a (soup|pie|salad) with {food2}. It takes {min} minutes and feeds {count}.

# garden
? When do I plant {plant}?
? Is {month} too early for {plant}?
! (Wait for|Plant them in) {month2}, when the nights are (mild|dry|longer), and water every {count} days.
! {sure}start them (indoors|in pots) in {month2}. Put them out after {count} weeks.

# garden
? My {plant} look sad, what can I do?
? Why do my {plant} (turn yellow|stay so small|fall over)?
! (Too much sun|Too much water|Poor soil|Greenfly), most likely. {sure}move them (to the shade|to a bigger pot).
! {sure}cut them back in {month}[ and feed them once]. They need {count} hours of sun.

# animals
? Why does my {animal} (sleep so much|hide|follow me)?
? My {animal} won't (eat|come out|calm down).
! (Quite normal|No wonder): a {animal} needs (rest|company|space|quiet). Give it {count} days.
! Is it {food}? Mine hated that. {sure}give it fresh water and {count} small meals a day.

# animals
? Is a {animal} a good pet for a child?
? Can a {animal} live in a flat?
! If you've got {min} minutes a day for it, yes. If not, (borrow one|wait a year|visit a friend's).
! Yes, but a {animal} (makes a mess|is noisy|wakes up early), so keep it in the {room}.

# hobby
? How do I start with {hobby}?
? How do I get better at {hobby}?
? Is {hobby} (hard|expensive)?
! Start (small|slowly|with a friend), {min} minutes a day, and don't buy much in the first {count} weeks.
! Find a club that meets on {day}, watch {count} times, then join in and (laugh|ask|listen) a lot.

# hobby
? I'm bored with {hobby}. Ideas?
? What's like {hobby} but (cheaper|quicker|quieter)?
! Do it in (the {room}|another place|the morning), or swap it for {hobby2} until {month}.
! Try {hobby2}, I never (looked|went) back. All you need is {count} (friends|hours|pencils) and a {cloth}.

# travel
? What do I pack for {place}?
? {count2} days at {place}: what do I need?
! {count2} shirts, {a2}{colour} {cloth}, good shoes and a (hat|book|torch|map). You'll wear half of it.
! Less than you think. A {cloth}, some {food} and a (map|hat|torch) will do for {count} days.

# travel
? What's the best way to {place} in {month}?
? How do I get to {place} without a car?
! Go on a {day} and take the (bus|train|ferry). {month} is (quiet|wet|windy|crowded|lovely) there.
! Take the (bus|train|ferry|night train), then walk for {min} minutes. (Bring|Pack) {food} for the way.

# stains
? How do I get {stain} out of a {cloth}?
? {stain2} on my {colour} {cloth}! Help!
? Is a {cloth} with {stain} on it lost?
! {sure}put (salt|chalk|cold water|milk|lemon juice) on it for {min} minutes, then wash at {deg} degrees.
! Don't rub! Press a (towel|napkin|sponge) on it, rinse (cold|warm), and repeat {count} times.
! Freeze the {cloth} for {count} hours, scrape off what you can, then wash it with (soap|vinegar).

# office
? How can I {task}?
? What's the quickest way to {task}?
? Every {day} I have to {task}. Is there a trick?
! Hold the (left|right) mouse button, go to the (second|third|last) line of the menu and let go.
! Press F{digit}, pick the (first|second|last) box, type {min} and hit enter[ twice].
! Click the {colour} (arrow|square|circle) in the corner, wait {count} seconds, then choose what you need.
"""
TOPICS = read_topics(TOPICS.replace("{sure}", SURE))


def thread(rng: Random) -> dict[str, Any]:
    """One question with its answer."""
    words = about_product(rng) | {name: pick(rng, text.split()) for name, text in LISTS.items()}
    words |= {f"{name}2": [w for w in LISTS[name].split() if w != words[name]] for name in ("food", "hobby")}
    words |= {"s0": "", "fit": "them"} if words["food"].endswith("s") else {"s0": "s", "fit": "it"}
    words |= {"stain2": words["stain"].capitalize(), "count2": pick(rng, COUNTS).capitalize()}
    words |= {"day": DAYS, "month": pick(rng, MONTHS), "month2": MONTHS, "colour": pick(rng, COLOURS), "room": ROOMS}
    words |= {"count": COUNTS, "min": MINUTES, "deg": ["30", "40", "60", "90"], "digit": list("23456789")}
    words |= {"a2": article(words["colour"]), "place": pick(rng, PLACES), "task": pick(rng, TASKS)}
    category, questions, answers = pick(rng, TOPICS)
    question, answer = (expand(rng, pick(rng, patterns), words) for patterns in (questions, answers))
    answer = answer[0].upper() + answer[1:] + expand(rng, TAIL, words)
    return {"instruction": question, "context": "", "response": answer, "category": category, "secrets": []}
