"""Idempotent producers of librdkafka that write until they are told to stop, and then read what became of it.

Usage: idempotent_producers.py BOOTSTRAP TOPIC PARTITIONS. Each line of standard input is answered by a line: "count" by
how many records were acknowledged so far, "stop" by what was acknowledged and is not where it was told to be ("missing"),
what is in the log more often than once ("twice") or before one that was sent earlier ("moved"), and what was refused.
"""

import sys
import threading

from confluent_kafka import Consumer, Producer, TopicPartition

PRODUCERS = 4
# Few enough that a kill meets a full pipeline, and that reading it all takes seconds.
UNDER_WAY_MAX = 1000
READ_LIMIT_S = 60
FLUSH_LIMIT_S = 120

bootstrap, topic, partitions = sys.argv[1], sys.argv[2], int(sys.argv[3])
base = {"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100}
stop = threading.Event()
# By producer and partition: the offset that was told for each number.
delivered = {(name, partition): {} for name in range(PRODUCERS) for partition in range(partitions)}
refused = []
count = 0


def told(error, message):
    global count
    if error:
        refused.append(str(error))
        return
    name, number = map(int, message.value().split(b"-")[:2])
    delivered[name, message.partition()][number] = message.offset()
    count += 1


def producer():
    idempotent = {"enable.idempotence": True, "acks": "all", "linger.ms": 1, "retry.backoff.ms": 5, "retry.backoff.max.ms": 50}
    limits = {"message.timeout.ms": FLUSH_LIMIT_S * 1000, "queue.buffering.max.messages": UNDER_WAY_MAX}
    return Producer({**base, **idempotent, **limits})


def write(producers):
    number = 0
    while not stop.is_set():
        for name, one in enumerate(producers):
            try:
                for partition in range(partitions):
                    value = b"%d-%d-" % (name, number)
                    one.produce(topic, value.ljust(100, b"x"), partition=partition, on_delivery=told)
                    number += 1
            except BufferError:
                pass
            one.poll(0.001)
    for one in producers:
        if one.flush(FLUSH_LIMIT_S):
            sys.exit("not all were sent")


def read():
    """What each partition holds: offset, producer, number."""
    consumer = Consumer({**base, "group.id": "none", "enable.auto.commit": False, "enable.partition.eof": False})
    ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), READ_LIMIT_S)[1] for p in range(partitions)}
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    logs = {p: [] for p in range(partitions)}
    while any(len(logs[p]) < ends[p] for p in logs):
        message = consumer.poll(READ_LIMIT_S)
        if message is None or message.error():
            sys.exit("cannot read: %s" % (message and message.error()))
        name, number = map(int, message.value().split(b"-")[:2])
        logs[message.partition()].append((message.offset(), name, number))
    return logs


def judge(logs):
    missing = twice = moved = 0
    for partition, log in logs.items():
        at = {offset: (name, number) for offset, name, number in log}
        for name in range(PRODUCERS):
            numbers = [number for _, other, number in log if other == name]
            twice += len(numbers) - len(set(numbers))
            moved += sum(later < earlier for earlier, later in zip(numbers, numbers[1:]))
            told_offsets = delivered[name, partition]
            missing += sum(at.get(offset) != (name, number) for number, offset in told_offsets.items())
    return f"missing {missing} twice {twice} moved {moved} refused {len(refused)} {refused[:1]}"


writer = threading.Thread(target=write, args=([producer() for _ in range(PRODUCERS)],))
writer.start()
for line in sys.stdin:
    if line.strip() == "count":
        print(count, flush=True)
        continue
    stop.set()
    writer.join()
    print(judge(read()), flush=True)
    break
