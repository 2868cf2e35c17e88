#!/usr/bin/env python3
"""Reads record batches with the decoders of kafka-python and librdkafka and prints what they found as JSON.

    read_batches.py --reader kafka-python|librdkafka DIR

DIR holds NAME.batches files, each with whole batches from base offset 0 on. The answer is a map from NAME to what
the reader saw; the caller compares it with what was written.
"""

import argparse
import json
import pathlib
import sys

import wire
import workload


def read_with_kafka_python(files):
    from kafka.record.memory_records import MemoryRecords

    for name, data in files:
        memory, batches = MemoryRecords(data), []
        while memory.has_next():
            batch = memory.next_batch()
            if not batch.validate_crc():
                raise SystemExit(f"kafka-python: {name}: CRC of the batch at offset {batch.base_offset} is wrong")
            described = {
                "base_offset": batch.base_offset,
                "last_offset": batch.last_offset,
                "leader_epoch": batch.leader_epoch,
                "codec": batch.compression_type,
                "log_append_time": bool(batch.timestamp_type),
                "transactional": batch.is_transactional,
                "control": batch.is_control_batch,
                "base_timestamp": batch.first_timestamp,
                "max_timestamp": batch.max_timestamp,
                "producer_id": batch.producer_id,
                "producer_epoch": batch.producer_epoch,
                "base_sequence": batch.base_sequence,
                "last_sequence": batch.last_sequence,
                "record_count": batch.records_count,
            }
            records = list(batch)
            markers = records if batch.is_control_batch else []
            described["markers"] = [[marker.offset, "commit" if marker.commit else "abort"] for marker in markers]
            described["records"] = [] if batch.is_control_batch else [describe(record) for record in records]
            batches.append(described)
        if memory.size_in_bytes() != sum(wire.describe_header(batch)["size"] for batch in wire.batches(data)):
            raise SystemExit(f"kafka-python: {name}: bytes left over")
        yield name, batches


def describe(record):
    found = workload.Record(record.timestamp, record.key, record.value, record.headers)
    return found.describe(record.offset)


def read_with_librdkafka(files):
    """Puts the batches, unread, into the broker that librdkafka emulates, and consumes them from it."""
    from confluent_kafka import Consumer, Producer

    host = Producer({"test.mock.num.brokers": 1, "log_level": 3})
    address = next(iter(host.list_topics(timeout=20).brokers.values()))
    broker = wire.Broker(address.host, address.port)
    consumer = Consumer(
        {
            "bootstrap.servers": f"{address.host}:{address.port}",
            "group.id": "interop",
            "enable.auto.commit": False,
            "check.crcs": True,
            "isolation.level": "read_uncommitted",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "log_level": 3,
        }
    )
    for name, data in files:
        host.list_topics(name, timeout=20)
        for batch in wire.batches(data):
            expected = wire.describe_header(batch)["base_offset"]
            given = broker.produce(name, 0, batch)
            assert given == expected, f"{name}: the broker gave offset {given} to the batch at {expected}"
    yield from consume(consumer, [name for name, _ in files]).items()
    consumer.close()
    broker.close()


def consume(consumer, topics):
    from confluent_kafka import KafkaError, TopicPartition

    consumer.assign([TopicPartition(topic, 0, 0) for topic in topics])
    found, unfinished = {topic: [] for topic in topics}, set(topics)
    while unfinished:
        message = consumer.poll(20)
        if message is None:
            raise SystemExit(f"librdkafka: no end of {sorted(unfinished)} within 20 s")
        if message.error():
            if message.error().code() != KafkaError._PARTITION_EOF:
                raise SystemExit(f"librdkafka: {message.topic()}: {message.error()}")
            unfinished.discard(message.topic())
            continue
        record = workload.Record(message.timestamp()[1], message.key(), message.value(), message.headers() or [])
        found[message.topic()].append(record.describe(message.offset()))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--reader", choices=["kafka-python", "librdkafka"], required=True)
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.glob("*.batches"))
    files = [(path.name.removesuffix(".batches"), path.read_bytes()) for path in paths]
    if not files:
        raise SystemExit("no files to read")
    reader = read_with_kafka_python if arguments.reader == "kafka-python" else read_with_librdkafka
    json.dump(dict(reader(files)), sys.stdout)


if __name__ == "__main__":
    main()
