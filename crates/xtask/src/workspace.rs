//! What `cargo metadata` tells about this workspace.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use crate::command::{cargo, stdout_of};

/// The workspace: its places and its packages.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    /// The directory of the root manifest.
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    /// Where cargo builds; follows `CARGO_TARGET_DIR`.
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
    /// The members, in cargo's order.
    pub(crate) packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Package {
    /// Its name in the manifest.
    pub(crate) name: String,
    /// Its manifest, absolute.
    pub(crate) manifest_path: PathBuf,
    /// What it depends on, of every kind.
    pub(crate) dependencies: Vec<Dependency>,
    /// Its library, binaries, tests and benches.
    pub(crate) targets: Vec<Target>,
}

/// One line of a package's dependency tables.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Dependency {
    /// The name of the package depended on.
    pub(crate) name: String,
    /// Cargo's word for the table: nothing for `[dependencies]`, `dev`, `build`.
    #[serde(default)]
    pub(crate) kind: Option<String>,
    /// Set if it is a path dependency, and so a member of the workspace.
    #[serde(default)]
    pub(crate) path: Option<PathBuf>,
}

/// Something cargo builds from a package.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) name: String,
    /// `lib`, `bin`, `test`, `bench`, `example`, `custom-build`.
    pub(crate) kind: Vec<String>,
}

impl Workspace {
    /// Asks cargo about the workspace that this program was built from.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.ancestors().nth(2).context("the xtask package lies two levels below the root")?;
        Self::of_manifest(root, &root.join("Cargo.toml"))
    }

    /// Asks cargo about another workspace inside this one, such as that of the fuzz targets.
    pub(crate) fn of_manifest(root: &Path, manifest: &Path) -> anyhow::Result<Self> {
        let mut command = cargo(root);
        command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
        serde_json::from_str(&stdout_of(&mut command)?).context("cargo metadata printed something unexpected")
    }

    /// The member of that name.
    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// The names of all targets of one kind, sorted.
    pub(crate) fn targets_of_kind(&self, kind: &str) -> Vec<&str> {
        let targets = self.packages.iter().flat_map(|package| package.targets_of_kind(kind));
        let mut names: Vec<_> = targets.collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Package {
    /// The directory of its manifest.
    pub(crate) fn directory(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }

    /// The names of its targets of one kind.
    pub(crate) fn targets_of_kind(&self, kind: &str) -> impl Iterator<Item = &str> {
        self.targets
            .iter()
            .filter(move |target| target.kind.iter().any(|k| k == kind))
            .map(|t| t.name.as_str())
    }
}
