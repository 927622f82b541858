//! The secret text of an API key.

use sha2::{Digest, Sha256};
use std::fmt;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET_LENGTH: usize = 30;
const CHECKSUM_LENGTH: usize = 6;

/// The secret text of a key: `prop_`, 30 random characters, and a checksum of 6.
///
/// The checksum finds typing errors without a database query. The database stores only a hash.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}...", self.shown())
    }
}

impl Token {
    /// Generates a key with 178 random bits.
    ///
    /// # Errors
    /// When the operating system provides no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = String::with_capacity(SECRET_LENGTH);
        let mut random = [0_u8; 64];
        while secret.len() < SECRET_LENGTH {
            getrandom::fill(&mut random)?;
            // 248 is the largest multiple of 62 in a byte. With larger values, some characters
            // would be more likely than others.
            let fair = random
                .iter()
                .filter(|byte| **byte < 248)
                .map(|byte| ALPHABET[usize::from(byte % 62)] as char);
            secret.extend(fair.take(SECRET_LENGTH - secret.len()));
        }
        Ok(Self(format!("prop_{secret}{}", checksum(&secret))))
    }

    /// Parses a key. `None` when it is malformed or its checksum is wrong.
    pub fn parse(text: &str) -> Option<Self> {
        let (secret, sum) = text.strip_prefix("prop_")?.split_at_checked(SECRET_LENGTH)?;
        let base62 = secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (base62 && sum == checksum(secret)).then(|| Self(text.to_owned()))
    }

    /// The whole secret. Show it only once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The first 10 characters, by which people recognise the key.
    pub fn shown(&self) -> &str {
        &self.0[..10]
    }

    /// The SHA-256 of the key in hexadecimal, which is what the database stores. A fast hash is
    /// enough, because a secret with 178 random bits cannot be guessed.
    pub fn hash(&self) -> String {
        hex(&Sha256::digest(&self.0))
    }
}

/// The bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn checksum(secret: &str) -> String {
    let mut rest = crc32fast::hash(secret.as_bytes()) as usize;
    let mut digits = [b'0'; CHECKSUM_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[rest % 62];
        rest /= 62;
    }
    digits.iter().map(|digit| *digit as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_every_changed_character_is_noticed() {
        let token = Token::generate().unwrap();
        assert_eq!(token.reveal().len(), 41);
        assert_eq!(Token::parse(token.reveal()).unwrap().hash(), token.hash());
        for at in 0..token.reveal().len() {
            let mut changed = token.reveal().to_owned().into_bytes();
            changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
            assert!(
                Token::parse(std::str::from_utf8(&changed).unwrap()).is_none(),
                "character {at}"
            );
        }
        for wrong in ["", "prop_", "prop_é", &token.reveal()[1..], &format!("{}0", token.reveal())]
        {
            assert!(Token::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_token_does_not_show_itself() {
        let token = Token::generate().unwrap();
        assert!(!format!("{token:?}").contains(&token.reveal()[12..]));
    }
}
