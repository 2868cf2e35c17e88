"""kafka-python."""

import sys

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

PATIENCE_S = 60


class Client:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap.split(",")
        self.reader = None

    def create(self, topic, partitions, replication):
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        admin.create_topics([NewTopic(topic, partitions, replication)])
        admin.close()

    def produce(self, case, records):
        codec = None if case["codec"] == "none" else case["codec"]
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap, acks="all", linger_ms=200, compression_type=codec, batch_size=1 << 19,
            enable_idempotence=case["idempotent"], max_request_size=2 << 20,
            # Without idempotence a batch that is sent again may come after its successor.
            max_in_flight_requests_per_connection=5 if case["idempotent"] else 1)
        futures = [
            producer.send(
                case["topic"], value=value, key=key, headers=headers, partition=case["partition"],
                timestamp_ms=timestamp)
            for timestamp, key, value, headers in records
        ]
        producer.flush(PATIENCE_S)
        offsets = [future.get(PATIENCE_S).offset for future in futures]
        producer.close()
        return offsets

    def consume(self, read, at_end):
        if self.reader is None:
            self.reader = KafkaConsumer(
                bootstrap_servers=self.bootstrap, group_id=None, enable_auto_commit=False, check_crcs=True,
                auto_offset_reset="none", fetch_max_wait_ms=20)
        reader, begin = self.reader, read["from"]
        place = TopicPartition(read["topic"], read["partition"])
        reader.assign([place])
        if begin == "beginning":
            reader.seek_to_beginning(place)
        elif begin == "end":
            reader.seek_to_end(place)
            reader.position(place)
            at_end()
        elif "offset" in begin:
            reader.seek(place, begin["offset"])
        else:
            reader.seek(place, reader.offsets_for_times({place: begin["timestamp"]})[place].offset)
        while True:
            polled = reader.poll(PATIENCE_S * 1000)
            if not polled:
                sys.exit(f"nothing came for {PATIENCE_S} s: {read}")
            for message in polled[place]:
                yield message.offset, message.timestamp, message.key, message.value, message.headers

    def close(self):
        self.reader.close()
