//! The index of all messages: modules, re-exports, and the table of APIs.

use super::{MARKER, snake_case};
use crate::error::SchemaError;
use crate::layout::Layout;
use crate::schema::{MessageKind, Versions};

/// `mod.rs` of the generated folder, not yet formatted. `layouts` are all messages, ordered by name.
///
/// # Errors
/// A request without a response of the same key and versions.
pub(crate) fn index(layouts: &[Layout]) -> Result<String, SchemaError> {
    let mut out = format!(
        "{MARKER}//! Every message of the protocol: a module per message with its structures, the message itself\n\
         //! re-exported here.\n\n"
    );
    for layout in layouts {
        out.push_str(&format!("pub mod {};\n", snake_case(layout.name())));
    }
    out.push('\n');
    for layout in layouts {
        out.push_str(&format!("pub use {}::{};\n", snake_case(layout.name()), layout.name()));
    }
    let mut rows = Vec::new();
    for request in layouts {
        if let MessageKind::Request { key, .. } = request.kind {
            rows.push((key, row(layouts, request)?));
        }
    }
    rows.sort_by_key(|(key, _)| *key);
    out.push_str("\ncrate::apis::apis! {\n");
    for (_, row) in rows {
        out.push_str(&row);
    }
    out.push_str("}\n");
    Ok(out)
}

/// `Fetch = 1, FetchRequest, FetchResponse, stable 18, flexible 12, broker true, controller true;`
fn row(layouts: &[Layout], request: &Layout) -> Result<String, SchemaError> {
    let MessageKind::Request { key, listeners, latest_unstable } = &request.kind else {
        return Ok(String::new());
    };
    let refuse = |problem| SchemaError::Unsupported {
        message: request.name().to_owned(),
        field: "(message)".to_owned(),
        problem,
    };
    let response = layouts
        .iter()
        .find(|layout| layout.kind == MessageKind::Response { key: *key })
        .ok_or_else(|| refuse("no response"))?;
    if response.versions != request.versions || response.flexible != request.flexible {
        return Err(refuse("the response has other versions"));
    }
    let name = request.name().strip_suffix("Request").ok_or_else(|| refuse("not called ...Request"))?;
    let Versions { min, max } = request.versions;
    let stable = if *latest_unstable { max - 1 } else { max };
    let flexible = if request.flexible.is_empty() { i16::MAX } else { request.flexible.min };
    let on = |listener: &str| listeners.iter().any(|known| known == listener);
    Ok(format!(
        "/// API {key}, versions {min} to {max}.\n\
         {name} = {key}, {}, {}, stable {stable}, flexible {flexible}, broker {}, controller {};\n",
        request.name(),
        response.name(),
        on("broker"),
        on("controller"),
    ))
}
