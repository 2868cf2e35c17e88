import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;

/**
 * Kafka's own serialisers behind a pipe.
 *
 * "recode": each line of the input is "MESSAGE VERSION HEX"; each line of the output is "ok HEX", the bytes that
 * the decoded message encodes to, or "no REASON". "facts": prints the tables of APIs and of error codes.
 */
public final class WireJudge {
    private static final String PACKAGE = "org.apache.kafka.common.message.";

    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        switch (arguments[0]) {
            case "recode" -> recodeLines(out);
            case "facts" -> printFacts(out);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        out.flush();
    }

    private static void recodeLines(PrintStream out) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split(" ", -1);
            byte[] body = HexFormat.of().parseHex(words[2]);
            try {
                out.println("ok " + HexFormat.of().formatHex(recode(words[0], Short.parseShort(words[1]), body)));
            } catch (RuntimeException refused) {
                out.println("no " + String.valueOf(refused).replace('\n', ' '));
            }
        }
    }

    private static byte[] recode(String name, short version, byte[] body) throws Exception {
        Message message = create(name);
        ByteBuffer in = ByteBuffer.wrap(body);
        message.read(new ByteBufferAccessor(in), version);
        if (in.hasRemaining()) {
            throw new IllegalStateException(in.remaining() + " bytes left");
        }
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer encoded = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(encoded), cache, version);
        if (encoded.hasRemaining()) {
            throw new AssertionError("size and write disagree");
        }
        return encoded.array();
    }

    private static Message create(String name) throws ReflectiveOperationException {
        Class<?> type;
        try {
            type = Class.forName(PACKAGE + name + "Data");
        } catch (ClassNotFoundException none) {
            type = Class.forName(PACKAGE + name);
        }
        return (Message) type.getDeclaredConstructor().newInstance();
    }

    private static void printFacts(PrintStream out) {
        for (ApiKeys key : ApiKeys.values()) {
            if (key.latestVersion() < key.oldestVersion()) {
                continue;
            }
            for (int version = key.oldestVersion(); version <= key.latestVersion(); version++) {
                short v = (short) version;
                boolean stable = version <= key.latestVersion(false);
                boolean broker = key.inScope(ApiMessageType.ListenerType.BROKER);
                boolean controller = key.inScope(ApiMessageType.ListenerType.CONTROLLER);
                out.println("api " + key.id + " " + key.name + " " + version + " " + stable + " "
                        + key.requestHeaderVersion(v) + " " + key.responseHeaderVersion(v) + " " + broker + " "
                        + controller);
            }
        }
        for (Errors error : Errors.values()) {
            boolean retriable = error.exception() instanceof RetriableException;
            out.println("error " + error.code() + " " + error.name() + " " + retriable);
        }
    }
}
