import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs the main methods of Kafka's command-line tools, one after the other in one machine. A line of JSON on standard
 * input names the class, its arguments and what it shall read; a line of JSON answers with what it printed and the code
 * that it would have ended with.
 */
public class ToolRunner {
    /** Carries an exit code out of a tool. An error, since tools catch exceptions. */
    private static final class Exited extends Error {
        Exited() {
            super("the tool ended", null, false, false);
        }
    }

    /** What a tool would do when its own machine ends. */
    private static final List<Runnable> HOOKS = new ArrayList<>();
    /** What the tool prints. */
    private static PrintStream out;
    private static PrintStream err;
    /** The code of the first exit, if there was one. */
    private static Integer code;

    public static void main(String[] unused) throws Exception {
        PrintStream answers = System.out;
        BufferedReader steps = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        ObjectMapper json = new ObjectMapper();
        Exit.setExitProcedure((status, message) -> end(status, message));
        Exit.setHaltProcedure((status, message) -> end(status, message));
        Exit.setShutdownHookAdder((name, hook) -> HOOKS.add(hook));
        for (String line = steps.readLine(); line != null; line = steps.readLine()) {
            var step = json.readTree(line);
            List<String> arguments = new ArrayList<>();
            step.get("arguments").forEach(argument -> arguments.add(argument.asText()));
            var printed = new ByteArrayOutputStream();
            var complained = new ByteArrayOutputStream();
            out = new PrintStream(printed, true, StandardCharsets.UTF_8);
            err = new PrintStream(complained, true, StandardCharsets.UTF_8);
            System.setIn(new ByteArrayInputStream(step.get("input").asText().getBytes(StandardCharsets.UTF_8)));
            run(step.get("class").asText(), arguments.toArray(new String[0]));
            out.flush();
            err.flush();
            ObjectNode answer = json.createObjectNode();
            answer.put("code", code == null ? 0 : code);
            answer.put("out", printed.toString(StandardCharsets.UTF_8));
            answer.put("err", complained.toString(StandardCharsets.UTF_8));
            answers.println(json.writeValueAsString(answer));
            answers.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    private static void end(int status, String message) {
        if (code == null) {
            code = status;
            if (message != null) {
                System.err.println(message);
            }
        }
        // Whatever a handler on the way out prints would not be printed by a machine that ends.
        System.setOut(new PrintStream(OutputStream.nullOutputStream()));
        System.setErr(new PrintStream(OutputStream.nullOutputStream()));
        throw new Exited();
    }

    private static void run(String tool, String[] arguments) throws Exception {
        code = null;
        HOOKS.clear();
        System.setOut(out);
        System.setErr(err);
        try {
            Class.forName(tool).getMethod("main", String[].class).invoke(null, (Object) arguments);
        } catch (InvocationTargetException thrown) {
            if (!(thrown.getCause() instanceof Exited) && code == null) {
                // As a machine of its own would tell of it.
                System.err.print("Exception in thread \"main\" ");
                thrown.getCause().printStackTrace();
                code = 1;
            }
        }
        System.setOut(out);
        System.setErr(err);
        for (Runnable hook : List.copyOf(HOOKS)) {
            try {
                hook.run();
            } catch (Exited again) {
                // The code of the first exit counts.
            }
        }
    }
}
