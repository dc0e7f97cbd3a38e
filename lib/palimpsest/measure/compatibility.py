"""What can be known of a study's models before anything is trained: from their configurations and tokenizers alone."""

from transformers import PreTrainedConfig

from palimpsest.errors import InputError
from palimpsest.measure.layers import cut_config, evenly
from palimpsest.measure.models import (
    CannotLoadError,
    check_same_tokenizer,
    context_length,
    load_config,
    load_tokenizer,
)
from palimpsest.study import Study
from palimpsest.study.files import locate

# What a configuration calls capping or scaling of logits after the output layer, and the values that leave them alone.
AFTER_OUTPUT_LAYER = {
    **dict.fromkeys(("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap"), (None, 0)),
    **dict.fromkeys(("logits_scaling", "logit_scale", "lm_head_multiplier"), (None, 1)),
}
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


def check_models(study: Study) -> list[str]:
    """Whether the models that a study names can be trained and compared as it asks. Loads no weights.

    Checked are models given by `path`: they are decoders, the students number tokens as the teacher does, `keep` is
    possible for the teacher's architecture, and no model changes its logits after its output layer.

    Returns:
        list[str]: What could not be checked (a hub id that can't be had now, an architecture of its own code), and what is worth
        knowing: the context length that limits the records, embeddings narrower than the tokenizer, mixtures of experts.

    Raises:
        InputError: what is wrong, every fault with the model it is in.
    """
    faults, notes, known = [], [], {}
    for size in ("teacher", *study.models.students):
        start, who = study.start(size), "the teacher" if size == "teacher" else f"student {size!r}"
        if not start.path:
            continue
        try:
            config = load_config(start.path, start.trust_remote_code, start.revision)
            tokenizer = load_tokenizer(start.path, start.trust_remote_code, start.revision)
        except CannotLoadError as error:
            here = locate(start.path).exists() or start.path.startswith("package:")
            (faults if here else notes).append(f"{who} could not be checked: {error}")
            continue
        except InputError as error:
            faults.append(f"{who}: {error}")
            continue
        known[size] = config, tokenizer
        faults += [f"{who} ({config.model_type}) {fault}" for fault in changed_logits(config)]
        notes += [f"{who} ({config.model_type}) {note}" for note in _worth_knowing(config, len(tokenizer))]
    teacher = study.models.teacher
    for size, start in study.models.students.items():
        try:
            if start.keep and teacher.scratch and teacher.scratch.layers <= start.keep:
                raise InputError(
                    f"the teacher has {teacher.scratch.layers} layer(s); wanted more than keep: {start.keep}"
                )
            if start.keep and teacher.trust_remote_code:
                notes.append(f"student {size!r}: whether keep fits the teacher's own code could not be checked")
            elif start.keep and "teacher" in known:
                config = known["teacher"][0]
                cut_config(config, evenly(getattr(config.get_text_config(), "num_hidden_layers", 0), start.keep))
            elif size in known and "teacher" in known:
                check_same_tokenizer(known["teacher"][1], known[size][1], size)
        except InputError as error:
            faults.append(f"student {size!r}: {error}")
    if faults:
        raise InputError(
            f"models of study {study.name}: {len(faults)} fault(s)\n" + "\n".join(f"  - {f}" for f in faults)
        )
    contexts = {size: context_length(config) for size, (config, _) in known.items()}
    contexts |= {size: m.scratch.context for size, m in study.models.students.items() if m.scratch}
    if len(set(contexts.values())) > 1:
        least = min(contexts, key=contexts.get)
        notes.append(f"records are limited to the shortest context, {contexts[least]} tokens of {least}")
    return notes


def changed_logits(config: PreTrainedConfig) -> list[str]:
    """How a model of this configuration changes its logits after its output layer; empty where it doesn't.

    A loss on hidden states can't follow that; `forward.check_output_layer` tries it on the model itself.
    """
    text = config.get_text_config()
    return [
        f"changes its logits after its output layer ({key} = {getattr(text, key)}); the losses here are computed from hidden "
        "states and would be wrong. Choose another model"
        for key, harmless in AFTER_OUTPUT_LAYER.items()
        if getattr(text, key, None) not in harmless
    ]


def _worth_knowing(config: PreTrainedConfig, tokens: int) -> list[str]:
    text, notes = config.get_text_config(), []
    experts = max((getattr(text, key, None) or 0 for key in EXPERTS), default=0)
    if experts > 1:
        notes.append(
            f"is a mixture of {experts} experts: its router is trained by the same loss, without one of its own"
        )
    if text.vocab_size < tokens:
        notes.append(
            f"has {text.vocab_size} embeddings for a tokenizer of {tokens} entries: a record that uses the rest is refused"
        )
    return notes
