"""One Apache Kafka node, broker and controller in one process, on loopback ports that the system chose.

Standard library only: the jars come from java/pom.xml.
"""

import pathlib
import signal
import socket
import subprocess
import time

RUN_LIMIT_S = 180
START_LIMIT_S = 90
STOP_LIMIT_S = 60
STARTS = 3

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "log.retention.ms": -1,
    "log.cleaner.backoff.ms": 100,
    "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
    "log.index.size.max.bytes": 64 * 1024,
}


class NotStarted(Exception):
    """Kafka ended, or did not listen in time; the message carries the end of what it printed."""


class Node:
    """`libs` is the folder of jars; `folder` receives properties, what Kafka prints and, in `data`, the log directory."""

    def __init__(self, libs, folder):
        self.libs = pathlib.Path(libs).resolve()
        self.folder = pathlib.Path(folder).resolve()
        self.data = self.folder / "data"
        self.properties = self.folder / "server.properties"
        self.output = self.folder / "output"
        self.port = None
        self.process = None

    def java(self, *arguments, level="error"):
        logger = f"-Dorg.slf4j.simpleLogger.defaultLogLevel={level}"
        return ["java", "-XX:TieredStopAtLevel=1", logger, "-cp", f"{self.libs}/*", *arguments]

    def run(self, *arguments, errors=False):
        """What a Java program prints; with `errors` followed by what it has to complain of."""
        command = self.java(*arguments)
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=RUN_LIMIT_S)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr if errors else done.stdout

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    def format(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_properties()
        cluster = self.run("kafka.tools.StorageTool", "random-uuid").strip()
        self.run("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self.properties), "--standalone")

    def write_properties(self):
        self.port, controller = free_ports(2)
        listeners = f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}"
        settings = SETTINGS | {
            "listeners": listeners,
            "advertised.listeners": listeners,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "log.dirs": self.data,
        }
        self.properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def start(self):
        """Another process may take a port between the choice and the start, so a failed start is tried again."""
        for attempt in range(STARTS):
            if attempt or self.process is not None:
                self.write_properties()
            try:
                return self.start_once()
            except NotStarted:
                if attempt == STARTS - 1:
                    raise

    def start_once(self):
        with self.output.open("wb") as sink:
            command = self.java("-Xmx512m", "kafka.Kafka", str(self.properties), level="info")
            self.process = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            with socket.socket() as probe:
                probe.settimeout(0.5)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        self.kill()
        raise NotStarted(self.output.read_text(errors="replace")[-4000:])

    def stop(self):
        """A clean stop: Kafka flushes its logs, writes the producer snapshots and leaves its mark."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise SystemExit(f"Kafka did not stop within {STOP_LIMIT_S} s") from None
        if code not in (0, 143):
            raise SystemExit(f"Kafka stopped with {code}")

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def free_ports(count):
    """Ports nobody listened on a moment ago; held together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
