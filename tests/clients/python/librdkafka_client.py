"""librdkafka, through confluent-kafka."""

import sys

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PATIENCE_S = 60
# An empty partition's fetch holds up the next partition's on the same connection for as long.
WAIT_MS = 20


class Client:
    def __init__(self, bootstrap):
        self.settings = {"bootstrap.servers": bootstrap}
        self.reader = None

    def create(self, topic, partitions, replication):
        admin = AdminClient(self.settings)
        admin.create_topics([NewTopic(topic, partitions, replication)])[topic].result(PATIENCE_S)

    def produce(self, case, records):
        producer = Producer({
            **self.settings, "acks": "all", "linger.ms": 200, "compression.type": case["codec"],
            "enable.idempotence": case["idempotent"],
            # Without idempotence a batch that is sent again may come after its successor.
            "max.in.flight": 5 if case["idempotent"] else 1,
        })
        offsets = [None] * len(records)

        def told(place):
            def note(error, message):
                if error:
                    sys.exit(f"record {place}: {error}")
                offsets[place] = message.offset()
            return note

        for place, (timestamp, key, value, headers) in enumerate(records):
            producer.produce(
                case["topic"], value=value, key=key, partition=case["partition"], headers=headers,
                on_delivery=told(place), timestamp=timestamp or 0)
        if producer.flush(PATIENCE_S):
            sys.exit("not everything was delivered")
        return offsets

    def consume(self, read, at_end):
        if self.reader is None:
            self.reader = Consumer({
                **self.settings, "group.id": "none", "enable.auto.commit": False, "check.crcs": True,
                "enable.partition.eof": True, "auto.offset.reset": "error", "fetch.wait.max.ms": WAIT_MS,
            })
        begin = read["from"]
        place = TopicPartition(read["topic"], read["partition"])
        if begin == "beginning":
            place.offset = OFFSET_BEGINNING
        elif begin == "end":
            place.offset = OFFSET_END
        elif "offset" in begin:
            place.offset = begin["offset"]
        else:
            place.offset = begin["timestamp"]
            place = self.reader.offsets_for_times([place], PATIENCE_S)[0]
        self.reader.assign([place])
        is_ready = False
        while True:
            message = self.reader.poll(PATIENCE_S)
            if message is None:
                sys.exit(f"nothing came for {PATIENCE_S} s: {read}")
            if message.error() and message.error().code() == KafkaError._PARTITION_EOF:
                if begin == "end" and not is_ready:
                    at_end()
                    is_ready = True
                continue
            if message.error():
                sys.exit(f"{read}: {message.error()}")
            yield (message.offset(), message.timestamp()[1], message.key(), message.value(),
                   message.headers() or [])

    def close(self):
        self.reader.close()

    def load(self, work, tell):
        """Writes the lines of text files, each file with a key of its own and into the partition that is said."""
        producer = Producer({
            **self.settings, "acks": "all", "enable.idempotence": True, "compression.type": "lz4", "linger.ms": 20,
            "queue.buffering.max.messages": 500_000, "queue.buffering.max.kbytes": 131_072,
        })
        delivered = [0]

        def told(error, message):
            if error:
                sys.exit(f"{message.topic()}: {error}")
            delivered[0] += 1

        count = 0
        for file in work:
            topic, partition, key = file["topic"], file["partition"], file["key"].encode()
            with open(file["path"], "rb") as lines:
                for line in lines.read().split(b"\n"):
                    count += 1
                    while True:
                        try:
                            producer.produce(topic, value=line, key=key, partition=partition, on_delivery=told)
                            break
                        except BufferError:
                            producer.poll(0.1)
            producer.poll(0)
        if producer.flush(10 * PATIENCE_S) or delivered[0] != count:
            sys.exit("not everything was delivered")
        tell({"delivered": delivered[0]})
