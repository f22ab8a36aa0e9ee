#!/bin/bash
# librdkafka has one text for every broker certificate that does not hold: expired, for another name, signed by a stranger.
# It advises to look at ssl.ca.location each time, also where the authority is right and the certificate has expired.
# Python's ssl, with the same files, tells the three apart. Exits with 1 if that changes.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check confluent-kafka==2.16.1 cryptography==50.0.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import datetime as dt
import ipaddress
import re
import socket
import ssl
import sys
import threading

import confluent_kafka
from confluent_kafka.admin import AdminClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOUR, NOW = dt.timedelta(hours=1), dt.datetime.now(dt.UTC)


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def authority(text):
    key = ec.generate_private_key(ec.SECP256R1())
    made = begin(name(text), name(text), key, HOUR).add_extension(x509.BasicConstraints(True, None), critical=True)
    with open(f"{text}.pem", "wb") as file:
        file.write(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return key, name(text)


def begin(subject, issuer, key, end):
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    return made.serial_number(x509.random_serial_number()).not_valid_before(NOW - 9 * HOUR).not_valid_after(NOW + end)


def issue(file, signer, address="127.0.0.1", end=HOUR):
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    made = begin(name(file), signer[1], key, end).add_extension(names, critical=False).sign(signer[0], hashes.SHA256())
    kind = serialization.PrivateFormat.PKCS8
    with open(f"{file}.pem", "wb") as opened:
        opened.write(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
        opened.write(made.public_bytes(serialization.Encoding.PEM))


def serve(file):
    """A listener that shows a certificate; what comes after the handshake does not matter here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{file}.pem")
    listening = socket.create_server(("127.0.0.1", 0))

    def loop():
        while True:
            plain, _ = listening.accept()
            try:
                context.wrap_socket(plain, server_side=True).close()
            except OSError:
                plain.close()

    threading.Thread(target=loop, daemon=True).start()
    return listening.getsockname()[1]


def by_librdkafka(port):
    said = []
    servers = {"bootstrap.servers": f"127.0.0.1:{port}", "security.protocol": "ssl", "ssl.ca.location": "ours.pem"}
    client = AdminClient({**servers, "log_level": 0, "error_cb": said.append})
    try:
        client.list_topics(timeout=3)
    except confluent_kafka.KafkaException:
        client.poll(0)
    texts = {error.str() for error in said if error.code() == confluent_kafka.KafkaError._SSL}
    return {re.sub(r"\(after .*|ssl://\S+ ", "", text).strip() for text in texts}


def by_python(port):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations("ours.pem")
    try:
        with socket.create_connection(("127.0.0.1", port)) as plain:
            context.wrap_socket(plain, server_hostname="127.0.0.1")
    except ssl.SSLCertVerificationError as error:
        return error.verify_message


ours, stranger = authority("ours"), authority("stranger")
issue("expired", ours, end=-HOUR)
issue("elsewhere", ours, address="10.9.9.9")
issue("signed-by-a-stranger", stranger)
print("confluent-kafka", confluent_kafka.version(), "librdkafka", confluent_kafka.libversion()[0])
texts, reasons = [], []
for file in ("expired", "elsewhere", "signed-by-a-stranger"):
    port = serve(file)
    texts.append(by_librdkafka(port))
    reasons.append(by_python(port))
    print(f"{file}:\n  librdkafka: {'; '.join(texts[-1])}\n  Python:     {reasons[-1]}")
same = all(len(each) == 1 and each == texts[0] and "ssl.ca.location" in min(each) for each in texts)
sys.exit(0 if same and len(set(reasons)) == 3 else 1)
PYTHON
