import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Fills the topics of a running Kafka and lists, with a consumer, every record they hold.
 *
 * <p>Usage: Workload BOOTSTRAP first | second | sized | create TOPIC,... | list FILE. "first" creates and fills the topics, "second" appends
 * more under a later leader epoch and leaves one transaction open, "sized" fills a topic whose segments roll by
 * size, "create" makes empty topics, "list" writes the records as JSON.
 */
public final class Workload {
    private static final long BASE_TIMESTAMP_MS = 1_700_000_000_000L;
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    private static final Duration DEADLINE = Duration.ofSeconds(60);
    private static final int COMPACTED_KEYS = 5;

    private final String bootstrap;

    private Workload(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] arguments) throws Exception {
        Workload workload = new Workload(arguments[0]);
        switch (arguments[1]) {
            case "first" -> workload.first();
            case "second" -> workload.second();
            case "sized" -> workload.sized();
            case "create" -> workload.create(arguments[2].split(","));
            case "list" -> workload.list(arguments[2]);
            default -> throw new IllegalArgumentException(arguments[1]);
        }
        // An open transaction must stay open: a normal exit would close its producer and abort it.
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    private void first() throws Exception {
        createTopics();
        for (String codec : CODECS) {
            fillCodec(codec, 0);
        }
        fillSegments(0, 40);
        fillIdempotent(0);
        fillTransactions(0);
        fillCompacted();
        fillPlain("append-time", "lz4", 0, 10);
        fillPlain("deleted-head", "none", 0, 10);
        try (Admin admin = admin()) {
            TopicPartition partition = new TopicPartition("deleted-head", 0);
            admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(7))).all().get();
        }
    }

    private void second() throws Exception {
        for (String codec : CODECS) {
            fillCodec(codec, 100);
        }
        fillSegments(40, 50);
        fillIdempotent(100);
        fillTransactions(100);
        fillPlain("deleted-head", "zstd", 10, 5);
        awaitCompaction();
        leaveOpen();
    }

    private void create(String[] names) throws Exception {
        try (Admin admin = admin()) {
            admin.createTopics(Arrays.stream(names).map(name -> topic(name, Map.of())).toList()).all().get();
        }
    }

    /** Kafka takes no segment size below 1 MiB: too much for files that are kept. */
    private void sized() throws Exception {
        try (Admin admin = admin()) {
            admin.createTopics(List.of(topic("sized", Map.of("segment.bytes", "1048576")))).all().get();
        }
        try (KafkaProducer<byte[], byte[]> producer = producer("none", Map.of())) {
            for (int n = 0; n < 400; n++) {
                byte[] value = ("row " + n + " of a long table ").repeat(500).getBytes(StandardCharsets.UTF_8);
                producer.send(record("sized", n, bytes("k" + n), value));
                if (n % 4 == 3) {
                    producer.flush();
                }
            }
        }
    }

    private void createTopics() throws Exception {
        List<NewTopic> topics = new ArrayList<>();
        for (String codec : CODECS) {
            topics.add(topic("codec-" + codec, Map.of("index.interval.bytes", "512")));
        }
        topics.add(topic("segments", Map.of("segment.ms", "60000", "index.interval.bytes", "128")));
        topics.add(topic("idempotent", Map.of("segment.ms", "60000")));
        topics.add(topic("transactions", Map.of("segment.ms", "60000", "index.interval.bytes", "128")));
        topics.add(topic("open", Map.of()));
        topics.add(topic("append-time", Map.of("message.timestamp.type", "LogAppendTime")));
        topics.add(topic("deleted-head", Map.of()));
        topics.add(topic("empty", Map.of()));
        topics.add(topic("compacted", Map.of(
            "cleanup.policy", "compact", "segment.ms", "60000", "min.cleanable.dirty.ratio", "0.01",
            "index.interval.bytes", "128")));
        try (Admin admin = admin()) {
            admin.createTopics(topics).all().get();
        }
    }

    private static NewTopic topic(String name, Map<String, String> settings) {
        return new NewTopic(name, 1, (short) 1).configs(settings);
    }

    private void fillCodec(String codec, int from) {
        try (KafkaProducer<byte[], byte[]> producer = producer(codec, Map.of("enable.idempotence", "false"))) {
            everyShape("codec-" + codec, from).forEach(producer::send);
            producer.flush();
            for (int n = 0; n < 16; n++) {
                byte[] value = ("row " + n + " ").repeat(60).getBytes(StandardCharsets.UTF_8);
                producer.send(record("codec-" + codec, from + 20 + n, bytes("k" + n), value));
            }
        }
    }

    private void fillPlain(String topic, String codec, int from, int count) {
        try (KafkaProducer<byte[], byte[]> producer = producer(codec, Map.of("enable.idempotence", "false"))) {
            for (int n = from; n < from + count; n++) {
                producer.send(record(topic, n, bytes("k" + n), bytes("value " + n)));
                producer.flush();
            }
        }
    }

    /** Batches 10 s apart: every seventh starts a segment. */
    private void fillSegments(int from, int to) {
        try (KafkaProducer<byte[], byte[]> producer = producer("snappy", Map.of("enable.idempotence", "false"))) {
            for (int n = from; n < to; n++) {
                producer.send(record("segments", n * 10_000, bytes("k" + n), bytes("first " + n)));
                producer.send(record("segments", n * 10_000 - 500, null, bytes("second " + n)));
                producer.flush();
            }
        }
    }

    private void fillIdempotent(int from) {
        try (KafkaProducer<byte[], byte[]> one = producer("none", Map.of());
                KafkaProducer<byte[], byte[]> other = producer("zstd", Map.of())) {
            for (int n = from; n < from + 12; n++) {
                KafkaProducer<byte[], byte[]> producer = n % 3 == 0 ? other : one;
                producer.send(record("idempotent", n * 10_000, bytes("k" + n), bytes("v" + n)));
                producer.send(record("idempotent", n * 10_000 + 1, bytes("k" + n), null));
                producer.flush();
            }
        }
    }

    /** Two transactional producers whose transactions overlap, one of each committed and aborted, and plain records between. */
    private void fillTransactions(int from) {
        try (KafkaProducer<byte[], byte[]> one = producer("lz4", Map.of("transactional.id", "one"));
                KafkaProducer<byte[], byte[]> other = producer("gzip", Map.of("transactional.id", "other"));
                KafkaProducer<byte[], byte[]> plain = producer("none", Map.of("enable.idempotence", "false"))) {
            one.initTransactions();
            other.initTransactions();
            for (int n = from; n < from + 5; n++) {
                one.beginTransaction();
                send(one, "transactions", n * 10_000, "one " + n);
                other.beginTransaction();
                send(other, "transactions", n * 10_000 + 1, "other " + n);
                send(plain, "transactions", n * 10_000 + 2, "plain " + n);
                send(one, "transactions", n * 10_000 + 3, "one again " + n);
                end(one, n % 2 == 0);
                send(other, "transactions", n * 10_000 + 4, "other again " + n);
                end(other, n % 3 == 0);
            }
        }
    }

    private static void send(KafkaProducer<byte[], byte[]> producer, String topic, long after, String text) {
        for (int n = 0; n < 3; n++) {
            producer.send(record(topic, after, bytes(text), bytes(text + " / " + n)));
        }
        producer.flush();
    }

    private static void end(KafkaProducer<byte[], byte[]> producer, boolean commit) {
        if (commit) {
            producer.commitTransaction();
        } else {
            producer.abortTransaction();
        }
    }

    /** Keys that repeat, a tombstone, a committed and an aborted transaction, and at the end a record that rolls the segment. */
    private void fillCompacted() {
        try (KafkaProducer<byte[], byte[]> plain = producer("zstd", Map.of("enable.idempotence", "false"));
                KafkaProducer<byte[], byte[]> transactional = producer("none", Map.of("transactional.id", "compacted"))) {
            for (int n = 0; n < 30; n++) {
                plain.send(record("compacted", n * 10_000, bytes("key-" + n % COMPACTED_KEYS), bytes("version " + n)));
                plain.send(record("compacted", n * 10_000, bytes("busy"), bytes("version " + n)));
                plain.flush();
            }
            transactional.initTransactions();
            transactional.beginTransaction();
            transactional.send(record("compacted", 301_000, bytes("key-0"), bytes("committed")));
            transactional.commitTransaction();
            transactional.beginTransaction();
            transactional.send(record("compacted", 302_000, bytes("key-1"), bytes("aborted")));
            // Otherwise the record is dropped before it reaches the log.
            transactional.flush();
            transactional.abortTransaction();
            plain.send(record("compacted", 303_000, bytes("key-2"), null));
            plain.flush();
            // The markers above carry the time of day, and so does the segment they opened: only a later time rolls it.
            long later = System.currentTimeMillis() - BASE_TIMESTAMP_MS + 600_000;
            plain.send(record("compacted", later, bytes("tail"), bytes("in the active segment")));
        }
    }

    private void awaitCompaction() throws InterruptedException {
        long end = System.nanoTime() + DEADLINE.toNanos();
        while (System.nanoTime() < end) {
            Set<String> keys = new HashSet<>();
            List<ConsumerRecord<byte[], byte[]>> found = read(new TopicPartition("compacted", 0), "read_uncommitted");
            found.forEach(record -> keys.add(new String(record.key(), StandardCharsets.UTF_8)));
            // key-0 to key-4, busy and tail, each once: what an aborted transaction wrote is gone too.
            if (found.size() == COMPACTED_KEYS + 2 && keys.size() == found.size()) {
                return;
            }
            Thread.sleep(100);
        }
        throw new IllegalStateException("the compacted topic was not compacted within " + DEADLINE);
    }

    private void leaveOpen() throws Exception {
        KafkaProducer<byte[], byte[]> producer =
            producer("snappy", Map.of("transactional.id", "open", "transaction.timeout.ms", "600000"));
        producer.initTransactions();
        producer.beginTransaction();
        send(producer, "open", 0, "committed");
        producer.commitTransaction();
        producer.beginTransaction();
        send(producer, "open", 10, "never decided");
    }

    private static List<ProducerRecord<byte[], byte[]>> everyShape(String topic, long after) {
        byte[] all = new byte[256];
        for (int n = 0; n < all.length; n++) {
            all[n] = (byte) n;
        }
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>(List.of(
            record(topic, after, bytes("key-0"), bytes("value-0")),
            record(topic, after + 7, null, bytes("a value without a key")),
            record(topic, after - 1_000, bytes("a key without a value"), null),
            record(topic, after + 1, null, null),
            record(topic, after + 2, new byte[0], new byte[0]),
            record(topic, after + 3, all, all)));
        ProducerRecord<byte[], byte[]> repeated = record(topic, after + 4, bytes("repeated"), bytes("v"));
        repeated.headers().add("retry", bytes("1")).add("retry", bytes("2")).add("null", null).add("retry", bytes("1"));
        repeated.headers().add("empty", new byte[0]).add("gr\u00fc\u00dfe \u65e5\u672c", new byte[] {0, -1});
        ProducerRecord<byte[], byte[]> many = record(topic, after + 5, bytes("many"), bytes("text ".repeat(60)));
        for (int n = 0; n < 40; n++) {
            many.headers().add("h" + n, bytes(Integer.toString(n)));
        }
        records.addAll(List.of(repeated, many));
        return records;
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, long after, byte[] key, byte[] value) {
        return new ProducerRecord<>(topic, 0, BASE_TIMESTAMP_MS + after, key, value);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private Admin admin() {
        return Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    private KafkaProducer<byte[], byte[]> producer(String codec, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of(
            "bootstrap.servers", bootstrap, "compression.type", codec, "linger.ms", "5000", "batch.size", "1000000"));
        settings.putAll(more);
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private List<ConsumerRecord<byte[], byte[]>> read(TopicPartition partition, String isolation) {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", bootstrap, "isolation.level", isolation, "check.crcs", "true",
            "enable.auto.commit", "false", "fetch.max.wait.ms", "20", "auto.offset.reset", "earliest");
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            long deadline = System.nanoTime() + DEADLINE.toNanos();
            while (consumer.position(partition) < end) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException(partition + " was not read to " + end + " within " + DEADLINE);
                }
                consumer.poll(Duration.ofMillis(100)).forEach(found::add);
            }
        }
        return found;
    }

    private void list(String file) throws Exception {
        Map<String, String> partitions = new TreeMap<>();
        try (Admin admin = admin()) {
            for (String topic : admin.listTopics().names().get()) {
                TopicPartition partition = new TopicPartition(topic, 0);
                List<String> records = new ArrayList<>();
                read(partition, "read_uncommitted").forEach(record -> records.add(describe(record)));
                List<Long> committed = read(partition, "read_committed").stream().map(ConsumerRecord::offset).toList();
                partitions.put(partition.toString(), "\"" + partition + "\":{\"committed\":" + committed
                    + ",\"records\":[\n" + String.join(",\n", records) + "]}");
            }
        }
        try (PrintStream out = new PrintStream(file, StandardCharsets.UTF_8)) {
            out.print("{" + String.join(",\n", partitions.values()) + "}\n");
        }
    }

    private static String describe(ConsumerRecord<byte[], byte[]> record) {
        List<String> headers = new ArrayList<>();
        for (Header header : record.headers()) {
            headers.add("[\"" + header.key() + "\"," + hex(header.value()) + "]");
        }
        return "{\"offset\":" + record.offset() + ",\"timestamp\":" + record.timestamp() + ",\"key\":" + hex(record.key())
            + ",\"value\":" + hex(record.value()) + ",\"headers\":[" + String.join(",", headers) + "]}";
    }

    /** Null, hex, or [hex, times] for long bytes that repeat a short unit, as in the Python half. */
    private static String hex(byte[] data) {
        if (data == null) {
            return "null";
        }
        HexFormat format = HexFormat.of();
        for (int unit = 1; data.length > 256 && unit <= 64; unit++) {
            if (data.length % unit == 0 && Arrays.equals(data, 0, data.length - unit, data, unit, data.length)) {
                return "[\"" + format.formatHex(data, 0, unit) + "\"," + data.length / unit + "]";
            }
        }
        return "\"" + format.formatHex(data) + "\"";
    }
}
