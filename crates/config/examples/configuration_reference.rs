//! Prints the configuration reference: `docs/configuration.md`.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().lock().write_all(klamm_config::configuration_reference().as_bytes())
}
