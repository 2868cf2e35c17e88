"""kcat, a program of its own: one process for each stretch of records with the same headers, one for each read.

Keys and values pass through pipes, framed by marks that occur in none of them. What kcat cannot say is left out by
the caller: a record's timestamp, a key or value that is empty and not null, a header's bytes with NUL or a comma.
"""

import itertools
import os
import subprocess
import sys

KEY_END, RECORD_END = b"<klamm-key-end>", b"<klamm-record-end>"
FRAME = "%o %T %K %S %h\\n%k%s"


class Client:
    def __init__(self, bootstrap):
        self.command = [os.environ["KCAT"], "-b", bootstrap, "-m", "60"]

    def create(self, topic, partitions, replication):
        """kcat has no command for it: it asks for the topic's metadata, which creates it as the cluster is set up."""
        del partitions, replication
        said = subprocess.run(
            [*self.command, "-L", "-t", topic, "-X", "allow.auto.create.topics=true"], check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if f'topic "{topic}"'.encode() not in said.stdout:
            sys.exit(f"{topic} was not created: {said.stdout}")

    def produce(self, case, records):
        command = [
            *self.command, "-P", "-Z", "-t", case["topic"], "-p", str(case["partition"]), "-z", case["codec"],
            "-K", KEY_END.decode(), "-D", RECORD_END.decode(), "-X", "acks=all", "-X", "linger.ms=50",
            "-X", f"enable.idempotence={str(case['idempotent']).lower()}",
            # Without idempotence a batch that is sent again may come after its successor.
            "-X", f"max.in.flight={5 if case['idempotent'] else 1}",
        ]
        for headers, stretch in itertools.groupby(records, key=lambda record: record[3]):
            options = []
            for name, value in headers:
                options += [b"-H", name.encode() if value is None else name.encode() + b"=" + value]
            text = RECORD_END.join((key or b"") + KEY_END + (value or b"") for _, key, value, _ in stretch)
            subprocess.run([*command, *options], check=True, input=text)
        # kcat does not tell where a record went.
        return [None] * len(records)

    def consume(self, read, at_end):
        begin = read["from"]
        if isinstance(begin, dict):
            begin = str(begin["offset"]) if "offset" in begin else f"s@{begin['timestamp']}"
        command = [
            *self.command, "-C", "-u", "-t", read["topic"], "-p", str(read["partition"]), "-o", begin, "-f", FRAME,
            "-X", "check.crcs=true", "-X", "fetch.wait.max.ms=20",
        ]
        waits = read["from"] == "end"
        errors = subprocess.PIPE if waits else subprocess.DEVNULL
        with subprocess.Popen(
                command if waits else [*command, "-e", "-q"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors) as reader:
            try:
                if waits:
                    self.wait_for_end(reader)
                    at_end()
                yield from frames(reader.stdout)
            finally:
                reader.terminate()

    def close(self):
        """Each read had a process of its own, which has ended."""

    @staticmethod
    def wait_for_end(reader):
        for line in reader.stderr:
            if b"Reached end of topic" in line:
                return
        sys.exit("kcat ended before it was at the partition's end")


def frames(source):
    while head := source.readline():
        offset, timestamp, key_length, value_length, headers = head.rstrip(b"\n").split(b" ", 4)
        key, value = (
            None if int(length) < 0 else source.read(int(length)) for length in (key_length, value_length))
        yield int(offset), int(timestamp), key, value, list(parse_headers(headers))


def parse_headers(text):
    for header in text.split(b",") if text else []:
        name, _, value = header.partition(b"=")
        yield name.decode(), None if value == b"NULL" else value
