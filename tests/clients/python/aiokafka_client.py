"""aiokafka."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

PATIENCE_S = 60


class Client:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.reader = None

    def run(self, work):
        return self.loop.run_until_complete(asyncio.wait_for(work, PATIENCE_S))

    def create(self, topic, partitions, replication):
        async def create():
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await admin.start()
            answer = await admin.create_topics([NewTopic(topic, partitions, replication)])
            await admin.close()
            return answer

        for told in self.run(create()).topic_errors:
            if told[1]:
                sys.exit(f"{topic}: {told}")

    def produce(self, case, records):
        return self.run(self._produce(case, records))

    async def _produce(self, case, records):
        codec = None if case["codec"] == "none" else case["codec"]
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, acks="all", linger_ms=200, compression_type=codec,
            max_batch_size=1 << 19, enable_idempotence=case["idempotent"], max_request_size=2 << 20)
        await producer.start()
        try:
            futures = [
                await producer.send(
                    case["topic"], value=value, key=key, partition=case["partition"], timestamp_ms=timestamp,
                    headers=headers)
                for timestamp, key, value, headers in records
            ]
            return [(await future).offset for future in futures]
        finally:
            await producer.stop()

    async def _begin(self, read, at_end):
        begin = read["from"]
        place = TopicPartition(read["topic"], read["partition"])
        if self.reader is None:
            self.reader = AIOKafkaConsumer(
                bootstrap_servers=self.bootstrap, group_id=None, enable_auto_commit=False, check_crcs=True,
                auto_offset_reset="none", fetch_max_wait_ms=20)
            await self.reader.start()
        reader = self.reader
        reader.assign([place])
        if begin == "beginning":
            await reader.seek_to_beginning(place)
        elif begin == "end":
            await reader.seek_to_end(place)
            await reader.position(place)
            at_end()
        elif "offset" in begin:
            reader.seek(place, begin["offset"])
        else:
            found = await reader.offsets_for_times({place: begin["timestamp"]})
            reader.seek(place, found[place].offset)

    def consume(self, read, at_end):
        self.run(self._begin(read, at_end))
        while True:
            polled = self.run(self.reader.getmany(timeout_ms=PATIENCE_S * 500))
            if not polled:
                sys.exit(f"nothing came for {PATIENCE_S / 2} s: {read}")
            for messages in polled.values():
                for message in messages:
                    yield message.offset, message.timestamp, message.key, message.value, message.headers

    def close(self):
        self.run(self.reader.stop())
