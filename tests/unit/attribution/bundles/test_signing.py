"""Signed bundles: made by whom, not only whole; refused before anything of them is parsed."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from wherefrom.attribution.bundles import signing
from wherefrom.attribution.bundles.signing import check_signature, make_keys, sign_bundle
from wherefrom.errors import BundleUnsigned, ConfigurationError, UnknownBundle


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private key and its public one."""
    pair = (tmp_path / "team.key", tmp_path / "team.pub")
    make_keys(*pair)
    return pair


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose manifest is signed; what the hashes say is the business of other tests."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_text("{not JSON at all")
    with monkeypatch.context() as unchecked:
        unchecked.setattr(signing, "read_manifest", lambda _: None)
        sign_bundle(folder, keys[0])
    return folder


def test_a_signature_of_an_accepted_key_is_taken(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """Also beside another accepted key, so that a key can be replaced without a gap; nothing is parsed."""
    check_signature(signed, [keys[1]])
    make_keys(tmp_path / "next.key", tmp_path / "next.pub")
    check_signature(signed, [tmp_path / "next.pub", keys[1]])
    check_signature(signed, [])


def test_a_private_key_is_its_owners_alone_and_never_replaced(keys: tuple[Path, Path]) -> None:
    """Mode 0600, and a second key needs another name."""
    assert [one.stat().st_mode & 0o777 for one in keys] == [0o600, 0o644]
    with pytest.raises(ConfigurationError, match="exists already"):
        make_keys(*keys)


def test_what_nobody_signed_is_refused(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """Another key, a changed manifest, a signature that is cut, garbage or gone."""
    make_keys(tmp_path / "other.key", tmp_path / "other.pub")
    with pytest.raises(BundleUnsigned, match="none of the 1 accepted keys"):
        check_signature(signed, [tmp_path / "other.pub"])
    signature = (signed / "manifest.sig").read_bytes()
    for wrong in (signature[:40], b"", b"?" * 88, b"\xff" * 64, b"A" * 88, signature * 50):
        (signed / "manifest.sig").write_bytes(wrong)
        with pytest.raises(BundleUnsigned):
            check_signature(signed, [keys[1]])
    (signed / "manifest.sig").unlink()
    with pytest.raises(BundleUnsigned, match=r"manifest\.sig is missing"):
        check_signature(signed, [keys[1]])
    (signed / "manifest.sig").write_bytes(signature)
    (signed / "manifest.json").write_text("{not JSON at  all")
    with pytest.raises(BundleUnsigned):
        check_signature(signed, [keys[1]])
    with pytest.raises(UnknownBundle):
        check_signature(tmp_path, [keys[1]])


def test_files_that_are_no_keys_are_told(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """A missing key, the private in place of the public one, another kind of key: the setting is wrong, not the bundle."""
    other = tmp_path / "rsa.pub"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    other.write_bytes(key.public_bytes(pem, form))
    for file in (tmp_path / "none", keys[0], other):
        with pytest.raises(ConfigurationError):
            check_signature(signed, [file])
