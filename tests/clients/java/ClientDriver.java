import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.Metric;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Java's clients: ClientDriver create|produce|consume|sum BOOTSTRAP FILE [RACK].
 *
 * <p>The README beside this directory describes the lines of FILE and of the answers.
 */
public final class ClientDriver {
    private static final Duration PATIENCE = Duration.ofSeconds(60);
    private static final int LARGE_BYTES = 2 << 20;
    private static final ObjectMapper JSON = new ObjectMapper();

    private final String bootstrap;
    private final String rack;
    private final PrintStream out = new PrintStream(new BufferedOutputStream(System.out, 1 << 16), false, StandardCharsets.UTF_8);

    private ClientDriver(String bootstrap, String rack) {
        this.bootstrap = bootstrap;
        this.rack = rack;
    }

    public static void main(String[] arguments) throws Exception {
        ClientDriver driver = new ClientDriver(arguments[1], arguments.length > 3 ? arguments[3] : "");
        List<JsonNode> work = lines(arguments[2]);
        switch (arguments[0]) {
            case "create" -> driver.create(work);
            case "produce" -> driver.produce(work);
            case "consume" -> driver.consume(work);
            case "sum" -> driver.sum(work);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        driver.out.flush();
    }

    private static List<JsonNode> lines(String path) throws IOException {
        List<JsonNode> found = new ArrayList<>();
        for (String line : Files.readAllLines(Path.of(path))) {
            found.add(JSON.readTree(line));
        }
        return found;
    }

    private void create(List<JsonNode> topics) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            List<NewTopic> wanted = new ArrayList<>();
            for (JsonNode topic : topics) {
                wanted.add(new NewTopic(
                    topic.get("topic").asText(), topic.get("partitions").asInt(), topic.get("replication").shortValue()));
            }
            admin.createTopics(wanted).all().get();
        }
    }

    private void produce(List<JsonNode> cases) throws Exception {
        for (JsonNode one : cases) {
            Map<String, Object> settings = Map.of(
                "bootstrap.servers", bootstrap, "acks", "all", "linger.ms", 200, "batch.size", 1 << 19,
                "max.request.size", LARGE_BYTES, "compression.type", one.get("codec").asText(),
                "enable.idempotence", one.get("idempotent").asBoolean(),
                // Without idempotence a batch that is sent again may come after its successor.
                "max.in.flight.requests.per.connection", one.get("idempotent").asBoolean() ? 5 : 1);
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            try (KafkaProducer<byte[], byte[]> producer =
                    new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
                for (JsonNode record : lines(one.get("records").asText())) {
                    sent.add(producer.send(recordOf(one, record)));
                }
                producer.flush();
            }
            for (Future<RecordMetadata> future : sent) {
                out.println(JSON.createObjectNode()
                    .put("topic", one.get("topic").asText())
                    .put("partition", one.get("partition").asInt())
                    .put("offset", future.get().offset()));
            }
        }
    }

    private static ProducerRecord<byte[], byte[]> recordOf(JsonNode one, JsonNode record) {
        List<Header> headers = new ArrayList<>();
        for (JsonNode header : record.get("headers")) {
            headers.add(new RecordHeader(header.get(0).asText(), plain(header.get(1))));
        }
        Long timestamp = record.get("timestamp").isNull() ? null : record.get("timestamp").asLong();
        return new ProducerRecord<>(
            one.get("topic").asText(), one.get("partition").asInt(), timestamp, plain(record.get("key")),
            plain(record.get("value")), headers);
    }

    private static byte[] plain(JsonNode text) {
        return text.isNull() ? null : Base64.getDecoder().decode(text.asText());
    }

    private KafkaConsumer<byte[], byte[]> consumer() {
        Map<String, Object> settings = new HashMap<>(Map.of(
            "bootstrap.servers", bootstrap, "enable.auto.commit", false, "auto.offset.reset", "none", "check.crcs", true,
            // An empty partition's fetch holds up the next partition's on the same connection for as long.
            "fetch.max.wait.ms", 20));
        if (!rack.isEmpty()) {
            settings.put("client.rack", rack);
        }
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private void consume(List<JsonNode> reads) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            for (JsonNode read : reads) {
                TopicPartition place = new TopicPartition(read.get("topic").asText(), read.get("partition").asInt());
                consumer.assign(List.of(place));
                tell(read, false);
                seek(consumer, place, read);
                long until = read.get("until").asLong();
                for (long next = 0; next < until; ) {
                    List<ConsumerRecord<byte[], byte[]>> polled = poll(consumer, place);
                    for (ConsumerRecord<byte[], byte[]> record : polled) {
                        next = record.offset() + 1;
                        if (next <= until) {
                            tell(record);
                        }
                    }
                }
                if (!rack.isEmpty()) {
                    out.println(JSON.createObjectNode().put("preferred", preferredReplica(consumer)));
                }
            }
        }
    }

    private void seek(KafkaConsumer<byte[], byte[]> consumer, TopicPartition place, JsonNode read) {
        JsonNode from = read.get("from");
        if (from.asText().equals("beginning")) {
            consumer.seekToBeginning(List.of(place));
        } else if (from.asText().equals("end")) {
            consumer.seekToEnd(List.of(place));
            // Waits until the end is known.
            consumer.position(place);
            tell(read, true);
        } else if (from.has("offset")) {
            consumer.seek(place, from.get("offset").asLong());
        } else {
            consumer.seek(place, consumer.offsetsForTimes(Map.of(place, from.get("timestamp").asLong())).get(place).offset());
        }
    }

    private static List<ConsumerRecord<byte[], byte[]>> poll(KafkaConsumer<byte[], byte[]> consumer, TopicPartition place) {
        List<ConsumerRecord<byte[], byte[]>> polled = consumer.poll(PATIENCE).records(place);
        if (polled.isEmpty()) {
            throw new IllegalStateException("nothing came for " + PATIENCE + " from " + place);
        }
        return polled;
    }

    /** The broker that the leader sent this consumer to, as its metrics tell; -1 if it reads from the leader. */
    private static int preferredReplica(KafkaConsumer<byte[], byte[]> consumer) {
        for (Metric metric : consumer.metrics().values()) {
            if (metric.metricName().name().equals("preferred-read-replica")) {
                return ((Number) metric.metricValue()).intValue();
            }
        }
        return -1;
    }

    private void tell(JsonNode read, boolean ready) {
        out.println(JSON.createObjectNode().put("read", read.get("read").asInt()).put("ready", ready));
        out.flush();
    }

    private void tell(ConsumerRecord<byte[], byte[]> record) throws Exception {
        var headers = JSON.createArrayNode();
        for (Header header : record.headers()) {
            headers.add(JSON.createArrayNode().add(header.key()).add(hashed(header.value())));
        }
        out.println(JSON.createObjectNode()
            .put("offset", record.offset())
            .put("timestamp", record.timestamp())
            .put("key", hashed(record.key()))
            .put("value", hashed(record.value()))
            .set("headers", headers));
    }

    private static String hashed(byte[] data) throws Exception {
        return data == null ? null : HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
    }

    /** Reads each partition to an offset, and tells one hash over all its records. */
    private void sum(List<JsonNode> reads) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            for (JsonNode read : reads) {
                TopicPartition place = new TopicPartition(read.get("topic").asText(), read.get("partition").asInt());
                consumer.assign(List.of(place));
                consumer.seekToBeginning(List.of(place));
                MessageDigest digest = MessageDigest.getInstance("SHA-256");
                long until = read.get("until").asLong();
                long count = 0;
                for (long next = 0; next < until; ) {
                    for (ConsumerRecord<byte[], byte[]> record : poll(consumer, place)) {
                        next = record.offset() + 1;
                        count++;
                        add(digest, record.key());
                        add(digest, record.value());
                    }
                }
                out.println(JSON.createObjectNode()
                    .put("partition", place.partition())
                    .put("records", count)
                    .put("sum", HexFormat.of().formatHex(digest.digest())));
            }
        }
    }

    private static void add(MessageDigest digest, byte[] part) {
        digest.update(ByteBuffer.allocate(Integer.BYTES).putInt(0, part.length));
        digest.update(part);
    }
}
