"""Postfix and OpenSMTPD, as Debian builds them and unpacked by ./test, each for the length of a test.

Both begin as root, under users of their own and in fixed folders. They get a mount namespace in which these exist, so that
nothing is installed and nothing remains."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest
from server import free_port

USERS = {"postfix": 64800, "opensmtpd": 64801, "opensmtpq": 64802, "postdrop": 64803}

NAMESPACE = r"""
set -eu
mount --make-rprivate /
for file in passwd group; do mount --bind "$1/$file" /etc/$file; done
mount --bind "$2" "$1/program"
for folder in lib spool; do mount --bind "$1/$folder" /var/$folder; done
mount -t tmpfs none /run
shift 2
exec "$@"
"""

POSTFIX = """
compatibility_level = 3.6
queue_directory = {here}/spool/postfix
data_directory = {here}/lib/postfix
command_directory = {here}/program/usr/sbin
daemon_directory = {here}/program/usr/lib/postfix/sbin
shlib_directory = {here}/program/usr/lib/postfix
meta_directory = {here}/program/etc/postfix
maillog_file = {here}/spool/log
maillog_file_prefixes = {here}
import_environment = MAIL_CONFIG LD_LIBRARY_PATH MAIL_LOGTAG POSTLOG_SERVICE POSTLOG_HOSTNAME
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.example.com
mydestination =
relay_domains = example.com
relay_recipient_maps = inline:{{ann@example.com=here}}
relay_transport = smtp:[127.0.0.1]:{onward}
smtp_host_lookup = native
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = {here}/certificate
smtpd_tls_key_file = {here}/key
smtpd_helo_required = yes
smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname
smtpd_sender_restrictions = check_sender_access inline:{{stranger@example.com=REJECT}}
smtpd_relay_restrictions = reject_unauth_destination
"""

POSTFIX_SERVICES = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
"""

OPENSMTPD = """
table known {{ "ann@example.com" }}
listen on 127.0.0.1 port {port} hostname mail.example.com
action "onward" relay host "smtp://127.0.0.1:{onward}"
match from any for rcpt-to <known> action "onward"
"""


@contextlib.contextmanager
def _running(programs, name, port, command, prepare):
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if subprocess.run([*as_root, "unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("mail servers begin as root, in a mount namespace: run this as root or with sudo")
    here = pathlib.Path(tempfile.mkdtemp(prefix="mail-"))
    here.chmod(0o755)
    process = None
    try:
        for folder in ["program", "lib/opensmtpd/empty", "lib/postfix", "spool/postfix"]:
            (here / folder).mkdir(parents=True)
        for file, line in [("passwd", "{0}:x:{1}:{1}::/nonexistent:/bin/false\n"), ("group", "{0}:x:{1}:\n")]:
            users = "".join(line.format(*user) for user in USERS.items())
            users = users.replace("opensmtpd::/nonexistent", "opensmtpd::/var/lib/opensmtpd/empty")
            (here / file).write_text(pathlib.Path("/etc", file).read_text() + users)
        prepare(here)
        program = pathlib.Path(programs, name)
        words = [word.format(here=here) for word in command]
        process = subprocess.Popen(
            [*as_root, "unshare", "-m", "sh", "-c", NAMESPACE, name, here, program, *words],
            stdout=open(here / "out", "wb"), stderr=subprocess.STDOUT,
        )
        _awaited(process, port, here)
        yield f"127.0.0.1:{port}"
    finally:
        if process:
            # sudo passes the signal on.
            process.send_signal(signal.SIGTERM)
            process.wait()
        subprocess.run([*as_root, "rm", "-rf", here], check=True) if as_root else shutil.rmtree(here)


def _awaited(process, port, here):
    began = time.time()
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
            if probe.recv(4).startswith(b"220"):
                return
        told = (here / "out").read_text(errors="replace")
        assert process.poll() is None and time.time() - began < 30, told
        time.sleep(0.05)


@contextlib.contextmanager
def postfix(programs, onward):
    """Takes what is for ann@example.com, from clients with TLS and a full host name in EHLO, and passes it on. The sender
    stranger@example.com and recipients elsewhere are refused."""
    port = free_port()

    def prepare(here):
        (here / "config").mkdir()
        (here / "config/main.cf").write_text(POSTFIX.format(here=here, onward=onward))
        (here / "config/master.cf").write_text(POSTFIX_SERVICES.format(port=port))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=debian",
             "-keyout", here / "key", "-out", here / "certificate"],
            check=True, capture_output=True,
        )
        (here / "key").chmod(0o600)
        for folder in "active bounce corrupt defer deferred flush hold incoming private saved trace public maildrop pid".split():
            (here / "spool/postfix" / folder).mkdir()

    own = (
        "cd {here}/spool/postfix && chown -R root:root {here}/config {here}/key && chmod -R go-w {here}/config"
        " && chown postfix active bounce corrupt defer deferred flush hold incoming private saved trace {here}/lib/postfix"
        " && chown postfix:postdrop public maildrop && chmod 710 public && chmod 730 maildrop"
        " && exec env MAIL_CONFIG={here}/config LD_LIBRARY_PATH={here}/program/usr/lib/postfix"
        " {here}/program/usr/lib/postfix/sbin/master -c {here}/config -s"
    )
    with _running(programs, "postfix", port, ["sh", "-c", own], prepare) as place:
        yield place


@contextlib.contextmanager
def opensmtpd(programs, onward):
    """Takes what is for ann@example.com, without TLS, and passes it on."""
    port = free_port()

    def prepare(here):
        (here / "smtpd.conf").write_text(OPENSMTPD.format(port=port, onward=onward))
        (here / "smtpd.conf").chmod(0o600)

    own = (
        "chown root:root {here}/smtpd.conf {here}/lib/opensmtpd/empty"
        " && exec {here}/program/usr/sbin/smtpd -d -f {here}/smtpd.conf"
    )
    with _running(programs, "opensmtpd", port, ["sh", "-c", own], prepare) as place:
        yield place
