//! The table of APIs: keys, versions, and the messages that belong to them.
//!
//! The rows are generated; this macro turns them into [`ApiKey`](crate::ApiKey), the enums that hold any
//! request or response, and the traits that tie the messages of one API together.

use crate::{ApiKey, DecodeError, EncodeError, Reader, Writer};

/// What every request and response can do, for code that handles messages of many APIs.
pub trait ApiMessage: Sized {
    /// The API that the message belongs to.
    const KEY: ApiKey;

    /// Reads the message from the whole of `reader`.
    ///
    /// # Errors
    /// A malformed message, or bytes left behind it.
    fn decode_whole(version: i16, reader: Reader<'_>) -> Result<Self, DecodeError>;

    /// Writes the message.
    ///
    /// # Errors
    /// A message that `version` cannot carry.
    fn encode_into(&self, version: i16, writer: &mut Writer) -> Result<(), EncodeError>;
}

/// A request, which knows its response.
pub trait ApiRequest: ApiMessage {
    /// What a broker answers.
    type Response: ApiMessage;
}

macro_rules! apis {
    ($(
        $(#[$doc:meta])*
        $name:ident = $key:literal, $request:ident, $response:ident, stable $stable:literal,
        flexible $flexible:literal, broker $broker:literal, controller $controller:literal;
    )*) => {
        /// The number of an API on the wire, for every API that Kafka 4.3 serves.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($(#[$doc])* $name = $key,)*
        }

        impl ApiKey {
            /// Every API, by ascending key.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The API of this number, `None` if Kafka 4.3 serves no such API.
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The API's name, for example `ListOffsets`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The versions that can be encoded and decoded, an unstable newest one included.
            pub const fn versions(self) -> $crate::VersionRange {
                match self {
                    $(Self::$name => $request::VERSIONS,)*
                }
            }

            /// The newest version that a broker shows unless unstable versions are enabled.
            pub(crate) const fn stable_max(self) -> i16 {
                match self {
                    $(Self::$name => $stable,)*
                }
            }

            /// The first version with compact lengths and tagged fields, `i16::MAX` if there is none.
            pub(crate) const fn flexible_min(self) -> i16 {
                match self {
                    $(Self::$name => $flexible,)*
                }
            }

            /// Whether Kafka serves the API on a broker's listeners.
            pub const fn is_on_broker(self) -> bool {
                match self {
                    $(Self::$name => $broker,)*
                }
            }

            /// Whether Kafka serves the API on a controller's listeners.
            pub const fn is_on_controller(self) -> bool {
                match self {
                    $(Self::$name => $controller,)*
                }
            }
        }

        $crate::apis::any! {
            /// The body of any request.
            Request { $($name: $request,)* }
        }
        $crate::apis::any! {
            /// The body of any response.
            Response { $($name: $response,)* }
        }

        $(impl $crate::apis::ApiRequest for $request {
            type Response = $response;
        })*
    };
}

macro_rules! any {
    ($(#[$doc:meta])* $any:ident { $($name:ident: $message:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(
            clippy::large_enum_variant,
            reason = "one value per request in flight; a box would cost an allocation for each"
        )]
        pub enum $any {
            $(#[doc = concat!("See [`", stringify!($message), "`].")] $name($message),)*
        }

        impl $any {
            /// The API that the message belongs to.
            pub const fn key(&self) -> ApiKey {
                match self {
                    $(Self::$name(_) => ApiKey::$name,)*
                }
            }

            /// Reads the body from the whole of `reader`.
            ///
            /// # Errors
            /// A version that is not served, a malformed message, or bytes left behind it.
            pub fn decode(
                key: ApiKey,
                version: i16,
                mut reader: $crate::Reader<'_>,
            ) -> Result<Self, $crate::DecodeError> {
                let message = match key {
                    $(ApiKey::$name => Self::$name($message::decode(version, &mut reader)?),)*
                };
                reader.finish()?;
                Ok(message)
            }

            /// Writes the body.
            ///
            /// # Errors
            /// A version that is not served, or that cannot carry the message.
            pub fn encode(
                &self,
                version: i16,
                writer: &mut $crate::Writer,
            ) -> Result<(), $crate::EncodeError> {
                match self {
                    $(Self::$name(message) => message.encode(version, writer),)*
                }
            }
        }

        $(
            impl From<$message> for $any {
                fn from(message: $message) -> Self {
                    Self::$name(message)
                }
            }

            impl $crate::apis::ApiMessage for $message {
                const KEY: ApiKey = ApiKey::$name;

                fn decode_whole(
                    version: i16,
                    mut reader: $crate::Reader<'_>,
                ) -> Result<Self, $crate::DecodeError> {
                    let message = Self::decode(version, &mut reader)?;
                    reader.finish()?;
                    Ok(message)
                }

                fn encode_into(
                    &self,
                    version: i16,
                    writer: &mut $crate::Writer,
                ) -> Result<(), $crate::EncodeError> {
                    self.encode(version, writer)
                }
            }
        )*
    };
}

pub(crate) use {any, apis};
