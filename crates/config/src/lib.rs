//! Every setting of Kafka 4.3 by its name: type, default, range, what it is for, and what Klamm does with it.
//!
//! **For:** one table that start-up validation, `DescribeConfigs`, the controller's checks and the configuration
//! reference are all made from; and the rules by which one value holds where several places give one.
//! **Not for:** reading files or the environment (`node` does), or what a setting does (the crate that it steers).
//!
//! - [`Table`] has the rows, [`Setting`] is one, [`Setting::parse`] checks a value.
//! - [`ServerSettings`] is what a node was started with.
//! - [`BrokerLayers::resolve`], [`resolve_topic`], [`resolve_own`] say which value holds and why; [`TopicConfig`] is
//!   all of a topic's at once.
//! - [`read_properties`] and [`property_of_variable`] read what users write, given as text.
//!
//! **Called by:** `node`, `kafka-api`, `broker`. **Calls:** nothing.
#![forbid(unsafe_code)]

mod dynamic;
mod environment;
mod nearest;
mod properties;
mod reference;
mod resolve;
mod server_settings;
mod setting;
mod synonyms;
mod table;
mod value;

pub use dynamic::{DynamicError, check_dynamic_server, check_group, check_topic};
pub use environment::{property_of_variable, reason_of_idle_variable};
pub use properties::{PropertiesError, Property, read_properties};
pub use reference::configuration_reference;
pub use resolve::{
    BrokerLayers, Candidate, DynamicValues, Resolved, Source, TopicConfig, resolve_own, resolve_topic,
};
pub use server_settings::{Notice, ServerSettings, SettingError};
pub use setting::{Importance, Kind, Scope, Setting, Treatment};
pub use synonyms::{Synonym, server_synonyms, topic_synonyms};
pub use table::Table;
pub use value::{Value, ValueError};
