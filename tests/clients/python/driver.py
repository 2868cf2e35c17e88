"""The clients that Python drives, with one command line: driver.py CLIENT COMMAND BOOTSTRAP FILE.

FILE holds the work, one JSON object per line; what was done is told on standard output in the same way. The
README beside this directory describes both.
"""

import base64
import hashlib
import importlib
import json
import sys

MODULES = {
    "librdkafka": "librdkafka_client",
    "kcat": "kcat_client",
    "kafka-python": "kafka_python_client",
    "aiokafka": "aiokafka_client",
}


def plain(text):
    return None if text is None else base64.b64decode(text)


def hashed(data):
    return None if data is None else hashlib.sha256(data).hexdigest()


def records_of(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            headers = [(name, plain(value)) for name, value in record["headers"]]
            yield record["timestamp"], plain(record["key"]), plain(record["value"]), headers


def tell(fact):
    print(json.dumps(fact), flush=True)


def tell_record(offset, timestamp, key, value, headers):
    """Tells what a consumer has read."""
    headers = [[name, hashed(data)] for name, data in headers]
    fact = {"offset": offset, "timestamp": timestamp, "key": hashed(key), "value": hashed(value), "headers": headers}
    print(json.dumps(fact))


def produce(client, case):
    for offset in client.produce(case, list(records_of(case["records"]))):
        tell({"topic": case["topic"], "partition": case["partition"], "offset": offset})


def consume(client, read):
    """Reads one partition from where `read` says up to the offset `until`, which is not read."""

    def at_end():
        tell({"read": read["read"], "ready": True})

    last = read["until"] - 1
    tell({"read": read["read"], "ready": False})
    for record in client.consume(read, at_end):
        tell_record(*record)
        if record[0] >= last:
            break
    sys.stdout.flush()


def main(name, command, bootstrap, path):
    client = importlib.import_module(MODULES[name]).Client(bootstrap)
    with open(path, encoding="utf-8") as lines:
        work = [json.loads(line) for line in lines]
    if command == "create":
        for topic in work:
            client.create(topic["topic"], topic["partitions"], topic["replication"])
    elif command == "produce":
        for case in work:
            produce(client, case)
    elif command == "consume":
        for read in work:
            consume(client, read)
        client.close()
    elif command == "load":
        client.load(work, tell)
    else:
        sys.exit(f"no command {command}")


if __name__ == "__main__":
    main(*sys.argv[1:])
