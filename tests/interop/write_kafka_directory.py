#!/usr/bin/env python3
"""Lets Apache Kafka write a log directory and notes what is in it, in Kafka's own words.

    write_kafka_directory.py --libs JARS --out DIR [--sized]

DIR/data is the directory as Kafka left it after a clean stop. DIR/truth holds records.json (every record, read by
Kafka's consumer before the stop), fetched.json (what Fetch answered for each partition) and dump.txt (what
DumpLogSegments printed for the files after the stop). With --sized one topic has segments that rolled by size.
"""

import argparse
import json
import pathlib
import shutil
import tempfile

import kafka_node
import wire

WORKLOAD = pathlib.Path(__file__).resolve().parent / "java" / "Workload.java"
DUMPED = (".log", ".index", ".timeindex", ".txnindex", ".snapshot")


def identity(batch):
    """What tells a batch from every other: the checksum covers all that follows these fields."""
    header = wire.describe_header(batch)
    return [header[field] for field in ("base_offset", "size", "leader_epoch", "crc")]


def fetched(node, partitions):
    """Per partition: its offsets, aborted transactions, and its batches, by Fetch."""
    broker = wire.Broker("127.0.0.1", node.port)
    answers = {}
    for partition, listed in partitions.items():
        topic, number = partition.rsplit("-", 1)
        first_record = min((record["offset"] for record in listed["records"]), default=0)
        start = broker.fetch(topic, int(number), first_record).log_start
        answer, aborted = broker.fetch(topic, int(number), start), set()
        for data in broker.read(topic, int(number), start, answer.last_stable, committed=True):
            aborted.update(data.aborted)
        data = broker.read_all(topic, int(number), start)
        answers[partition] = {
            "log_start_offset": start,
            "high_watermark": answer.high_watermark,
            "last_stable_offset": answer.last_stable,
            "aborted": sorted(aborted),
            "batches": [identity(batch) for batch in wire.batches(data)],
        }
    broker.close()
    return answers


def dump(node):
    """One run of DumpLogSegments over every file of the topics made here, with paths made relative to the directory.

    Findings come last, among them a gap from -1 to the start of every segment but the first, which is no gap.
    Of the lines about single records only those of transaction markers are kept; consumers see all others.
    """
    paths = [path for path in sorted(node.data.glob("[!_]*/*")) if path.suffix in DUMPED]
    tool = ["org.apache.kafka.tools.DumpLogSegments", "--deep-iteration", "--files", ",".join(map(str, paths))]
    text = node.run(*tool, errors=True)
    lines = text.replace(f"{node.data}/", "").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("| ") or "endTxnMarker" in line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libs", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--sized", action="store_true")
    arguments = parser.parse_args()
    out = arguments.out
    truth = out / "truth"
    truth.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        node = kafka_node.Node(arguments.libs, folder)
        node.format()
        try:
            node.start()
            node.run(str(WORKLOAD), node.bootstrap, "first")
            node.stop()
            node.start()
            node.run(str(WORKLOAD), node.bootstrap, "second")
            if arguments.sized:
                node.run(str(WORKLOAD), node.bootstrap, "sized")
            node.run(str(WORKLOAD), node.bootstrap, "list", str(truth / "records.json"))
            records = json.loads((truth / "records.json").read_text(encoding="utf-8"))
            (truth / "fetched.json").write_text(json.dumps(fetched(node, records)).replace("}, ", "},\n") + "\n")
            node.stop()
        finally:
            node.kill()
        (truth / "dump.txt").write_text(dump(node), encoding="utf-8")
        shutil.copytree(node.data, out / "data", ignore=shutil.ignore_patterns(".lock"))


if __name__ == "__main__":
    main()
