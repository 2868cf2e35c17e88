//! Compares replicas on the disks of stopped nodes, byte for byte.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// How many bytes each replica has, if all have the same; each is given by its partition's directory.
///
/// # Errors
/// Where they differ, or what cannot be read.
pub fn compare(directories: &[PathBuf]) -> Result<u64, String> {
    let open = |directory: &PathBuf| {
        Replica::open(directory).map_err(|error| format!("{}: {error}", directory.display()))
    };
    let mut replicas = directories.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let (first, others) = replicas.split_first_mut().ok_or("no replica")?;
    let mut at = 0;
    loop {
        let expected = first.next().map_err(|error| error.to_string())?;
        for (other, directory) in others.iter_mut().zip(&directories[1..]) {
            let found = other.next().map_err(|error| error.to_string())?;
            if found != expected {
                let differing = found.iter().zip(&expected).take_while(|(found, expected)| found == expected);
                let byte = at + differing.count() as u64;
                return Err(format!(
                    "{} and {} differ from byte {byte} on ({} and {} bytes there)",
                    directories[0].display(),
                    directory.display(),
                    expected.len(),
                    found.len()
                ));
            }
        }
        if expected.is_empty() {
            return Ok(at);
        }
        at += expected.len() as u64;
    }
}

/// The records of a replica, segment after segment: where one begins is each node's own affair.
struct Replica(Box<dyn Read>);

impl Replica {
    fn open(directory: &Path) -> std::io::Result<Self> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(directory)? {
            segments.push(entry?.path());
        }
        segments.retain(|path: &PathBuf| path.extension().is_some_and(|extension| extension == "log"));
        segments.sort();
        let mut all: Box<dyn Read> = Box::new(std::io::empty());
        for segment in segments {
            all = Box::new(all.chain(BufReader::new(File::open(segment)?)));
        }
        Ok(Self(all))
    }

    /// The next bytes: as many as any other replica gives, as long as there are any.
    fn next(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0.by_ref().take(1 << 20).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(segments: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (number, text) in segments.iter().enumerate() {
            fs::write(directory.path().join(format!("{number:020}.log")), text).unwrap();
            fs::write(directory.path().join(format!("{number:020}.index")), "of its own").unwrap();
        }
        directory
    }

    fn compared(first: &[&str], second: &[&str]) -> Result<u64, String> {
        let (first, second) = (replica(first), replica(second));
        compare(&[first.path().to_owned(), second.path().to_owned()])
    }

    #[test]
    fn a_byte_that_differs_is_found() {
        assert_eq!(compared(&["one", "two"], &["onet", "wo"]), Ok(6));
        assert!(compared(&["one", "two"], &["one", "tw0"]).unwrap_err().contains("from byte 5"));
        assert!(compared(&["one", "two"], &["one"]).unwrap_err().contains("from byte 3"));
        assert!(compared(&["one"], &["one", "two"]).unwrap_err().contains("from byte 3"));
    }
}
