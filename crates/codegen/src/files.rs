//! The folders that the generator reads and writes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::SchemaError;
use crate::layout::Layout;
use crate::schema::{Message, MessageKind};
use crate::{emit, import as importer, listing};

/// Where the listing and the generated code lie.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The folder of `*.schema` files.
    pub schema: PathBuf,
    /// The folder of generated modules; nothing else may be in it.
    pub generated: PathBuf,
}

impl Paths {
    /// The folders of the workspace whose root is `root`.
    pub fn of_workspace(root: &Path) -> Self {
        let protocol = root.join("crates/protocol");
        Self { schema: protocol.join("schema"), generated: protocol.join("src/generated") }
    }
}

/// Rewrites the listing from the schemas in the archive at `jar`. Returns the number of messages.
///
/// # Errors
/// See [`SchemaError`]; the folder is written only after the whole archive was understood.
pub fn import(jar: &Path, paths: &Paths) -> Result<usize, SchemaError> {
    let bytes = fs::read(jar).map_err(|source| SchemaError::File { path: jar.to_owned(), source })?;
    let messages = importer::import(&bytes)?;
    let mut files: BTreeMap<String, Vec<&Message>> = BTreeMap::new();
    for message in &messages {
        files.entry(listing_name(message)).or_default().push(message);
    }
    let contents = files.into_iter().map(|(name, messages)| (name, listing::print(&messages))).collect();
    replace(&paths.schema, "schema", &contents)?;
    Ok(messages.len())
}

/// The file of a message: one per API, ordered by key, then the headers and the embedded structures.
fn listing_name(message: &Message) -> String {
    let (key, suffix) = match &message.kind {
        MessageKind::Request { key, .. } => (key, "Request"),
        MessageKind::Response { key } => (key, "Response"),
        MessageKind::Header => return "headers.schema".to_owned(),
        MessageKind::Data => return "embedded.schema".to_owned(),
    };
    let api = message.name.strip_suffix(suffix).unwrap_or(&message.name);
    format!("{key:02}_{}.schema", emit::snake_case(api))
}

/// Reads the listing: every message, ordered by name.
///
/// # Errors
/// See [`SchemaError`].
pub fn layouts(schema: &Path) -> Result<Vec<Layout>, SchemaError> {
    let mut layouts = Vec::new();
    for (name, text) in read(schema, "schema")? {
        for message in listing::parse(&name, &text)? {
            layouts.push(Layout::of(&message)?);
        }
    }
    layouts.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(layouts)
}

/// Writes the generated code. Returns the number of files.
///
/// # Errors
/// See [`SchemaError`]; nothing is written when one message cannot be generated or formatted.
pub fn generate(paths: &Paths) -> Result<usize, SchemaError> {
    let files = fresh(paths)?;
    replace(&paths.generated, "rs", &files)?;
    Ok(files.len())
}

/// The generated files that differ from a fresh generation, are missing or are left over; empty is good.
///
/// # Errors
/// See [`SchemaError`].
pub fn check(paths: &Paths) -> Result<Vec<String>, SchemaError> {
    let fresh = fresh(paths)?;
    let committed = read(&paths.generated, "rs")?;
    let names = fresh.keys().chain(committed.keys().filter(|name| !fresh.contains_key(*name)));
    Ok(names.filter(|name| fresh.get(*name) != committed.get(*name)).cloned().collect())
}

fn fresh(paths: &Paths) -> Result<BTreeMap<String, String>, SchemaError> {
    let layouts = layouts(&paths.schema)?;
    let mut files = BTreeMap::from([("mod.rs".to_owned(), emit::index(&layouts)?)]);
    for layout in &layouts {
        files.insert(format!("{}.rs", emit::snake_case(layout.name())), emit::message(layout));
    }
    files.into_iter().map(|(name, text)| Ok((name, format(&text)?))).collect()
}

/// Formats with the rules of the workspace's `rustfmt.toml`.
fn format(text: &str) -> Result<String, SchemaError> {
    let failed = |problem: String| SchemaError::Rustfmt { problem };
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--config", "max_width=110,use_small_heuristics=Max"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut stdin = child.stdin.take().ok_or_else(|| failed("no pipe".to_owned()))?;
    let text = text.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    let written = writer.join().map_err(|_| failed("the writer panicked".to_owned()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    written.map_err(|error| failed(error.to_string()))?;
    String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
}

/// The files of `folder` with this extension, by name; empty if there is no such folder.
fn read(folder: &Path, extension: &str) -> Result<BTreeMap<String, String>, SchemaError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| SchemaError::File { path, source }
    };
    let mut files = BTreeMap::new();
    if !folder.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(folder).map_err(error(folder))? {
        let path = entry.map_err(error(folder))?.path();
        if path.extension().is_some_and(|found| found == extension) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, fs::read_to_string(&path).map_err(error(&path))?);
        }
    }
    Ok(files)
}

/// Makes the files of `folder` with this extension exactly `files`; an equal file keeps its time stamp.
fn replace(folder: &Path, extension: &str, files: &BTreeMap<String, String>) -> Result<(), SchemaError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| SchemaError::File { path, source }
    };
    fs::create_dir_all(folder).map_err(error(folder))?;
    let old = read(folder, extension)?;
    for name in old.keys().filter(|name| !files.contains_key(*name)) {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(error(&path))?;
    }
    for (name, text) in files.iter().filter(|(name, text)| old.get(*name) != Some(*text)) {
        let path = folder.join(name);
        fs::write(&path, text).map_err(error(&path))?;
    }
    Ok(())
}
