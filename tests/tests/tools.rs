//! The installers of the harness, tried against the package registries.

use std::fs;

use klamm_tests::{skip, tools};

#[test]
fn a_pinned_python_package_can_be_imported() {
    let environment = tools::PythonEnvironment::with("probe", &["six==1.17.0"]);
    let Some(python) = skip::unless("a_pinned_python_package_can_be_imported", environment) else { return };
    let output = python.command().args(["-c", "import six; print(six.__version__)"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1.17.0", "{output:?}");
}

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>klamm</groupId>
  <artifactId>probe</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"#;

#[test]
fn a_pom_brings_its_transitive_jars() {
    let directory = tempfile::tempdir().unwrap();
    let pom = directory.path().join("pom.xml");
    fs::write(&pom, POM).unwrap();
    let fetched = tools::Jars::of_pom("probe", &pom);
    let Some(jars) = skip::unless("a_pom_brings_its_transitive_jars", fetched) else { return };
    let mut names: Vec<_> =
        fs::read_dir(jars.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| name.to_string_lossy().ends_with(".jar"));
    names.sort();
    assert_eq!(names, ["slf4j-api-1.7.36.jar", "slf4j-simple-1.7.36.jar"]);
}
