"""Which tokens end a model's text: from its generation configuration, its chat template and its tokenizer, or as told."""

from palimpsest.data.chat import end_of_turn
from palimpsest.errors import InputError


def end_tokens(model, tokenizer, template: str | None = None, given: str | None = None) -> dict[int, str]:
    """The ids that end a text, each with where it was found: in the chat template, the tokenizer, the generation configuration.

    Args:
        template: a chat template as Jinja text; None: the tokenizer's own, if it has one.
        given: the text of an end token; it comes first.

    Raises:
        InputError: `given` is not one token of this tokenizer.
    """
    found: list[tuple[int, str]] = []
    if given is not None:
        ids = tokenizer(given, add_special_tokens=False)["input_ids"]
        # An unknown text may be one "unknown" token.
        if len(ids) != 1 or tokenizer.decode(ids).strip() != given.strip():
            raise InputError(
                f"the end token {given!r} is {len(ids)} token(s) of this tokenizer ({tokenizer.convert_ids_to_tokens(ids)}); wanted "
                "one, such as <|im_end|>, as the tokenizer writes it"
            )
        found.append((ids[0], "as given"))
    turn = tokenizer(end_of_turn(tokenizer, template), add_special_tokens=False)["input_ids"]
    if turn and (len(turn) == 1 or turn[0] in tokenizer.added_tokens_decoder):
        found.append((turn[0], "chat template"))
    found.append((tokenizer.eos_token_id, "tokenizer"))
    listed = getattr(model.generation_config, "eos_token_id", None)
    listed = listed if isinstance(listed, list) else [listed]
    found += [(token, "generation configuration") for token in listed if token is not None]
    known: dict[int, str] = {}
    for token, where in found:
        known[token] = f"{known[token]}, {where}" if token in known else where
    return known
