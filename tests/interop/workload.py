"""The records that every encoder is asked to write, and how bytes are described in JSON.

Nothing here depends on an encoder: the expectation is made from these inputs, never from what an encoder or a
decoder returned.
"""

BASE_TIMESTAMP_MS = 1_700_000_000_000
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
LONGEST_UNIT = 64


class Record:
    """One record as a client hands it to its producer; headers keep their order and may repeat a key."""

    def __init__(self, timestamp, key, value, headers=()):
        self.timestamp = timestamp
        self.key = key
        self.value = value
        self.headers = list(headers)

    def describe(self, offset):
        return {
            "offset": offset,
            "timestamp": self.timestamp,
            "key": describe_bytes(self.key),
            "value": describe_bytes(self.value),
            "headers": [[name, describe_bytes(value)] for name, value in self.headers],
        }


def describe_bytes(data):
    """None, a hex string, or [hex, times] for long data that repeats a short unit."""
    if data is None:
        return None
    if len(data) > 256:
        for size in range(1, LONGEST_UNIT + 1):
            if len(data) % size == 0 and data[:size] * (len(data) // size) == data:
                return [data[:size].hex(), len(data) // size]
    return data.hex()


def every_shape():
    """Keys, values and headers in every form the format can hold; timestamps that also go backwards."""
    at = BASE_TIMESTAMP_MS
    return [
        Record(at, b"key-0", b"value-0"),
        Record(at + 7, None, b"a value without a key"),
        Record(at - 1_000, b"a key without a value", None),
        Record(at + 1, None, None),
        Record(at + 2, b"", b""),
        Record(at + 86_400_000, bytes(range(256)), bytes(reversed(range(256)))),
        Record(at + 3, b"key-6", b"text " * 60, [("trace", b"0af7651916cd43dd")]),
        Record(at + 4, b"key-7", b"v", [("retry", b"1"), ("retry", b"2"), ("retry", b"1")]),
        Record(at + 5, b"key-8", b"v", [("null", None), ("empty", b""), ("null", None)]),
        Record(at + 6, None, None, [("gr\u00fc\u00dfe \u65e5\u672c", bytes([0, 255, 128])), ("x" * 200, b"y" * 300)]),
        Record(at + 8, b"key-10", b"last", [(f"h{n}", str(n).encode()) for n in range(70)]),
    ]


def large():
    """More than one 32 KiB block of a framed snappy stream, and one value that fills several blocks alone."""
    at = BASE_TIMESTAMP_MS
    many = [Record(at + n, f"k{n:04}".encode(), (f"row {n:05} " * 64).encode()) for n in range(64)]
    return many + [Record(at + 64, b"big", b"0123456789abcdef" * 6_250)]


RECORD_SETS = {"every_shape": every_shape, "large": large}
