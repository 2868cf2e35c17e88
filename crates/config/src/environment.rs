//! Environment variables as the Apache image maps them to properties.

/// The property that a variable stands for: `KAFKA_` goes, letters become small, `_` is `.`, `__` is `_` and `___` is
/// `-`; longer rows of them, and those at an end, stay. `None` for a variable that stands for none: one without the prefix, and those that steer the image's scripts
/// and the Java machine.
#[must_use]
pub fn property_of_variable(variable: &str) -> Option<String> {
    let name = variable.strip_prefix("KAFKA_").filter(|name| !name.is_empty())?;
    if is_for_scripts(variable) {
        return None;
    }
    let mut property = String::with_capacity(name.len());
    let mut rest = name;
    while !rest.is_empty() {
        let letters = rest.find('_').unwrap_or(rest.len());
        let (text, after) = rest.split_at_checked(letters).unwrap_or((rest, ""));
        property.push_str(&text.to_lowercase());
        let run = after.len() - after.trim_start_matches('_').len();
        let (underscores, after) = after.split_at_checked(run).unwrap_or((after, ""));
        let is_between = !property.is_empty() && !after.is_empty();
        property.push_str(match underscores {
            "_" if is_between => ".",
            "__" if is_between => "_",
            "___" if is_between => "-",
            other => other,
        });
        rest = after;
    }
    Some(property)
}

/// Why a variable that Kafka knows has no effect here, though somebody may have set it on purpose. `None` for one that
/// stands for a property, and for those that nobody sets to configure a broker.
#[must_use]
pub fn reason_of_idle_variable(variable: &str) -> Option<&'static str> {
    const NO_JAVA: &str = "there is no Java machine whose memory or options it could set";
    const NO_JMX: &str =
        "there is no JMX; metrics are served in Prometheus format, as klamm.admin.listener says";
    const NO_LOG4J: &str = "there is no Log4j; klamm.log.level and klamm.log.format say what is logged";
    const NO_SCRIPTS: &str = "there are no start scripts that it could steer";
    match variable {
        "KAFKA_HEAP_OPTS" | "KAFKA_OPTS" | "KAFKA_JVM_PERFORMANCE_OPTS" | "KAFKA_GC_LOG_OPTS" => {
            Some(NO_JAVA)
        }
        "KAFKA_DEBUG" | "KAFKA_HOME" => Some(NO_SCRIPTS),
        "KAFKA_TOOLS_LOG4J_LOGLEVEL" => Some(NO_LOG4J),
        _ if variable.starts_with("KAFKA_JMX_") => Some(NO_JMX),
        _ if variable.starts_with("KAFKA_LOG4J_") => Some(NO_LOG4J),
        _ => None,
    }
}

/// Variables that the image leaves out of its properties: they are for its start scripts, Java and Log4j. Also those
/// that the image sets itself, and that Kubernetes makes for a service with the name `kafka`.
fn is_for_scripts(variable: &str) -> bool {
    const STARTS: [&str; 3] = ["KAFKA_PORT_", "KAFKA_SERVICE_HOST", "KAFKA_SERVICE_PORT"];
    reason_of_idle_variable(variable).is_some()
        || matches!(variable, "KAFKA_PORT" | "KAFKA_VERSION")
        || STARTS.iter().any(|start| variable.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscores_become_what_the_image_makes_of_them() {
        let cases = [
            ("KAFKA_NODE_ID", "node.id"),
            ("KAFKA_PROCESS_ROLES", "process.roles"),
            ("KAFKA_A__B", "a_b"),
            ("KAFKA_A___B", "a-b"),
            ("KAFKA_A____B", "a____b"),
            ("KAFKA__A_", "_a_"),
            (
                "KAFKA_LISTENER_NAME_DOCKER___HOST_SSL_KEY_PASSWORD",
                "listener.name.docker-host.ssl.key.password",
            ),
        ];
        for (variable, property) in cases {
            assert_eq!(property_of_variable(variable).as_deref(), Some(property));
        }
    }

    #[test]
    fn variables_of_others_stand_for_nothing() {
        for variable in [
            "PATH",
            "KAFKA_",
            "CLUSTER_ID",
            "KAFKA_HEAP_OPTS",
            "KAFKA_OPTS",
            "KAFKA_PORT_9092_TCP_ADDR",
            "kafka_node_id",
        ] {
            assert_eq!(property_of_variable(variable), None, "{variable}");
        }
    }

    #[test]
    fn what_was_for_java_or_log4j_is_no_property_and_has_a_reason() {
        for (variable, part) in [
            ("KAFKA_HEAP_OPTS", "no Java machine"),
            ("KAFKA_OPTS", "no Java machine"),
            ("KAFKA_JVM_PERFORMANCE_OPTS", "no Java machine"),
            ("KAFKA_GC_LOG_OPTS", "no Java machine"),
            ("KAFKA_JMX_OPTS", "no JMX"),
            ("KAFKA_JMX_PORT", "no JMX"),
            ("KAFKA_JMX_HOSTNAME", "no JMX"),
            ("KAFKA_LOG4J_OPTS", "no Log4j"),
            ("KAFKA_LOG4J_CMD_OPTS", "no Log4j"),
            ("KAFKA_LOG4J_ROOT_LOGLEVEL", "no Log4j"),
            ("KAFKA_LOG4J_LOGGERS", "no Log4j"),
            ("KAFKA_TOOLS_LOG4J_LOGLEVEL", "no Log4j"),
            ("KAFKA_DEBUG", "no start scripts"),
        ] {
            let reason = reason_of_idle_variable(variable).unwrap();
            assert!(reason.contains(part), "{variable}: {reason}");
            assert_eq!(property_of_variable(variable), None, "{variable}");
        }
        for variable in ["KAFKA_NODE_ID", "KAFKA_VERSION", "KAFKA_PORT_9092_TCP", "PATH", "HEAP_OPTS"] {
            assert_eq!(reason_of_idle_variable(variable), None, "{variable}");
        }
    }
}
