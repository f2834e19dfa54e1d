//! Parsing and displaying the values of settings: plain types and lists.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// How a setting is written in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Number,
    Flag,
    List,
    /// A list of tables. As text, it is a JSON array of objects.
    Tables,
}

/// A type that a setting can have.
///
/// Every source provides text: the environment and flags contain nothing else, and the types in the configuration file
/// are first compared with [`Value::SHAPE`]. The items of a list are joined by commas.
pub(super) trait Value: Sized {
    /// What is expected, as it reads after "expected".
    const EXPECTED: &'static str;
    /// How the value is written in the configuration file.
    const SHAPE: Shape;

    /// Parses the value. The error states what is wrong, without repeating the text.
    fn parse(text: &str) -> Result<Self, String>;

    /// Returns the value for display, without secrets.
    fn show(&self) -> String;

    /// Returns the value of a setting that is not set and has no default, or `None` if such a setting is an error.
    fn absent() -> Option<Self> {
        None
    }

    /// Returns the size by which bounds are compared: a number, bytes or milliseconds.
    fn size(&self) -> Option<u128> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const SHAPE: Shape = T::SHAPE;

    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "(not set)".to_owned(), T::show)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn size(&self) -> Option<u128> {
        self.as_ref().and_then(T::size)
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Value for $number {
            const EXPECTED: &'static str = "a whole number";
            const SHAPE: Shape = Shape::Number;

            fn parse(text: &str) -> Result<Self, String> {
                if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err("is not a whole number".to_owned());
                }
                text.parse().map_err(|_| "is too large".to_owned())
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn size(&self) -> Option<u128> {
                Some(u128::from(*self))
            }
        }
    )*};
}

whole_numbers!(u8, u32);

impl Value for bool {
    const EXPECTED: &'static str = "`true` or `false`";
    const SHAPE: Shape = Shape::Flag;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is neither `true` nor `false`".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a string";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("is empty".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("contains a control character".to_owned());
        }
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        String::parse(text).map(Self::from)
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an IP address with a port, such as `127.0.0.1:8000`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is not an IP address with a port".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for IpNet {
    const EXPECTED: &'static str = "an IP network, such as `10.0.0.0/8`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let network: Self = text.parse().map_err(|_| {
            "is not an IP network; a single IP address ends in /32 or /128".to_owned()
        })?;
        if network.addr() != network.network() {
            return Err("is an IP address inside a network; write the network's first IP address \
                        before the slash"
                .to_owned());
        }
        Ok(network)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A type that can be an item of a list.
pub(super) trait Item: Value {
    /// What a list of these is called, as it reads after "expected".
    const LIST: &'static str;
}

impl Item for IpNet {
    const LIST: &'static str = "a list of IP networks, such as `10.0.0.0/8`";
}

impl<T: Item> Value for Vec<T> {
    const EXPECTED: &'static str = T::LIST;
    const SHAPE: Shape = Shape::List;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::new());
        }
        let item = |(index, item): (usize, &str)| {
            T::parse(item.trim()).map_err(|wrong| format!("item {}: {wrong}", index + 1))
        };
        text.split(',').enumerate().map(item).collect()
    }

    fn show(&self) -> String {
        let items: Vec<String> = self.iter().map(|item| format!("\"{}\"", item.show())).collect();
        format!("[{}]", items.join(", "))
    }
}

/// The units of a duration, in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Value for Duration {
    const EXPECTED: &'static str = "a duration, such as `500ms`, `30s`, `15m`, `12h` or `14d`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        with_unit(text, &DURATION_UNITS, "ms, s, m, h and d").map(Self::from_millis)
    }

    fn show(&self) -> String {
        let millis = self.as_millis();
        DURATION_UNITS
            .iter()
            .rev()
            .find(|(_, unit)| millis > 0 && millis.is_multiple_of(u128::from(*unit)))
            .map_or_else(
                || "0s".to_owned(),
                |(name, unit)| format!("{}{name}", millis / u128::from(*unit)),
            )
    }

    fn size(&self) -> Option<u128> {
        Some(self.as_millis())
    }
}

/// The units of a byte size, in bytes.
const SIZE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Settings of this type are numbers of bytes; counts are `u8` or `u32`.
impl Value for u64 {
    const EXPECTED: &'static str = "a size, such as `512B`, `64KiB` or `1MiB`";
    const SHAPE: Shape = Shape::Text;

    fn parse(text: &str) -> Result<Self, String> {
        with_unit(text, &SIZE_UNITS, "B, KiB, MiB and GiB")
    }

    fn show(&self) -> String {
        SIZE_UNITS
            .iter()
            .rev()
            .find(|(_, unit)| *self > 0 && self.is_multiple_of(*unit))
            .map_or_else(|| "0B".to_owned(), |(name, unit)| format!("{}{name}", self / unit))
    }

    fn size(&self) -> Option<u128> {
        Some(u128::from(*self))
    }
}

/// Parses a whole number followed by one of `units`. Returns it in the smallest unit.
fn with_unit(text: &str, units: &[(&str, u64)], names: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("does not begin with a whole number".to_owned());
    }
    let number: u64 = number.parse().map_err(|_| "is too large".to_owned())?;
    if unit.is_empty() {
        return Err(format!("has no unit; the units are {names}"));
    }
    let (_, factor) = units
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| format!("has an unknown unit; the units are {names}, without a space"))?;
    number.checked_mul(*factor).ok_or_else(|| "is too large".to_owned())
}
