#!/usr/bin/env bash
# Listing the versions of an S3 bucket page by page, and deleting each page before the next is asked for.
#
# A good guess: the next page begins behind the marker, whether the version that it names is still there or not, as a page
# of plain keys does. Seen with versitygw 1.8.0 (a real gateway over a folder): once the version that VersionIdMarker
# names is deleted, the listing is empty and not truncated: versions of the same key, and all keys behind it, are passed
# over. Who deletes page by page believes to be done. A page is to be left to its key's end, or the listing begun anew.
#
# Needs go, python3 and the module proxy and PyPI. Exits 1 if it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
gateway=
trap '[ -z "$gateway" ] || kill "$gateway" 2>/dev/null; wait 2>/dev/null; chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
GOBIN=$folder go install github.com/versity/versitygw/cmd/versitygw@v1.8.0 2>"$folder/build.log" || { cat "$folder/build.log"; exit 1; }
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check boto3==1.44.8
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir "$folder/objects" "$folder/versions" "$folder/sidecar"
ROOT_ACCESS_KEY=key ROOT_SECRET_KEY=secret-key "$folder/versitygw" --port "127.0.0.1:$port" --quiet posix \
    --sidecar "$folder/sidecar" --versioning-dir "$folder/versions" "$folder/objects" >"$folder/gateway.log" 2>&1 &
gateway=$!
"$folder/versitygw" --version | head -n 2
PORT=$port "$folder/venv/bin/python" - <<'PYTHON'
import os
import sys
import time

import boto3
from botocore.exceptions import EndpointConnectionError

s3 = boto3.client(
    "s3",
    endpoint_url=f"http://127.0.0.1:{os.environ['PORT']}",
    aws_access_key_id="key",
    aws_secret_access_key="secret-key",
    region_name="us-east-1",
)
for _ in range(300):
    try:
        s3.create_bucket(Bucket="bucket")
        break
    except EndpointConnectionError:
        time.sleep(0.1)
s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
for key in ("a", "a", "a", "b", "b", "b"):
    s3.put_object(Bucket="bucket", Key=key, Body=b"blob")


def show(answer):
    found = [f"{item['Key']}:{item['VersionId'][-4:]}" for item in answer.get("Versions", ())]
    print(f"    {found}, truncated: {answer['IsTruncated']}")
    return len(found)


print("all versions:")
show(s3.list_object_versions(Bucket="bucket"))
print("the first page, of two:")
first = s3.list_object_versions(Bucket="bucket", MaxKeys=2)
show(first)
marks = {"KeyMarker": first["NextKeyMarker"], "VersionIdMarker": first["NextVersionIdMarker"]}
print("behind it:")
before = show(s3.list_object_versions(Bucket="bucket", **marks))
for item in first["Versions"]:
    s3.delete_object(Bucket="bucket", Key=item["Key"], VersionId=item["VersionId"])
print("behind it, once the page is deleted:")
after = show(s3.list_object_versions(Bucket="bucket", **marks))
print("and yet there are:")
left = show(s3.list_object_versions(Bucket="bucket"))
same = (before, after, left) == (4, 0, 4)
print("as before: four versions are passed over" if same else "this has changed: look at docs/explanation/blob-stores.md")
sys.exit(not same)
PYTHON
