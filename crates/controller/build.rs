//! Turns `KLAMM_MUTANT=B22` into `--cfg mutant="B22"` for this crate alone, so that a known bug can be built
//! back in and the tests shown to catch it (`cargo xtask mutants`).

fn main() {
    println!("cargo::rerun-if-env-changed=KLAMM_MUTANT");
    #[allow(clippy::disallowed_methods, reason = "a build script is configured by its environment")]
    if let Ok(mutant) = std::env::var("KLAMM_MUTANT") {
        println!("cargo::rustc-cfg=mutant=\"{mutant}\"");
    }
}
