"""TLS identities: the technician's authority, the broker's certificate, and one certificate for each hub.

The authority is a folder on the technician's own machine. A hub makes its private key itself and asks for a
certificate with a request; the certificate's common name is the hub's identity, and that is its user name at the
broker, which gives it its own topics and no others (deploy/mosquitto). EC keys on P-256, X.509 v3 (RFC 5280).
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hub.identity import write_private

CA_DAYS = 3650
BROKER_DAYS = 825
HUB_DAYS = 398
RENEW_DAYS = 30  # before the end a technician is told to renew
STATION = "station"
_HUB = re.compile(r"[0-9a-f]{16}")
_SKEW = datetime.timedelta(hours=1)  # a hub whose clock is a little late must not refuse a new certificate

CA_KEY, CA_CERT, CRL = "ca.key", "ca.pem", "crl.pem"


class CertificateError(Exception):
    """It cannot be made or used; the text is one line that says what to do."""


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


# --- the authority ----------------------------------------------------------------------------------------------


def make_authority(folder: Path) -> None:
    """A new authority with an empty list of revoked certificates. Raises CertificateError where there is one."""
    if (folder / CA_KEY).exists():
        raise CertificateError(f"{folder} has an authority already; a new one would lock every hub out")
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tocsin authority")])
    builder = _builder(name, name, key.public_key(), CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(
        x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        ),
        critical=True,
    )  # fmt: skip
    _write_key(folder / CA_KEY, key)
    _write(folder / CA_CERT, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    _write_crl(folder, [])


def sign_hub(folder: Path, request: bytes, days: int = HUB_DAYS) -> bytes:
    """A hub's certificate (PEM) for its request. Raises CertificateError."""
    try:
        asked = x509.load_pem_x509_csr(request)
        proved = asked.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as problem:
        raise CertificateError("that is no certificate request: make one with tocsin-hub identity request") from problem
    if not proved:
        raise CertificateError("the request is not signed by its own key: it was altered on the way")
    name = _common_name(asked.subject)
    if not _HUB.fullmatch(name):
        raise CertificateError(f"the request is for {name!r}, which is no hub: 16 hexadecimal digits are")
    return _issue(folder, name, asked.public_key(), days, ExtendedKeyUsageOID.CLIENT_AUTH, [])  # type: ignore[arg-type]


def make_pair(folder: Path, name: str, hosts: list[str], days: int = BROKER_DAYS) -> tuple[Path, Path]:
    """Key and certificate for the broker (with its names and addresses) or the station (without any)."""
    key = ec.generate_private_key(ec.SECP256R1())
    usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    certificate = _issue(folder, name, key.public_key(), days, usage, hosts)
    _write_key(folder / f"{name}.key", key)
    _write(folder / f"{name}.pem", certificate)
    return folder / f"{name}.key", folder / f"{name}.pem"


def revoke(folder: Path, certificate: bytes) -> str:
    """Put a certificate on the list of revoked ones; gives its name. The broker has to read the list again."""
    found = load(certificate)
    revoked = [entry.serial_number for entry in x509.load_pem_x509_crl((folder / CRL).read_bytes())]
    _write_crl(folder, [*revoked, found.serial_number])
    return _common_name(found.subject)


def _issue(
    folder: Path,
    name: str,
    public: ec.EllipticCurvePublicKey,
    days: int,
    usage: x509.ObjectIdentifier,
    hosts: list[str],
) -> bytes:
    key, authority = _authority(folder)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, authority.subject, public, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), None)
        return key, load((folder / CA_CERT).read_bytes())  # type: ignore[return-value]
    except OSError as problem:
        raise CertificateError(
            f"{folder}: no authority there ({problem.strerror}); make one with tocsin-hub ca init"
        ) from problem
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise CertificateError(f"{folder / CA_KEY}: damaged") from problem


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _write_crl(folder: Path, serials: list[int]) -> None:
    key, authority = _authority(folder)
    now = _now()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - _SKEW)
        .next_update(now + datetime.timedelta(days=CA_DAYS))  # one that has run out would lock everybody out
    )
    for serial in dict.fromkeys(serials):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    _write(folder / CRL, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


# --- a hub's own side -------------------------------------------------------------------------------------------


def request(key_file: Path, hub_id: bytes) -> bytes:
    """A request (PEM) for this hub's certificate; its private key is made where there is none."""
    try:
        if not key_file.exists():
            key_file.parent.mkdir(parents=True, exist_ok=True)
            _write_key(key_file, ec.generate_private_key(ec.SECP256R1()))
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    except OSError as problem:
        raise CertificateError(f"{key_file}: {problem.strerror}") from problem
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise CertificateError(f"{key_file}: is no private key; remove it to have a new one made") from problem
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hub_id.hex())])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def install(certificate: bytes, target: Path, key_file: Path, hub_id: bytes) -> None:
    """Take a certificate into use, if it is this hub's. Raises CertificateError, and leaves the old one then."""
    found = load(certificate)
    if problem := problem_of(found, key_file, hub_id):
        raise CertificateError(problem)
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, certificate)


def problem_of(certificate: x509.Certificate, key_file: Path, hub_id: bytes) -> str:
    """What is wrong with a certificate for this hub, in words; "" for nothing."""
    name = _common_name(certificate.subject)
    if name != hub_id.hex():
        return f"this certificate is for {name}, and this hub is {hub_id.hex()}: ask for one with identity request"
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    except (OSError, ValueError, UnsupportedAlgorithm):
        return f"{key_file}: no private key there: ask for a certificate with identity request"
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        return f"this certificate belongs to another key than {key_file}: ask for a new one with identity request"
    left = days_left(certificate)
    if left < 0:
        return f"this certificate ended {-left:.0f} days ago: renew it with identity request"
    if certificate.not_valid_before_utc > _now():
        return "this certificate is not valid yet: is the clock right?"
    return ""


def days_left(certificate: x509.Certificate) -> float:
    """Days until it ends."""
    return (certificate.not_valid_after_utc - _now()).total_seconds() / 86_400


def load(text: bytes) -> x509.Certificate:
    """A certificate from PEM. Raises CertificateError."""
    try:
        return x509.load_pem_x509_certificate(text)
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise CertificateError("that is no certificate in PEM") from problem


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(path, text)


def _write(path: Path, content: bytes) -> None:
    try:
        write_private(path, content)
    except OSError as problem:
        raise CertificateError(f"{path}: {problem.strerror}") from problem
    if not path.name.endswith(".key"):
        path.chmod(0o644)
