//! [`IncarnationId`]: the id of an incarnation as 32 hexadecimal digits, as files and operators write it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Id of one opening of an edge's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct IncarnationId(pub(crate) [u8; 16]);

impl fmt::Display for IncarnationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<IncarnationId> for String {
    fn from(id: IncarnationId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for IncarnationId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_hex = text.len() == 32 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| is_hex);
        let number = number.ok_or("an incarnation has 32 digits of 0-9 a-f")?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_from_its_digits_and_nothing_else_does() {
        let id = IncarnationId(std::array::from_fn(|at| at as u8 * 17));
        assert_eq!(IncarnationId::try_from(id.to_string()), Ok(id));
        for wrong in [
            "",
            "00",
            "+0112233445566778899aabbccddeeff",
            &"g".repeat(32),
            &"A".repeat(32),
            &"0".repeat(33),
        ] {
            assert!(IncarnationId::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
