#!/usr/bin/env python3
"""Lets Apache Kafka open partitions that somebody else wrote, and notes what its consumers read from them.

    serve_directory.py --libs JARS --partitions DIR --out DIR

DIR holds folders TOPIC-0 as they lie in a log directory. Kafka knows topics by ids of its own choice, so it makes
empty ones first; after a clean stop the files of each are replaced, but for partition.metadata, and Kafka starts
again. It does so once as after a clean stop, when it trusts indexes and producer snapshots as they are, and once
without its mark of a clean stop and its recovery points, when it checks every batch and makes the indexes anew.
OUT receives clean.json and recovered.json with every record, and clean.output and recovered.output, what Kafka
printed.
"""

import argparse
import pathlib
import shutil
import tempfile

import kafka_node

WORKLOAD = pathlib.Path(__file__).resolve().parent / "java" / "Workload.java"
TRUST = (".kafka_cleanshutdown", "recovery-point-offset-checkpoint")
KEPT = "partition.metadata"


def replace(partitions, data):
    for source in partitions:
        target = data / source.name
        for path in target.iterdir():
            if path.name != KEPT:
                path.unlink()
        for path in source.iterdir():
            if path.name != KEPT:
                shutil.copyfile(path, target / path.name)


def listed(node, out, name):
    try:
        node.start()
        node.run(str(WORKLOAD), node.bootstrap, "list", str(out / f"{name}.json"))
        node.stop()
    finally:
        shutil.copyfile(node.output, out / f"{name}.output")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libs", type=pathlib.Path, required=True)
    parser.add_argument("--partitions", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    partitions = sorted(path for path in arguments.partitions.glob("*-0") if path.is_dir())
    with tempfile.TemporaryDirectory() as folder:
        node = kafka_node.Node(arguments.libs, folder)
        node.format()
        try:
            node.start()
            names = ",".join(path.name.removesuffix("-0") for path in partitions)
            node.run(str(WORKLOAD), node.bootstrap, "create", names)
            node.stop()
            for name in ("clean", "recovered"):
                replace(partitions, node.data)
                if name == "recovered":
                    for file in TRUST:
                        (node.data / file).unlink()
                listed(node, arguments.out, name)
        finally:
            node.kill()


if __name__ == "__main__":
    main()
