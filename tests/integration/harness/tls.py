"""Certificates made with openssl(1) as a test needs them, and what speaks TLS in tests."""

import datetime
import pathlib
import ssl
import subprocess

from .resp import RawClient
from .servers import RedisServer, free_port


def _openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, f"openssl {arguments[0]}: {done.stderr}"


class Certificate:
    def __init__(self, path, ca):
        self.cert, self.key, self.ca = f"{path}.crt", f"{path}.key", ca


class Authority:
    """A CA in a directory of its own."""

    def __init__(self, directory, name="test-ca"):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.key, self.cert = self.directory / "ca.key", self.directory / "ca.crt"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                 "-nodes", "-keyout", self.key, "-out", self.cert, "-days", 30,
                 "-subj", f"/CN={name}")

    def issue(self, name, names="DNS:localhost,IP:127.0.0.1", days=30, password=None):
        """A certificate /CN=name for these subject names; days -1: it has expired."""
        path = self.directory / name
        key_options = ["-passout", f"pass:{password}"] if password else ["-nodes"]
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *key_options,
                 "-keyout", f"{path}.key", "-out", f"{path}.csr", "-subj", f"/CN={name}")
        extensions = pathlib.Path(f"{path}.ext")
        extensions.write_text(f"subjectAltName={names}\n")
        _openssl("x509", "-req", "-in", f"{path}.csr", "-CA", self.cert, "-CAkey", self.key,
                 "-CAcreateserial", "-days", days, "-extfile", extensions, "-out", f"{path}.crt")
        return Certificate(path, str(self.cert))

    def shorten(self, certificate, seconds):
        """A certificate for the same key that ends so soon, and when that is (Unix time)."""
        path = certificate.cert.removesuffix(".crt")
        end = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        end += datetime.timedelta(seconds=seconds)
        (self.directory / "index.txt").write_text("")
        config = self.directory / "ca.cnf"
        config.write_text(f"""[ca]
default_ca = this
[this]
database = {self.directory}/index.txt
rand_serial = yes
new_certs_dir = {self.directory}
default_md = sha256
policy = names
[names]
commonName = supplied
""")
        _openssl("ca", "-batch", "-notext", "-config", config, "-in", f"{path}.csr", "-out",
                 f"{path}.crt", "-cert", self.cert, "-keyfile", self.key, "-enddate",
                 end.strftime("%Y%m%d%H%M%SZ"))
        return certificate, end.timestamp()


def redis_options(certificate, port, *, auth="yes"):
    """What makes a redis-server listen on port with TLS."""
    return [("tls-port", port), ("tls-cert-file", certificate.cert),
            ("tls-key-file", certificate.key), ("tls-ca-cert-file", certificate.ca),
            ("tls-auth-clients", auth)]


class TlsRedis(RedisServer):
    """A server with a plain port, by which the test controls it, and one with TLS."""

    def __init__(self, directory, certificate, options=(), *, auth="yes", **keywords):
        self.tls_port = free_port()
        super().__init__(directory,
                         redis_options(certificate, self.tls_port, auth=auth) + list(options),
                         **keywords)

    def tls_url(self, host="127.0.0.1"):
        return f"rediss://{host}:{self.tls_port}"


def client_context(ca, certificate=None, version=None):
    context = ssl.create_default_context(cafile=str(ca))
    if certificate is not None:
        context.load_cert_chain(certificate.cert, certificate.key)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class TlsClient(RawClient):
    """A RawClient by TLS. session: one to resume."""

    def __init__(self, address, context, protocol=2, *, host="localhost", session=None, **keywords):
        super().__init__(address, 2, **keywords)
        try:
            self.socket = context.wrap_socket(self.socket, server_hostname=host, session=session)
            if protocol == 3:
                self.ok("HELLO", 3)
        except BaseException:
            self.socket.close()
            raise

    def peer_name(self):
        """The CN of the certificate that the server showed."""
        subject = self.socket.getpeercert()["subject"]
        return dict(pair for part in subject for pair in part)["commonName"]
