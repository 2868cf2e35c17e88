'use strict';
// kafkajs as administrator and producer: driver.js create|produce BOOTSTRAP FILE. The README beside this directory
// describes the lines of FILE and of the answers.

const fs = require('node:fs');
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs');

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy');

const CODECS = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy };

const lines = (path) => fs.readFileSync(path, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
const plain = (text) => (text === null ? null : Buffer.from(text, 'base64'));
const tell = (fact) => process.stdout.write(`${JSON.stringify(fact)}\n`);

function message(record, partition) {
  const headers = {};
  for (const [name, value] of record.headers) {
    headers[name] = [...(headers[name] ?? []), plain(value)];
  }
  const { timestamp } = record;
  return {
    partition, key: plain(record.key), value: plain(record.value), headers,
    ...(timestamp === null ? {} : { timestamp: String(timestamp) }),
  };
}

async function create(kafka, topics) {
  const admin = kafka.admin();
  await admin.connect();
  for (const { topic, partitions, replication } of topics) {
    const created = await admin.createTopics({
      topics: [{ topic, numPartitions: partitions, replicationFactor: replication }],
    });
    if (!created) throw new Error(`${topic} was there already`);
  }
  await admin.disconnect();
}

/** One request holds one batch: small records go together, a large one goes alone. */
function batches(messages) {
  const LARGE = 500_000;
  const found = [[]];
  for (const next of messages) {
    const last = found.at(-1);
    const is_large = (of) => (of.value?.length ?? 0) >= LARGE;
    if (last.length > 0 && (is_large(next) || is_large(last.at(-1)))) found.push([next]);
    else last.push(next);
  }
  return found;
}

async function produce(kafka, cases) {
  for (const { topic, partition, codec, idempotent, records } of cases) {
    const producer = kafka.producer({ idempotent, ...(idempotent ? { maxInFlightRequests: 1 } : {}) });
    await producer.connect();
    for (const messages of batches(lines(records).map((record) => message(record, partition)))) {
      const told = await producer.send({ topic, acks: -1, compression: CODECS[codec], messages });
      const base = Number(told[0].baseOffset);
      messages.forEach((_, place) => tell({ topic, partition, offset: base + place }));
    }
    await producer.disconnect();
  }
}

async function main([command, bootstrap, path]) {
  const kafka = new Kafka({ clientId: 'kafkajs', brokers: bootstrap.split(','), logLevel: logLevel.ERROR });
  const commands = { create, produce };
  if (!commands[command]) throw new Error(`no command ${command}`);
  await commands[command](kafka, lines(path));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
