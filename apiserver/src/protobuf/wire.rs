//! The fields of a protobuf message, one after the other, without knowing what they mean.

use prost::encoding::{WireType, decode_key, decode_varint};

/// The bytes are no protobuf, or hold what no Go type does. The text says what was found.
#[derive(Debug)]
pub(super) struct Malformed(pub String);

impl Malformed {
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// One field as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Written<'a> {
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(Malformed::new(format!("expected bytes, got {other:?}"))),
        }
    }

    pub fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed::new("text is not UTF-8"))
    }

    pub fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(number) => Ok(number),
            other => Err(Malformed::new(format!("expected a number, got {other:?}"))),
        }
    }
}

/// The fields of a message, each with its number. Ends after the first error.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Written<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u32, Written<'a>), Malformed> {
        let broken = |error: prost::DecodeError| Malformed(error.to_string());
        let (number, wire) = decode_key(&mut self.rest).map_err(broken)?;
        let written = match wire {
            WireType::Varint => Written::Varint(decode_varint(&mut self.rest).map_err(broken)?),
            WireType::SixtyFourBit => Written::Fixed64(u64::from_le_bytes(self.array()?)),
            WireType::ThirtyTwoBit => Written::Fixed32(u32::from_le_bytes(self.array()?)),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.rest).map_err(broken)?;
                Written::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            WireType::StartGroup | WireType::EndGroup => return Err(Malformed::new("groups are not supported")),
        };
        Ok((number, written))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| Malformed::new("unexpected EOF"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::new("unexpected EOF"))
    }
}
