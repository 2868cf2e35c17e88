#!/usr/bin/env python3
"""Writes record batches with the encoders of kafka-python and librdkafka, and what they must hold.

    write_batches.py --out DIR [--writer kafka-python|librdkafka|all]

For each writer DIR/<writer>/ receives NAME.batches (raw batches, one after the other) and expected.json. The
packages are named with their versions in requirements.txt.
"""

import argparse
import importlib.metadata
import json
import pathlib

import wire
import workload


def kafka_python_cases():
    """(name, codec, producer, record set) of each file: producer is (id, epoch, base sequence, transactional)."""
    for codec in workload.CODECS:
        yield codec, codec, (-1, -1, -1, False), "every_shape"
        yield f"{codec}-idempotent", codec, (4_000_000_007, 3, 0, False), "every_shape"
        yield f"{codec}-transactional", codec, (9, 32_767, 2_147_483_645, True), "every_shape"
        if codec != "none":
            yield f"{codec}-large", codec, (-1, -1, -1, False), "large"


def write_with_kafka_python():
    from kafka.record.default_records import DefaultRecordBatchBuilder

    for name, codec, (producer_id, epoch, sequence, transactional), record_set in kafka_python_cases():
        builder = DefaultRecordBatchBuilder(
            magic=2,
            compression_type=workload.CODECS[codec],
            is_transactional=transactional,
            producer_id=producer_id,
            producer_epoch=epoch,
            base_sequence=sequence,
            batch_size=1 << 24,
        )
        for offset, record in enumerate(workload.RECORD_SETS[record_set]()):
            written = builder.append(offset, record.timestamp, record.key, record.value, record.headers)
            assert written is not None, f"{name}: record {offset} was refused"
        yield name, codec, record_set, bytes(builder.build())


def librdkafka_settings(codec, kind):
    settings = {
        "compression.type": codec,
        "linger.ms": 200,
        "batch.num.messages": 10_000,
        "test.mock.num.brokers": 1,
        "log_level": 3,
    }
    if kind == "idempotent":
        settings["enable.idempotence"] = True
    if kind == "transactional":
        settings["transactional.id"] = "interop"
    return settings


def write_with_librdkafka():
    for codec in workload.CODECS:
        for kind in ("plain", "idempotent", "transactional", "large"):
            if kind == "large" and codec == "none":
                continue
            record_set = "large" if kind == "large" else "every_shape"
            name = codec if kind == "plain" else f"{codec}-{kind}"
            yield name, codec, record_set, produce_with_librdkafka(codec, kind, record_set)


def librdkafka_settings(codec, kind):
    settings = {
        "compression.type": codec,
        "linger.ms": 200,
        "batch.num.messages": 10_000,
        "test.mock.num.brokers": 1,
        "log_level": 3,
    }
    if kind == "idempotent":
        settings["enable.idempotence"] = True
    if kind == "transactional":
        settings["transactional.id"] = "interop"
    return settings


def produce_with_librdkafka(codec, kind, record_set):
    """Produces to the broker that librdkafka itself emulates on a loopback port, and fetches the bytes it kept."""
    from confluent_kafka import Producer

    producer, topic, failures = Producer(librdkafka_settings(codec, kind)), "interop", []
    metadata = producer.list_topics(topic, timeout=20)
    address = next(iter(metadata.brokers.values()))
    if kind == "transactional":
        producer.init_transactions(20)
        producer.begin_transaction()
    for record in workload.RECORD_SETS[record_set]():
        producer.produce(
            topic,
            partition=0,
            key=record.key,
            value=record.value,
            timestamp=record.timestamp,
            headers=record.headers,
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
    if producer.flush(20):
        raise SystemExit(f"librdkafka {codec} {kind}: records were not delivered in time")
    if kind == "transactional":
        producer.commit_transaction(20)
    if failures:
        raise SystemExit(f"librdkafka {codec} {kind}: {failures[0]}")
    broker = wire.Broker(address.host, address.port)
    found = broker.read_all(topic, 0)
    broker.close()
    # The marker is the emulated broker's, not the encoder's, and carries no CRC; real markers come from Kafka.
    return b"".join(batch for batch in wire.batches(found) if not wire.describe_header(batch)["control"])


def check(name, codec, record_set, headers, data):
    """What must be true of the bytes before they may serve as a reference for anybody."""
    assert sum(header["size"] for header in headers) == len(data), f"{name}: partial batch"
    assert all(header["codec"] == workload.CODECS[codec] for header in headers), f"{name}: not written with {codec}"
    assert sum(header["record_count"] for header in headers) == len(workload.RECORD_SETS[record_set]()), f"{name}: record count"


def write(out, writer, version, cases):
    folder = out / writer
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for name, codec, record_set, data in cases:
        (folder / f"{name}.batches").write_bytes(data)
        headers = [wire.describe_header(batch) for batch in wire.batches(data)]
        check(name, codec, record_set, headers, data)
        listed.append({"name": name, "records": record_set, "batches": headers})
    sets = {
        name: [record.describe(offset) for offset, record in enumerate(records())]
        for name, records in workload.RECORD_SETS.items()
    }
    text = json.dumps(
        {"writer": writer, "version": version, "record_sets": sets, "cases": listed},
        ensure_ascii=False,
        separators=(",", ":"),
    )
    lines = text.replace('{"name"', '\n{"name"').replace('{"offset"', '\n{"offset"')
    (folder / "expected.json").write_text(lines + "\n", encoding="utf-8")
    print(f"{writer} {version}: {len(listed)} files")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--writer", choices=["kafka-python", "librdkafka", "all"], default="all")
    arguments = parser.parse_args()
    if arguments.writer in ("kafka-python", "all"):
        write(arguments.out, "kafka-python", importlib.metadata.version("kafka-python"), write_with_kafka_python())
    if arguments.writer in ("librdkafka", "all"):
        from confluent_kafka import libversion

        write(arguments.out, "librdkafka", libversion()[0], write_with_librdkafka())


if __name__ == "__main__":
    main()
