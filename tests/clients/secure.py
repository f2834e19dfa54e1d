"""A server with a certificate of its own, and its clients."""

import http.client
import pathlib
import ssl

from certificates import Files
from cryptography import x509
from server import Server, free_port


class Secure(Server):
    """A server with a certificate. `served` is the serial number of the first one."""

    def __init__(self, folder, authority, more=None):
        port = free_port()
        self.files, self.authority, self.url_seen = Files(folder), authority, f"https://localhost:{port}"
        self.served = self.renew()
        settings = {
            "PALISADE_SERVER__PUBLIC_URL": self.url_seen,
            "PALISADE_SERVER__TLS__CERTIFICATE": str(self.files.certificate),
            "PALISADE_SERVER__TLS__KEY": str(self.files.key),
        }
        super().__init__(folder, settings | (more or {}), port)

    def renew(self, **how):
        serial, certificate, key = self.authority.sign(**how)
        self.files.write(certificate, key)
        return serial

    def connect(self):
        context = ssl.create_default_context(cafile=str(self.authority.path))
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=10, context=context)
        connection.connect()
        return connection

    def seen(self):
        """The serial number of the certificate that a new connection gets."""
        connection = self.connect()
        shown = x509.load_der_x509_certificate(connection.sock.getpeercert(binary_form=True))
        connection.close()
        return shown.serial_number

    def log(self):
        return (pathlib.Path(self.directory) / "log").read_text()
