"""Keys for a Flower deployment on one machine: its own certificate authority, a server, its nodes.

For several hosts the same steps with `openssl` and `ssh-keygen` are on the page about deployment.
"""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID = datetime.timedelta(days=30)
_PEM, _PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()


def write_server(folder: Path) -> None:
    """Write ca.crt, server.pem and server.key: a certificate for 127.0.0.1 and localhost, and who signed it.

    The authority's own key is not kept, so that nobody can sign with it later.
    """
    authority, server = _key(), _key()
    ca = _certificate("ouikit authority", authority, "ouikit authority", authority, authority_itself=True)
    own = _certificate("localhost", server, "ouikit authority", authority)
    (folder / "ca.crt").write_bytes(ca.public_bytes(_PEM))
    (folder / "server.pem").write_bytes(own.public_bytes(_PEM))
    _write_secret(folder / "server.key", server, serialization.PrivateFormat.PKCS8)


def write_node(folder: Path, name: str) -> None:
    """Write an ECDSA key pair as `ssh-keygen` does: `name` and `name.pub`."""
    key = _key()
    _write_secret(folder / name, key, serialization.PrivateFormat.OpenSSH)
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(*form))


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    authority_itself: bool = False,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    unsigned = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=authority_itself, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    )
    return unsigned.sign(issuer_key, hashes.SHA384())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _write_secret(path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> None:
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(_PEM, form, _PLAIN))
