"""Produce and Fetch over a bare socket, so that batches can be put into and taken out of a broker unread.

Only what these two requests need of the Kafka protocol: Produce version 7 and Fetch version 10, the newest
versions before topic ids and flexible encoding that allow zstd.
"""

import socket
import struct
import typing

PRODUCE, PRODUCE_VERSION = 0, 7
FETCH, FETCH_VERSION = 1, 10
HEADER = struct.Struct(">qiibIhiqqqhii")
LOG_OVERHEAD = 12


class Refused(Exception):
    """The broker answered with an error code."""


class Reader:
    """Takes fields off a response in order."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, layout):
        values = struct.unpack_from(">" + layout, self.data, self.at)
        self.at += struct.calcsize(">" + layout)
        return values if len(values) > 1 else values[0]

    def bytes(self, length):
        if self.at + length > len(self.data):
            raise EOFError("response ends inside a field")
        found = self.data[self.at : self.at + length]
        self.at += length
        return found

    def string(self):
        return self.bytes(self.take("h")).decode()


def text(value):
    if value is None:
        return struct.pack(">h", -1)
    data = value.encode()
    return struct.pack(">h", len(data)) + data


class Fetched(typing.NamedTuple):
    """What one Fetch answered for one partition; `aborted` holds (producer id, first offset)."""

    log_start: int
    high_watermark: int
    last_stable: int
    aborted: list
    data: bytes


class Broker:
    """One connection; requests are answered one at a time."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=20)
        self.correlation = 0

    def close(self):
        self.socket.close()

    def call(self, api, version, body):
        self.correlation += 1
        message = struct.pack(">hhi", api, version, self.correlation) + text("interop") + body
        self.socket.sendall(struct.pack(">i", len(message)) + message)
        size = struct.unpack(">i", self.receive(4))[0]
        answer = Reader(self.receive(size))
        if answer.take("i") != self.correlation:
            raise Refused("answer to another request")
        return answer

    def receive(self, size):
        parts = bytearray()
        while len(parts) < size:
            part = self.socket.recv(size - len(parts))
            if not part:
                raise EOFError("broker closed the connection")
            parts += part
        return bytes(parts)

    def produce(self, topic, partition, records):
        """Appends `records` (whole batches) and returns the base offset the broker gave them."""
        body = text(None) + struct.pack(">hii", -1, 10_000, 1) + text(topic)
        body += struct.pack(">iii", 1, partition, len(records)) + records
        answer = self.call(PRODUCE, PRODUCE_VERSION, body)
        answer.take("i")
        answer.string()
        _, _, error, base_offset = answer.take("iihq")
        if error:
            raise Refused(f"produce to {topic}-{partition}: error code {error}")
        return base_offset

    def fetch(self, topic, partition, offset, committed=False):
        body = struct.pack(">iiiibiii", -1, 500, 1, 1 << 30, int(committed), 0, -1, 1) + text(topic)
        body += struct.pack(">iiiqqi", 1, partition, -1, offset, -1, 1 << 30) + struct.pack(">i", 0)
        answer = self.call(FETCH, FETCH_VERSION, body)
        _, error, _, topics = answer.take("ihii")
        if error or topics != 1:
            raise Refused(f"fetch from {topic}-{partition}: error code {error}")
        answer.string()
        _, _, error, high_watermark, last_stable, log_start, aborted = answer.take("iihqqqi")
        if error:
            raise Refused(f"fetch from {topic}-{partition} at {offset}: error code {error}")
        transactions = [answer.take("qq") for _ in range(max(aborted, 0))]
        return Fetched(log_start, high_watermark, last_stable, transactions, answer.bytes(max(answer.take("i"), 0)))

    def read(self, topic, partition, offset, end, committed=False):
        """The answers of as many Fetches as it takes to come from `offset` to `end`; one never leaves a segment."""
        while offset < end:
            answer = self.fetch(topic, partition, offset, committed)
            for batch in batches(answer.data):
                offset = next_offset(batch)
            yield answer

    def read_all(self, topic, partition, offset=0):
        """Every batch of a partition from `offset` to its high watermark."""
        end = self.fetch(topic, partition, offset).high_watermark
        answers = self.read(topic, partition, offset, end)
        return b"".join(batch for answer in answers for batch in batches(answer.data))


def batches(data):
    """Cuts a slice into whole batches; a partial batch at the end, which Fetch may return, is left out."""
    at = 0
    while at + LOG_OVERHEAD <= len(data):
        size = LOG_OVERHEAD + struct.unpack_from(">i", data, at + 8)[0]
        if at + size > len(data):
            return
        yield data[at : at + size]
        at += size


def next_offset(batch):
    header = HEADER.unpack_from(batch)
    return header[0] + header[6] + 1


def describe_header(batch):
    """The header of a batch, read by nothing but its layout in the protocol guide."""
    base, _, leader_epoch, magic, crc, attributes, delta, first, last, producer, epoch, sequence, count = HEADER.unpack_from(batch)
    assert magic == 2, f"magic {magic}"
    return {
        "base_offset": base,
        "size": len(batch),
        "leader_epoch": leader_epoch,
        "crc": crc,
        "codec": attributes & 7,
        "log_append_time": bool(attributes & 8),
        "transactional": bool(attributes & 16),
        "control": bool(attributes & 32),
        "last_offset": base + delta,
        "base_timestamp": first,
        "max_timestamp": last,
        "producer_id": producer,
        "producer_epoch": epoch,
        "base_sequence": sequence,
        "record_count": count,
    }
