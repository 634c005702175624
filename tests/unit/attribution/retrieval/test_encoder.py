"""The sentence encoder: pooling, order, what is refused, and a bundle that carries one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from tests.tiny import (
    build,
    changed_json,
    shared_corpus,
    shared_micro_model,
    write_encoder,
)
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.retrieval.encoder import POOLING, SentenceEncoder
from wherefrom.errors import BundleCorrupt, UnsafeWeights, UnusableModel
from wherefrom.records import Message, Query, Role

TEXTS = ["The refund is on its way.", "", "Charge the battery overnight, always.", "refund"]


@pytest.fixture
def encoder_dir(tmp_path: Path) -> Path:
    """A small encoder with random weights, as transformers saves it."""
    return write_encoder(tmp_path / "small-encoder")


def test_embedding_is_the_mean_of_the_last_states(encoder_dir: Path) -> None:
    """A plain loop over single texts, mean and unit length."""
    model = transformers.BertModel.from_pretrained(str(encoder_dir)).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(encoder_dir))
    found = SentenceEncoder.load(encoder_dir).embed(TEXTS)
    assert found.shape == (4, 32)
    assert found.dtype == np.float32
    for text, vector in zip(TEXTS, found, strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        if not ids.shape[1]:
            assert not vector.any()
            continue
        with torch.no_grad():
            mean = model(ids).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)


def test_long_text_is_cut(encoder_dir: Path) -> None:
    """At the encoder's positions, and at the shorter length that its folder states."""
    encoder = SentenceEncoder.load(encoder_dir)
    assert np.isfinite(encoder.embed(["refund " * 500])).all()
    (encoder_dir / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 2}))
    short = SentenceEncoder.load(encoder_dir)
    first, second = short.embed(["refund refund battery and more", "refund refund"])
    np.testing.assert_allclose(first, short.embed(["refund refund battery"])[0], atol=1e-6)
    assert second.shape == (32,)


def test_first_token(encoder_dir: Path) -> None:
    """A folder that asks for the first token gets it."""
    mean = SentenceEncoder.load(encoder_dir).embed(TEXTS[:1])
    (encoder_dir / POOLING).parent.mkdir()
    (encoder_dir / POOLING).write_text(json.dumps({"pooling_mode_cls_token": True}))
    first = SentenceEncoder.load(encoder_dir).embed(TEXTS[:1])
    assert not np.allclose(mean, first, atol=1e-3)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (POOLING, {"pooling_mode_lasttoken": True}, "pooling_mode_lasttoken"),
        (
            POOLING,
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "pooling_mode_mean_tokens",
        ),
        ("modules.json", [{"type": "sentence_transformers.models.Dense"}], "Dense"),
    ],
)
def test_other_poolings_are_refused(encoder_dir: Path, file: str, content: object, said: str) -> None:
    """The mean in place of what the encoder was trained with would be another encoder."""
    (encoder_dir / file).parent.mkdir(exist_ok=True)
    (encoder_dir / file).write_text(json.dumps(content))
    with pytest.raises(UnusableModel, match=said):
        SentenceEncoder.load(encoder_dir)


def test_what_is_refused(encoder_dir: Path) -> None:
    """No folder, code of its own, another kind of model's weights, pickles."""
    with pytest.raises(UnusableModel, match="away: model folder not found"):
        SentenceEncoder.load(encoder_dir / "away")
    changed_json(encoder_dir / "config.json", {"hidden_size": 64})
    with pytest.raises(UnusableModel, match=r"cannot be loaded as a sentence encoder|lack"):
        SentenceEncoder.load(encoder_dir)
    changed_json(encoder_dir / "config.json", {"auto_map": {"AutoModel": "evil.Model"}})
    with pytest.raises(UnsafeWeights, match="asks to run its own code"):
        SentenceEncoder.load(encoder_dir)
    (encoder_dir / "model.safetensors").rename(encoder_dir / "pytorch_model.bin")
    with pytest.raises(UnsafeWeights, match="safetensors only"):
        SentenceEncoder.load(encoder_dir)


def test_bundle_carries_its_encoder(encoder_dir: Path, tmp_path: Path) -> None:
    """The encoder's own score is stored, its nearest row is a candidate, and the bundle needs the first folder no longer."""
    out = tmp_path / "bundle"
    manifest = build(shared_micro_model(), shared_corpus(40), out, encoder=encoder_dir, candidates=12)
    assert manifest.parameters.encoder == "small-encoder"
    encoder_dir.rename(tmp_path / "moved")
    bundle = open_bundle(out, ModelFolders(shared_micro_model()))
    attributor = LanguageAttributor(bundle)
    row = bundle.texts.read([7])[0]
    query = Query(key="q", turns=(Message(role=Role.USER, content=row.prompt),), completion=row.completion)
    prepared = attributor.prepare(query, max_tokens=200, over_long="truncate")
    citations = attributor.attribute([prepared], top_k=12, opponents=0)[0].citations
    assert citations[0].example.row == 7
    assert citations[0].encoder_score == pytest.approx(1.0, abs=1e-4)
    assert bundle.encoded is not None
    own = bundle.encoded.encoder.embed([f"{row.prompt}\n{row.completion}"])[0]
    for citation in citations:
        assert citation.encoder_score == pytest.approx(
            float(bundle.encoded.vectors[citation.example.row] @ own), abs=1e-4
        )
    other = build(shared_micro_model(), shared_corpus(40), tmp_path / "plain", candidates=12)
    assert other.name != manifest.name
    assert other.parameters.encoder is None


def test_changed_encoder_is_noticed(encoder_dir: Path, tmp_path: Path) -> None:
    """The bundle's copy is part of its hashes."""
    out = tmp_path / "bundle"
    build(shared_micro_model(), shared_corpus(40), out, encoder=encoder_dir)
    changed_json(out / "encoder" / "config.json", {"hidden_act": "relu"})
    with pytest.raises(BundleCorrupt, match=r"encoder/config\.json has changed"):
        read_manifest(out)
