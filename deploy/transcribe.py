#!/usr/bin/python3
"""Sends a recording to the service and prints its text; nothing but Python is needed.

    API_KEY=… deploy/transcribe.py URL RECORDING

URL is where the service is, such as http://127.0.0.1:8083; a certificate is not looked at. The key
comes from the environment, so that it is in no process list. Exit status 1, and a sentence on
standard error: there was no transcript.
"""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
import uuid

ANSWER_S = 120


def form(recording, boundary):
    """The multipart body of one request."""
    parts = []
    for name, value in (("model", b"whisper-1"), ("response_format", b"json")):
        parts.append((f'name="{name}"', value))
    with open(recording, "rb") as file:
        parts.append(('name="file"; filename="recording"', file.read()))
    body = b""
    for head, value in parts:
        disposition = f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n"
        body += disposition.encode() + value + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    url, recording = sys.argv[1:]
    boundary = uuid.uuid4().hex
    request = urllib.request.Request(
        url.rstrip("/") + "/v1/audio/transcriptions",
        data=form(recording, boundary),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    if key := os.environ.get("API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    unchecked = ssl._create_unverified_context() if url.startswith("https") else None
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S, context=unchecked) as answer:
            print(json.load(answer)["text"])
    except urllib.error.HTTPError as error:
        print(f"{url} answers {error.code}: {error.read().decode()[:300]}", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError) as error:
        print(f"{url} does not answer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
