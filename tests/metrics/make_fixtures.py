"""Tiny random encoders, and what bert-score says with them.

Run with transformers 4.57 and bert-score 0.3.13, as `.ci/transformers-4.57` installs them. Texts are our own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast, RobertaConfig, RobertaModel, RobertaTokenizerFast

FIXTURES = Path(__file__).parent / "fixtures"
ENCODERS = ("bert", "roberta")
LAYERS = 3
LENGTH = 40  # tokens that are read

PREDICTIONS = [
    "The sky is blue because air scatters blue light.",
    "the sky is blue",
    "",
    "  Sleep early, and drink water.  ",
    "I do not know!",
    "One, two, three, four, five and six birds sing in the tree. " * 4,
    "Zürich and Kraków are cities.",
    "A bird sings.",
]
REFERENCES = [
    "Air scatters blue light more than red light, so the sky is blue.",
    "The sky is blue.",
    "Drink water.",
    "Go to bed early; drink water, not tea.",
    "The capital of France is Paris.",
    "Six birds sing in the tree.",
    "Zürich is a city, and so is Kraków.",
    "The bird is singing a song in the old tree.",
]
SECOND_REFERENCES = [
    "Blue light is scattered.",
    "the sky is blue",
    "Sleep.",
    "Sleep early.",
    "I don't know.",
    "Birds sing.",
    "Both are cities.",
    "A bird sings.",
]
BASELINE = "LAYER,P,R,F\n0,0.1,0.11,0.12\n1,0.2,0.21,0.22\n2,0.3,0.31,0.32\n3,0.4,0.41,0.42\n"


def make_encoders() -> None:
    """Write the two checkpoints with all files that slow and fast tokenizers want."""
    texts = [*PREDICTIONS, *REFERENCES, *SECOND_REFERENCES]
    size = {"hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 32}
    size |= {"initializer_range": 0.4}  # of a trained one's kind: layers change what they read

    words = sorted({"".join(c for c in word if c.isalpha()) for text in texts for word in text.lower().split()})
    letters = sorted({letter for text in texts for letter in text.lower() if not letter.isspace()})
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = [word for word in words if word.isascii() and len(word) > 1 and not word.startswith("s")]
    vocabulary = list(dict.fromkeys([*specials, *letters, *(f"##{letter}" for letter in letters), *known]))
    folder = FIXTURES / "bert"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=LENGTH).save_pretrained(folder)
    torch.manual_seed(1)
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=LENGTH, **size)).save_pretrained(folder)

    folder = FIXTURES / "roberta"
    folder.mkdir(parents=True, exist_ok=True)
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    trained.save_model(str(folder))
    tokenizer = RobertaTokenizerFast(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=LENGTH, add_prefix_space=False
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(2)
    config = RobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=LENGTH + 2, pad_token_id=1, type_vocab_size=1, **size
    )
    RobertaModel(config).save_pretrained(folder)


def bert_score_says(encoder: str, layer: int, *, idf: bool, baseline: Path | None, several: bool) -> dict[str, object]:
    """Run the package once."""
    from bert_score import score

    references = [list(pair) for pair in zip(REFERENCES, SECOND_REFERENCES, strict=True)] if several else REFERENCES
    found = score(
        PREDICTIONS,
        references,
        model_type=str(FIXTURES / encoder),
        num_layers=layer,
        idf=idf,
        device="cpu",
        nthreads=0,
        batch_size=1,  # in a batch, it takes a similarity below 0 for 0 where the other text is not the longest
        lang="en",
        rescale_with_baseline=baseline is not None,
        baseline_path=None if baseline is None else str(baseline),
    )
    precision, recall, f1 = ([round(value, 7) for value in column.tolist()] for column in found)
    return {"precision": precision, "recall": recall, "f1": f1}


def main() -> None:
    """Make everything."""
    make_encoders()
    (FIXTURES / "baseline.tsv").write_text(BASELINE)
    cases = [
        {"encoder": encoder, "layer": layer, "idf": idf, "rescaled": rescaled, "several": several}
        for encoder in ENCODERS
        for layer, idf, rescaled, several in [
            (0, False, False, False),
            (1, False, False, False),
            (2, True, False, False),
            (LAYERS, False, True, False),
            (LAYERS, True, True, True),
        ]
    ]
    for case in cases:
        baseline = FIXTURES / "baseline.tsv" if case["rescaled"] else None
        case |= bert_score_says(
            case["encoder"], case["layer"], idf=case["idf"], baseline=baseline, several=case["several"]
        )
    texts = {"predictions": PREDICTIONS, "references": REFERENCES, "second_references": SECOND_REFERENCES}
    golden = json.dumps({**texts, "cases": cases}, indent=1, ensure_ascii=False)
    (FIXTURES / "bert_score.json").write_text(golden + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
