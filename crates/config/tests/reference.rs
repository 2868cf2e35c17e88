//! The configuration reference in `docs` is what the table makes.

#[test]
fn the_reference_is_up_to_date() {
    let written = include_str!("../../../docs/configuration.md");
    let made = klamm_config::configuration_reference();
    let differs = written.lines().zip(made.lines()).find(|(written, made)| written != made);
    let command = "cargo run -p klamm-config --example configuration_reference > docs/configuration.md";
    assert_eq!(differs, None, "run: {command}");
    assert!(written == made, "run: {command}");
}
