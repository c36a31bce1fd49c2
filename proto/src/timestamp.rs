//! A moment, in the form of `google.protobuf.Timestamp` on the wire and of RFC 3339 in JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// A moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// What is beyond the second, in nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// So many microseconds after 1970 began.
    #[must_use]
    pub fn from_microseconds(microseconds: i64) -> Self {
        let nanos = microseconds.rem_euclid(1_000_000) * 1000;
        Self { seconds: microseconds.div_euclid(1_000_000), nanos: i32::try_from(nanos).expect("less than a second") }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        jiff::Timestamp::new(self.seconds, self.nanos).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let moment: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        // Before 1970 the seconds are rounded down, and what is beyond them counts forwards.
        let (seconds, nanos) = (moment.as_second(), moment.subsec_nanosecond());
        Ok(if nanos < 0 {
            Self { seconds: seconds - 1, nanos: nanos + 1_000_000_000 }
        } else {
            Self { seconds, nanos }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_rfc_3339_and_read_again() {
        for (microseconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_735_689_600_000_000, "2025-01-01T00:00:00Z"),
            (1_735_689_600_250_000, "2025-01-01T00:00:00.25Z"),
            (-500_000, "1969-12-31T23:59:59.5Z"),
        ] {
            let moment = Timestamp::from_microseconds(microseconds);
            let written = serde_json::to_string(&moment).unwrap();
            assert_eq!(written, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Timestamp>(&written).unwrap(), moment);
        }
    }
}
