//! Rule: texts are the same on every machine. No registry hosts, no directories of the author's machine, no blanks
//! at line ends, a line end at the end.

use super::Finding;
use super::tracked::TrackedFile;

/// Files whose text is not ours.
const EXEMPT: [&str; 2] = ["Cargo.lock", "LICENSE"];

/// Hosts of package registries. Cargo, pip, Maven and the others know theirs, or are told by the machine.
/// (Spelled in halves, or this file would break its own rule.)
const REGISTRY_HOSTS: [&str; 13] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("repo", ".maven"),
    concat!("repo1", ".maven"),
    concat!("maven.google", ".com"),
    concat!("proxy.golang", ".org"),
    concat!("sum.golang", ".org"),
    concat!("deb.debian", ".org"),
    concat!("security.debian", ".org"),
    concat!("rust-lang", ".org/dist"),
];

/// Where only one machine keeps things.
const MACHINE_DIRECTORIES: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Checks every text.
pub(super) fn check(files: &[TrackedFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        if let Some(text) = file.text.as_deref().filter(|_| !EXEMPT.contains(&name)) {
            findings.extend(check_lines(&file.path, text));
            findings.extend(check_end(&file.path, text));
        }
    }
    findings
}

fn check_lines(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let foreign = is_foreign(path);
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        if let Some(host) = REGISTRY_HOSTS.iter().find(|host| line.contains(**host)) {
            let what = format!("names the registry host {host}: let the package manager find its registry");
            findings.push(Finding::new(path, number, what));
        }
        if let Some(directory) = MACHINE_DIRECTORIES.iter().find(|directory| names_directory(line, directory))
        {
            let what =
                format!("names {directory}, which is this machine's: say it relative to the workspace");
            findings.push(Finding::new(path, number, what));
        }
        if !foreign && line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(
                path,
                number,
                "ends with a blank: remove it (cargo xtask fix, for Rust)",
            ));
        }
    }
    findings
}

fn check_end(path: &str, text: &str) -> Option<Finding> {
    let is_bad = !is_foreign(path) && !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n"));
    is_bad.then(|| Finding::new(path, 0, "does not end with exactly one line end: mend the end of the file"))
}

/// Golden files are bytes as other programs wrote them.
fn is_foreign(path: &str) -> bool {
    path.split('/').any(|part| part == "golden" || part == "corpus")
}

/// Whether `directory` stands in `line` as an absolute path, and not as the middle of a longer one.
fn names_directory(line: &str, directory: &str) -> bool {
    line.match_indices(directory).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.~*)}]$>/".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&[file(path, text)]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn plain_text_passes() {
        assert!(findings("docs/a.md", "# Title\n\nSee docs/work/x, ./home/y and $HOME/root/z.\n").is_empty());
        assert!(findings("docs/empty.md", "").is_empty());
    }

    #[test]
    fn registry_hosts_are_found() {
        for host in REGISTRY_HOSTS {
            let found = findings("docs/a.md", &format!("x\nhttps://{host}/y\n"));
            assert_eq!(found.len(), 1, "{host}");
            assert!(found[0].starts_with("docs/a.md:2: names the registry host"), "{}", found[0]);
        }
    }

    #[test]
    fn machine_directories_are_found() {
        for directory in MACHINE_DIRECTORIES {
            for text in
                [format!("cd {directory}x\n"), format!("{directory}x\n"), format!("\"{directory}x\"\n")]
            {
                assert_eq!(findings("docs/a.md", &text).len(), 1, "{text}");
            }
        }
    }

    #[test]
    fn the_lock_file_and_the_licence_are_exempt() {
        let text = format!("source = \"{}\" \n", REGISTRY_HOSTS[0]);
        assert!(findings("Cargo.lock", &text).is_empty());
        assert!(findings("tests/fuzz/Cargo.lock", &text).is_empty());
        assert!(findings("LICENSE", &text).is_empty());
    }

    #[test]
    fn blanks_at_line_ends_and_bad_ends_are_found() {
        assert_eq!(findings("a.md", "x \ny\n").len(), 1);
        assert_eq!(findings("a.md", "x\r\ny\n").len(), 1);
        assert_eq!(findings("a.md", "x").len(), 1);
        assert_eq!(findings("a.md", "x\n\n").len(), 1);
        assert!(findings("tests/interop/golden/dump.txt", "x \ny").is_empty());
    }

    #[test]
    fn binary_files_are_left_alone() {
        assert!(check(&[TrackedFile { path: "a.bin".to_owned(), text: None }]).is_empty());
    }
}
