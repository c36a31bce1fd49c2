#!/usr/bin/env python3
"""Asks a real kube-apiserver what the files here ask, and writes down what it answers.

    record.py https://127.0.0.1:16443 TOKEN [NAME...]

NAME.http has the requests, one after another; NAME.json gets the answers, one a line. A request with a header `as: bob` is
bob's, whose token is bob-token, and one with `wait: 3` is made three seconds later. Both sides of the comparison are made in
`tests/it/golden.rs`, so nothing is changed here: what is in NAME.json is what came.
"""

import http.client
import json
import pathlib
import ssl
import sys
import time
import urllib.parse

HERE = pathlib.Path(__file__).parent


def steps(text):
    """The requests of a file: name, method, path, headers, body."""
    for part in text.split("\n### ")[1:]:
        title, _, rest = part.partition("\n")
        head, _, body = rest.partition("\n\n")
        lines = [line for line in head.split("\n") if line and not line.startswith("#")]
        method, path = lines[0].split(" ", 1)
        headers = dict(line.split(": ", 1) for line in lines[1:])
        yield title.strip(), method, path, headers, body.strip("\n")


def read(response, is_watch):
    """The body: JSON, the first events of a watch, or text."""
    if is_watch and response.status == 200:
        return [json.loads(line) for line in response.read().splitlines()]
    text = response.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


def main(server, token, names):
    address = urllib.parse.urlsplit(server)
    for file in sorted(HERE.glob("*.http")):
        if names and file.stem not in names:
            continue
        answers = []
        for title, method, path, headers, body in steps("\n" + file.read_text()):
            connection = http.client.HTTPSConnection(
                address.hostname, address.port, context=ssl._create_unverified_context(), timeout=60
            )
            time.sleep(float(headers.pop("wait", 0)))
            bearer = f"{headers.pop('as')}-token" if "as" in headers else token
            sent = {"accept": "application/json", "authorization": f"Bearer {bearer}"} | headers
            connection.request(method, path, body.encode() if body else None, sent)
            response = connection.getresponse()
            kept = {}
            for name in ("content-type", "warning"):
                if values := response.headers.get_all(name):
                    kept[name] = ", ".join(values)
            answers.append({"step": title, "code": response.status, "headers": kept, "body": read(response, "watch" in path)})
            print(file.stem, response.status, title)
        lines = [json.dumps(answer, separators=(",", ":"), sort_keys=True) for answer in answers]
        file.with_suffix(".json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


main(sys.argv[1], sys.argv[2], sys.argv[3:])
