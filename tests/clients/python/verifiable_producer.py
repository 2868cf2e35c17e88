"""Idempotent producers that write at a steady rate until SIGTERM, and tell of each record what became of it.

Usage: verifiable_producer.py CLIENT BOOTSTRAP TOPIC PARTITIONS PREFIX RATE. CLIENT is librdkafka or kafka-python, RATE
in records per second over all partitions, which take turns. The values are "PREFIX.NUMBER", then a space and padding.
The lines are those of Kafka's VerifiableProducer, with times in fractions of milliseconds since 1970.

KLAMM_CHAOS_BACKOFF_MS sets how long the clients wait before they send again, which is 100 ms by their defaults.
"""

import json
import os
import signal
import sys
import threading
import time

PADDING = " " + 100 * "x"
STOP_LIMIT_S = 150
BACKOFF_MS = os.environ.get("KLAMM_CHAOS_BACKOFF_MS")

printing = threading.Lock()


def tell(name, **facts):
    line = json.dumps({"name": name, "timestamp": time.time() * 1000, **facts}) + "\n"
    with printing:
        sys.stdout.write(line)
        sys.stdout.flush()


class Stop:
    """Whether SIGTERM came. An event of `threading` would lock its setter out if the signal came while it is looked at."""

    asked = False

    def ask(self, *_):
        self.asked = True


class Tally:
    """Counts what was sent and acknowledged, and tells of every record."""

    def __init__(self):
        self.sent = self.acked = 0

    def delivered(self, value, partition, offset):
        self.acked += 1
        # A batch that was appended long before it was acknowledged has no offset that anybody knows.
        known = -1 if offset is None or offset < 0 else offset
        tell("producer_send_success", value=value.split(" ")[0], partition=partition, offset=known)

    def failed(self, value, error):
        tell("producer_send_error", value=value.split(" ")[0], exception=type(error).__name__, message=str(error))


class Librdkafka:
    """All settings but those that are named are the client's defaults."""

    def __init__(self, bootstrap, tally):
        from confluent_kafka import Producer
        self.tally = tally
        self.producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "log_level": 3,
            **({"retry.backoff.ms": int(BACKOFF_MS)} if BACKOFF_MS else {}),
        })

    def send(self, topic, partition, value):
        def told(error, message):
            if error:
                self.tally.failed(value, error)
            else:
                self.tally.delivered(value, message.partition(), message.offset())
        while True:
            try:
                return self.producer.produce(topic, value=value, partition=partition, on_delivery=told)
            except BufferError:
                self.producer.poll(0.1)

    def wait(self, seconds):
        """Waits, and has what came meanwhile told at once."""
        end = time.monotonic() + seconds
        while True:
            self.producer.poll(max(0.0, end - time.monotonic()))
            if time.monotonic() >= end:
                return

    def close(self):
        self.producer.flush(STOP_LIMIT_S)


class KafkaPython:
    """All settings but those that are named are the client's defaults."""

    def __init__(self, bootstrap, tally):
        from kafka import KafkaProducer
        self.tally = tally
        backoff = {"retry_backoff_ms": int(BACKOFF_MS)} if BACKOFF_MS else {}
        self.producer = KafkaProducer(
            bootstrap_servers=bootstrap.split(","), enable_idempotence=True, acks="all", **backoff)

    def send(self, topic, partition, value):
        try:
            future = self.producer.send(topic, value=value.encode(), partition=partition)
        except Exception as error:
            self.tally.failed(value, error)
            return
        future.add_callback(lambda at: self.tally.delivered(value, at.partition, at.offset))
        future.add_errback(lambda error: self.tally.failed(value, error))

    def wait(self, seconds):
        time.sleep(seconds)

    def close(self):
        self.producer.close(STOP_LIMIT_S)


def main(name, bootstrap, topic, partitions, prefix, rate):
    stop = Stop()
    signal.signal(signal.SIGTERM, stop.ask)
    tally = Tally()
    client = {"librdkafka": Librdkafka, "kafka-python": KafkaPython}[name](bootstrap, tally)
    tell("startup_complete")
    due = time.monotonic()
    while not stop.asked:
        client.send(topic, tally.sent % int(partitions), f"{prefix}.{tally.sent}{PADDING}")
        tally.sent += 1
        # Whoever was held up does not make up for it with a burst.
        due = max(due + 1 / float(rate), time.monotonic() - 0.1)
        client.wait(max(0.0, due - time.monotonic()))
    client.close()
    tell("shutdown_complete")
    tell("tool_data", sent=tally.sent, acked=tally.acked)


if __name__ == "__main__":
    main(*sys.argv[1:])
