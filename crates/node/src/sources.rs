//! Where settings are written: a file, the environment, the command line.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use klamm_config::{
    Notice, ServerSettings, SettingError, ValueError, property_of_variable, read_properties,
    reason_of_idle_variable,
};

use crate::config_error::ConfigError;

/// The longest configuration file, in bytes: a larger one is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a node is started with; each wins over those before it.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file in the format of `server.properties`.
    pub file: Option<PathBuf>,
    /// Environment variables, of which those that start with `KAFKA_` and `CLUSTER_ID` count.
    pub variables: Vec<(String, String)>,
    /// `name=value` from the command line.
    pub overrides: Vec<String>,
}

/// Where one setting was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In the environment.
    Variable(String),
    /// On the command line.
    CommandLine,
    /// Nowhere: it is the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::CommandLine => f.write_str("--override"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Settings that were read and checked one by one.
#[derive(Clone, Debug, Default)]
pub struct LoadedSettings {
    /// The settings.
    pub settings: ServerSettings,
    /// What was accepted and has no effect; also unknown names that were let pass.
    pub notices: Vec<(Origin, Notice)>,
    origins: BTreeMap<String, Origin>,
}

/// One setting as it was written.
struct Written {
    origin: Origin,
    name: String,
    value: String,
}

impl Sources {
    /// Reads all sources and checks every setting by itself.
    ///
    /// # Errors
    /// Every setting that cannot be used, or the file if it cannot be read.
    pub fn load(&self) -> Result<LoadedSettings, Vec<ConfigError>> {
        let mut written = Vec::new();
        if let Some(path) = &self.file {
            written.extend(read_file(path).map_err(|error| vec![error])?);
        }
        written.extend(self.variables.iter().filter_map(written_in_variable));
        for text in &self.overrides {
            let named = text.split_once('=').map(|(name, value)| (name.trim(), value));
            let Some((name, value)) = named.filter(|(name, _)| !name.is_empty()) else {
                return Err(vec![ConfigError::Override {
                    text: text.chars().take(ValueError::TEXT_LEN_MAX).collect(),
                }]);
            };
            let (name, value) = (name.to_owned(), value.to_owned());
            written.push(Written { origin: Origin::CommandLine, name, value });
        }
        let mut loaded = check(written)?;
        loaded.notices.extend(self.variables.iter().filter_map(notice_of_variable));
        Ok(loaded)
    }
}

fn notice_of_variable((variable, _): &(String, String)) -> Option<(Origin, Notice)> {
    let reason = reason_of_idle_variable(variable)?;
    Some((Origin::Variable(variable.clone()), Notice { name: variable.clone(), reason }))
}

fn written_in_variable((variable, value): &(String, String)) -> Option<Written> {
    let name = match variable.as_str() {
        "CLUSTER_ID" => "klamm.cluster.id".to_owned(),
        _ => property_of_variable(variable)?,
    };
    Some(Written { origin: Origin::Variable(variable.clone()), name, value: value.clone() })
}

fn read_file(path: &Path) -> Result<Vec<Written>, ConfigError> {
    let unreadable = |source| ConfigError::ReadFile { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(ConfigError::Directory { path: path.to_owned() });
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(ConfigError::FileTooLong { path: path.to_owned(), bytes: metadata.len() });
    }
    if metadata.is_file() && is_writable_by_all(&metadata) {
        return Err(ConfigError::WritableByAll { path: path.to_owned() });
    }
    // What is no plain file may have no end.
    let mut text = String::new();
    let mut file = std::fs::File::open(path).map_err(unreadable)?.take(FILE_BYTES_MAX + 1);
    let bytes = file.read_to_string(&mut text).map_err(unreadable)? as u64;
    if bytes > FILE_BYTES_MAX {
        return Err(ConfigError::FileTooLong { path: path.to_owned(), bytes });
    }
    let properties =
        read_properties(&text).map_err(|source| ConfigError::Format { path: path.to_owned(), source })?;
    let written = properties.into_iter().map(|property| Written {
        origin: Origin::File { path: path.to_owned(), line: property.line },
        name: property.name,
        value: property.value,
    });
    Ok(written.collect())
}

/// Whoever can write the file can decide where the data of this node goes.
#[cfg(unix)]
fn is_writable_by_all(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o002 != 0
}

#[cfg(not(unix))]
fn is_writable_by_all(_metadata: &std::fs::Metadata) -> bool {
    false
}

