"""A certificate authority, certificates that it signs, and the files from which the server reads them."""

import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

DAY = datetime.timedelta(days=1)


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """Signs certificates for localhost. `path` is the file with its own."""

    def __init__(self, folder):
        self.folder, self.path, self.count = folder, folder / "ca.pem", 0
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
        self.certificate = (
            self.start(self.name, self.key.public_key(), 90)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def start(self, name, key, days):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(now - 2 * DAY)
            .not_valid_after(now + days * DAY)
        )

    def sign(self, days=89, host="localhost", kind="ecdsa"):
        """Gives the serial number, the certificate and the key."""
        if kind == "rsa":
            key = rsa.generate_private_key(65537, 2048)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        made = (
            self.start(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)]), key.public_key(), days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(authority, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return made.serial_number, made.public_bytes(serialization.Encoding.PEM), pem(key)


class Files:
    """The files of a certificate and its key."""

    def __init__(self, folder):
        self.certificate, self.key = folder / "chain.pem", folder / "key.pem"

    def write(self, certificate, key):
        """Replaces one file after the other, each by renaming another file."""
        for path, content in ((self.certificate, certificate), (self.key, key)):
            new = path.with_suffix(".new")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(content)
            os.rename(new, path)
