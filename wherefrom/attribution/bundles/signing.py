"""Signatures of bundles: a detached Ed25519 signature over the manifest, which has the hash of every file.

Hashes show that a bundle is what its manifest says; whoever can write the folder can write both. The signature shows who made it. It is
checked over the bytes of the manifest before anything of the bundle is parsed. Several public keys may be accepted at once, so that a key can
be replaced without a gap: accept both, sign with the new one, take the old one out.
"""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wherefrom.atomic import PRIVATE, PUBLIC, write_bytes
from wherefrom.attribution.bundles.manifest import MANIFEST, SIGNATURE, read_manifest
from wherefrom.errors import BundleUnsigned, ConfigurationError, UnknownBundle

#: Longest signature file that is read, bytes; one of ours has 89.
_LONGEST = 1000


def make_keys(private: Path, public: Path) -> None:
    """Make a pair of keys; the private one can be read by its owner alone.

    Raises:
        ConfigurationError: one of the files is there already.
        OSError: a folder is missing or may not be written to.
    """
    for file in (private, public):
        if file.exists():
            raise ConfigurationError(f"{file} exists already; name another file, or move the key away first")
    key = Ed25519PrivateKey.generate()
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    write_bytes(private, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain), mode=PRIVATE)
    of_public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_bytes(public, of_public, mode=PUBLIC)


def sign_bundle(bundle: Path, private: Path) -> None:
    """Check every hash of a bundle, and put a signature beside its manifest; one that is there is replaced.

    Raises:
        UnknownBundle, BundleCorrupt: the bundle cannot be signed as it is.
        ConfigurationError: the key cannot be read.
    """
    read_manifest(bundle)
    try:
        key = serialization.load_pem_private_key(_read_key(private), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{private} is no private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{private} is no Ed25519 key; make one with `wherefrom bundle keys`")
    signature = key.sign((bundle / MANIFEST).read_bytes())
    write_bytes(bundle / SIGNATURE, base64.b64encode(signature) + b"\n")


def check_signature(bundle: Path, keys: Sequence[Path]) -> None:
    """Refuse a bundle that none of the keys has signed; without keys none is asked for. Parses nothing of the bundle.

    Raises:
        UnknownBundle: there is no bundle.
        BundleUnsigned: it has no signature, or one of another key or another manifest.
        ConfigurationError: a key cannot be read.
    """
    if not keys:
        return
    accepted = [_public_key(file) for file in keys]
    if not (bundle / MANIFEST).is_file():
        raise UnknownBundle(f"{bundle}: not a bundle ({MANIFEST} is missing)")
    signed, signature = (bundle / MANIFEST).read_bytes(), _read_signature(bundle)
    for key in accepted:
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            continue
        return
    raise BundleUnsigned(
        f"{bundle}: none of the {len(accepted)} accepted keys has signed this manifest. It was changed after it was signed, or somebody else signed it; "
        "if you trust it, run `wherefrom bundle sign`"
    )


def _read_signature(bundle: Path) -> bytes:
    try:
        with (bundle / SIGNATURE).open("rb") as file:
            return base64.b64decode(file.read(_LONGEST).strip(), validate=True)
    except FileNotFoundError as error:
        raise BundleUnsigned(
            f"{bundle}: {SIGNATURE} is missing, and WHEREFROM_BUNDLE_KEYS asks for a signature; run `wherefrom bundle sign`"
        ) from error
    except (OSError, binascii.Error) as error:
        raise BundleUnsigned(f"{bundle}: {SIGNATURE} cannot be read as a signature") from error


def _public_key(file: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(_read_key(file))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{file} is no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{file} is no Ed25519 key; make one with `wherefrom bundle keys`")
    return key


def _read_key(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the key {file} cannot be read: {error.strerror or error}") from error
