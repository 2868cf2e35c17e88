//! How an input of the target `wire_message` chooses its message.

use klamm_protocol::ApiKey;

/// Every message as API, version and "is a request", in the order of their selectors.
pub fn messages() -> impl Iterator<Item = (ApiKey, i16, bool)> {
    ApiKey::ALL.iter().flat_map(|key| {
        key.versions().iter().flat_map(|version| [(*key, version, true), (*key, version, false)])
    })
}

/// The message of a selector; `None`, a stream of frames, for 0. Selectors beyond the last message begin anew.
pub fn select(selector: u16) -> Option<(ApiKey, i16, bool)> {
    let count = messages().count();
    let index = usize::from(selector) % (count + 1);
    messages().nth(index.checked_sub(1)?)
}

/// The selector of a message.
pub fn selector(key: ApiKey, version: i16, is_request: bool) -> Option<u16> {
    let index = messages().position(|message| message == (key, version, is_request))?;
    u16::try_from(index + 1).ok()
}
