from llm_blender.types import Candidate, Example, LabelledPair


def labelled_row(prompt, texts, *pairs, **extra):
    """Make a row of texts with labelled pairs, each (a, b, label)."""
    return Example(
        prompt,
        candidates=tuple(map(Candidate, texts)),
        pairs=tuple(LabelledPair(*pair) for pair in pairs),
        extra=extra,
    )
