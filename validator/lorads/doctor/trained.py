"""What the installed TRL trains, beside what lorads says that it trains."""

from __future__ import annotations

from typing import Any

from lorads.doctor.compare import SHOWN, Comparison, Reference, first_line, shown
from lorads.errors import UsageError
from lorads.findings import Severity
from lorads.formats import Columns, Misfit, normalise
from lorads.trainers import TrainOptions, get, own_options

Pair = tuple[list[int], list[int]]


def compare_trl(
    out: Comparison, answer: dict[str, Any], reference: Reference, kinds: dict[str, list[dict[str, Any]]]
) -> None:
    """Compare what the real trainer made of each row with lorads' labels, added to ``out``."""
    good, rows_compared = [], 0
    # ids that differ already without a trainer were told of: what is left is which of them are trained
    told = out.has("text-lost", "ids-differ", "judged-otherwise", "double-bos", "bos-added", "template-differs")
    for kind, rows in kinds.items():
        given = answer["kinds"][kind]
        if "error" in given:
            error = given["error"]
            out.trouble(
                "trainer-fails",
                Severity.ERROR,
                f"{out.name} stops at {kind} rows: {error['type']}: {first_line(error['message'])}",
                "Such a training does not start in this environment.",
                "Look for a version of TRL that goes with your transformers, and install that one.",
            )
            continue
        expected = _expected(reference, kind, rows)
        made = [(row["ids"], row["labels"]) for row in given["rows"]]
        if expected is None or len(made) != len(rows):
            if expected is not None:
                out.trouble(
                    "rows-dropped",
                    Severity.WARNING,
                    f"{out.name} keeps {len(made)} of {len(rows)} {kind} rows, lorads says {len(expected)}",
                    "Rows are missing from the training without a word.",
                    "Update TRL; `lorads check` reproduces its newest version.",
                )
            continue
        rows_compared += len(rows)
        if _tell(out, kind, list(zip(made, expected, strict=True)), reference, told):
            good.append(kind)
    out.measured["trained_rows"] = rows_compared
    if good:
        out.same.append(f"what is trained, in rows of {', '.join(good)}: as lorads says")


def _expected(reference: Reference, kind: str, rows: list[dict[str, Any]]) -> list[Pair] | None:
    """lorads' own ids and labels; None where it can't have any.

    Those of the newest TRL, whatever is installed: the older ones are reproduced with their faults.
    """
    trainer = get("trl")
    format_ = "messages" if kind == "messages" else "text" if kind == "text" else "prompt-completion"
    options = TrainOptions(max_length=trainer.default_max_length, own=own_options(trainer, {}))
    understood = [row for row in normalise(rows, format_, Columns({})) if not isinstance(row, Misfit)]
    try:
        labels = trainer.prepare(reference.tokenizer, reference.template, options).label(understood)
    except UsageError:
        return None
    fed = [labels.fed(i) for i in range(len(understood))]
    return [pair for pair in fed if pair is not None] if len(understood) == len(rows) else None


def _tell(out: Comparison, kind: str, rows: list[tuple[Pair, Pair]], reference: Reference, told: bool) -> bool:
    """Tell of the first row of a kind that differs; whether none does."""
    for (ids, labels), (own_ids, own_labels) in rows:
        trained, own_trained = [label != -100 for label in labels], [label != -100 for label in own_labels]
        if ids == own_ids and trained == own_trained:
            continue
        text, own_text = _read(reference, labels), _read(reference, own_labels)
        example = (("trained here", shown(text)), ("by lorads", shown(own_text)))
        surplus = sum(trained) - sum(own_trained)
        if ids != own_ids and not told:
            out.trouble(
                "row-ids-differ",
                Severity.WARNING,
                f"{out.name} builds other ids than lorads from {kind} rows",
                "`lorads check` judges other rows than you train on, by some tokens each.",
                "Update TRL: `lorads check` reproduces its newest version.",
                (("here", _edges(reference, ids)), ("by lorads", _edges(reference, own_ids))),
            )
            return False
        if kind.startswith("prompt") and _starts_early(trained, own_trained):
            prompt = len(ids) - (len(own_ids) - own_trained.index(True))
            example = (
                ("prompt, trained", _tail(_read(reference, labels[:prompt]))),
                ("to be trained", shown(own_text)),
            )
            out.trouble(
                "prompt-trained",
                Severity.ERROR,
                f"{out.name} trains the prompt in {kind} rows: {sum(trained)} of {len(ids)} tokens are trained, "
                f"lorads says {sum(own_trained)}",
                "The model learns to write the user's turn too, and the loss is mostly about text that you didn't "
                "want to train.",
                "Update TRL and transformers together.",
                example,
            )
            return False
        if ids == own_ids:
            out.trouble(
                "labels-differ",
                Severity.WARNING,
                f"{out.name} trains {abs(surplus)} tokens {'more' if surplus >= 0 else 'fewer'} than lorads says in a "
                f"row of {kind}",
                "`lorads check` judges other labels than you train on.",
                "Update TRL: `lorads check` reproduces its newest version.",
                example,
            )
            return False
    return True


def _starts_early(trained: list[bool], own_trained: list[bool]) -> bool:
    """Whether training begins well inside the prompt; ids that differ a little don't hide it."""
    if not (any(trained) and any(own_trained)):
        return False
    first, own_first = trained.index(True), own_trained.index(True)
    return first < own_first // 2 and own_first - first > 2


def _tail(text: str) -> str:
    return text if len(text) <= SHOWN else "…" + text[1 - SHOWN :]


def _read(reference: Reference, labels: list[int]) -> str:
    numbers = [label for label in labels if label != -100]
    try:
        return reference.file.decode(numbers)
    except KeyError:
        return " ".join(map(str, numbers))


def _edges(reference: Reference, ids: list[int]) -> str:
    try:
        text = reference.file.decode(ids)
    except KeyError:
        text = " ".join(map(str, ids))
    return text if len(text) <= 70 else f"{text[:40]} … {text[-28:]}"
