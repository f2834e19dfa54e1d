//! The types of settings of the database that are neither plain nor secret.

use std::collections::BTreeMap;
use std::ops::Deref;

use ipnet::IpNet;

use super::value::{Shape, Value};

/// The name of a PostgreSQL schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaName(String);

impl SchemaName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for SchemaName {
    const EXPECTED: &'static str =
        "the name of a schema: letters, digits, `_` and `-`, beginning with a letter or `_`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let is_valid = palisade_db::check_schema(text).is_ok();
        is_valid
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| "can't be used as a schema".to_owned())
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A network in which the database server may be reached without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaintextNetwork {
    /// The network.
    pub network: IpNet,
    /// Why it needs no TLS.
    pub reason: String,
}

/// The networks in which the database server may be reached without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaintextNetworks(Vec<PlaintextNetwork>);

impl Deref for PlaintextNetworks {
    type Target = [PlaintextNetwork];
    fn deref(&self) -> &[PlaintextNetwork] {
        &self.0
    }
}

impl Value for PlaintextNetworks {
    const EXPECTED: &'static str = "a list of tables with the keys `network` and `reason`";
    const SHAPE: Shape = Shape::Tables;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let items: Vec<BTreeMap<String, String>> = serde_json::from_str(text)
            .map_err(|_| "is not a JSON array of objects with text values".to_owned())?;
        let read = |(index, mut item): (usize, BTreeMap<String, String>)| {
            let wrong = |wrong: &str| format!("item {}: {wrong}", index + 1);
            let network = item.remove("network").ok_or_else(|| wrong("`network` is missing"))?;
            let reason = item.remove("reason").unwrap_or_default();
            if let Some(unknown) = item.keys().next() {
                return Err(wrong(&format!("there is no key {}", super::source::quoted(unknown))));
            }
            if reason.trim().is_empty() || reason.chars().any(char::is_control) {
                return Err(wrong("`reason` is missing, empty or contains a control character"));
            }
            let network = IpNet::parse(&network).map_err(|error| wrong(&error))?;
            Ok(PlaintextNetwork { network, reason })
        };
        items.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    fn show(&self) -> String {
        let item = |item: &PlaintextNetwork| {
            format!("{{ network = \"{}\", reason = {:?} }}", item.network, item.reason)
        };
        format!("[{}]", self.iter().map(item).collect::<Vec<_>>().join(", "))
    }
}
