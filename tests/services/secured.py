"""Debian's Redis and PostgreSQL with TLS, on certificates that are made here: the embedded servers carry none."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.waiting import wait_until
from wherefrom.records import utc_now
from worker.embedded import free_port


@dataclass(frozen=True)
class Certificates:
    """Files of an authority, and of a server that it vouches for."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, *, name: str = "localhost") -> Certificates:
    """An authority of its own, and a certificate of a server on loopback under this name."""
    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
    authority = (
        _certificate(issuer, issuer, root.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(root, hashes.SHA256())
    )
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if name == "localhost":
        names.append(x509.IPAddress(ip_address("127.0.0.1")))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    served = (
        _certificate(subject, issuer, own.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(root, hashes.SHA256())
    )
    made = Certificates(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(served.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    made.key.chmod(0o600)
    return made


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = utc_now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


def find_debian_redis() -> Path | None:
    """A `redis-server` of the system that was built with TLS; None where there is none."""
    found = shutil.which("redis-server")
    if found is None:
        return None
    # Without a certificate it ends at once; one without TLS does not know the option.
    words = [found, "--port", "0", "--tls-port", "1", "--save", ""]
    said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20).stdout
    return Path(found) if "TLS" in said else None


def find_debian_postgres() -> Path | None:
    """The folder of the programs of the system's newest PostgreSQL; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda one: int(one.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def secured_redis(program: Path, folder: Path, *, acl: str) -> Iterator[int]:
    """A Redis that listens with TLS only, whose users are those of the ACL; its port."""
    made, port = make_certificates(folder), free_port()
    (folder / "users.acl").write_text(acl, encoding="ascii")
    words = [
        program, "--port", "0", "--tls-port", str(port), "--tls-cert-file", made.certificate, "--tls-key-file", made.key,
        "--tls-ca-cert-file", made.authority, "--tls-auth-clients", "no", "--aclfile", folder / "users.acl",
        "--dir", folder, "--save", "", "--appendonly", "no", "--logfile", folder / "redis.log",
    ]  # fmt: skip
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: "Ready to accept" in _read(folder / "redis.log"), 15, "Redis")
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def secured_postgres(programs: Path) -> Iterator[tuple[int, Certificates]]:
    """A PostgreSQL that takes connections over TLS only; its port, and its files."""
    home = Path(tempfile.mkdtemp(prefix="wherefrom-pgtls-"))
    user = "nobody" if os.geteuid() == 0 else None
    made, port = make_certificates(home), free_port()
    try:
        data = home / "data"
        data.mkdir(mode=0o700)
        if user is not None:
            owner = pwd.getpwnam(user)
            for one in (home, data, made.key, made.certificate):
                os.chown(one, owner.pw_uid, owner.pw_gid)
        words = ["-D", str(data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "-N"]
        subprocess.run(
            [str(programs / "initdb"), *words], user=user, cwd=home, check=True, capture_output=True
        )
        (data / "pg_hba.conf").write_text(
            "hostssl all all 127.0.0.1/32 trust\nhostnossl all all all reject\n"
        )
        given = {
            "ssl": "on", "ssl_cert_file": made.certificate, "ssl_key_file": made.key, "fsync": "off", "shared_buffers": "16MB",
            "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "20",
        }  # fmt: skip
        options = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(programs / "postgres"), "-D", str(data), "-p", str(port), *options],
                user=user,
                cwd=home,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(lambda: "ready to accept" in _read(home / "log"), 30, "PostgreSQL")
            yield port, made
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(20)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