fn check(written: Vec<Written>) -> Result<LoadedSettings, Vec<ConfigError>> {
    let lets_unknown_pass = written
        .iter()
        .rfind(|one| one.name == "klamm.unknown.settings")
        .is_some_and(|one| one.value.trim() == "warn");
    // Only what holds is checked: a variable may be there to mend what the file says.
    let mut holding: BTreeMap<String, Written> = BTreeMap::new();
    for one in written {
        holding.insert(one.name.clone(), one);
    }
    let mut loaded = LoadedSettings::default();
    let mut errors = Vec::new();
    for (name, one) in holding {
        match loaded.settings.set(&name, &one.value) {
            Ok(None) => {}
            Ok(Some(notice)) => loaded.notices.push((one.origin.clone(), notice)),
            Err(SettingError::Unknown { .. }) if lets_unknown_pass => {
                let notice = Notice { name: name.clone(), reason: "nobody knows it" };
                loaded.notices.push((one.origin.clone(), notice));
            }
            Err(source) => errors.push(ConfigError::Setting { origin: one.origin.clone(), source }),
        }
        loaded.origins.insert(name, one.origin);
    }
    if errors.is_empty() { Ok(loaded) } else { Err(errors) }
}

impl LoadedSettings {
    /// Where a setting was written.
    #[must_use]
    pub fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).cloned().unwrap_or(Origin::Default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn later_sources_win() {
        let file = file("num.partitions=2\nnode.id=1\nlog.retention.hours=3\n");
        let sources = Sources {
            file: Some(file.path().to_owned()),
            variables: pairs([
                ("KAFKA_NUM_PARTITIONS", "3"),
                ("KAFKA_NODE_ID", "2"),
                ("CLUSTER_ID", "x"),
                ("HOME", "/"),
            ]),
            overrides: vec!["num.partitions=4".to_owned()],
        };
        let loaded = sources.load().unwrap();
        assert_eq!(loaded.settings.integer("num.partitions"), 4);
        assert_eq!(loaded.settings.integer("node.id"), 2);
        assert_eq!(loaded.settings.text("klamm.cluster.id").as_deref(), Some("x"));
        assert_eq!(loaded.origin("num.partitions"), Origin::CommandLine);
        assert_eq!(
            loaded.origin("log.retention.hours"),
            Origin::File { path: file.path().to_owned(), line: 3 }
        );
        assert_eq!(loaded.origin("process.roles"), Origin::Default);
    }

    #[test]
    fn every_wrong_setting_is_told_with_its_place() {
        let file = file("# first\nnum.partitions=none\n\nnode.idd=1\nnum.io.threads=3\n");
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        let errors: Vec<String> = sources.load().unwrap_err().iter().map(ToString::to_string).collect();
        let place = file.path().display();
        assert_eq!(
            errors,
            [
                format!("{place} line 4: there is no setting node.idd, did you mean node.id?"),
                format!("{place} line 2: num.partitions cannot be \"none\": it must be from 1 to 2147483647"),
            ]
        );
    }

    #[test]
    fn unknown_settings_may_pass_if_told() {
        let sources = Sources {
            overrides: vec!["no.such=1".to_owned(), "klamm.unknown.settings=warn".to_owned()],
            ..Sources::default()
        };
        let loaded = sources.load().unwrap();
        assert_eq!(loaded.notices.len(), 1);
        assert_eq!(loaded.notices[0].1.name, "no.such");
    }

    #[test]
    fn a_variable_for_java_is_told_without_its_value() {
        let variables = pairs([("KAFKA_HEAP_OPTS", "-Xmx1g"), ("KAFKA_NODE_ID", "1"), ("PATH", "/bin")]);
        let loaded = Sources { variables, ..Sources::default() }.load().unwrap();
        let [(origin, notice)] = &loaded.notices[..] else { panic!("{:?}", loaded.notices) };
        assert_eq!(origin, &Origin::Variable("KAFKA_HEAP_OPTS".to_owned()));
        assert!(notice.name == "KAFKA_HEAP_OPTS" && notice.reason.contains("Java"), "{notice:?}");
    }

    #[test]
    fn an_override_needs_a_name_and_a_value() {
        for text in ["num.partitions", "=x", " = x", ""] {
            let sources = Sources { overrides: vec![text.to_owned()], ..Sources::default() };
            let told = sources.load().unwrap_err()[0].to_string();
            assert_eq!(told, format!("--override {text:?} must be name=value"));
        }
    }

    #[test]
    fn files_that_are_none_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let told = Sources { file: Some(dir.path().to_owned()), ..Sources::default() }.load().unwrap_err();
        let place = dir.path().display();
        assert_eq!(told[0].to_string(), format!("{place} is a directory; name the file in it"));

        let missing = Sources { file: Some("/no/such/file".into()), ..Sources::default() };
        assert!(matches!(missing.load().unwrap_err()[..], [ConfigError::ReadFile { .. }]));
        let bad = file("a=\\u00");
        let bad = Sources { file: Some(bad.path().to_owned()), ..Sources::default() };
        assert!(matches!(bad.load().unwrap_err()[..], [ConfigError::Format { .. }]));
        let no_value = Sources { overrides: vec!["num.partitions".to_owned()], ..Sources::default() };
        assert!(matches!(no_value.load().unwrap_err()[..], [ConfigError::Override { .. }]));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_anybody_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = file("node.id=1\n");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        assert!(matches!(sources.load().unwrap_err()[..], [ConfigError::WritableByAll { .. }]));
    }
}
