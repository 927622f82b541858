//! The form in which PostgreSQL stores a password (SCRAM-SHA-256, RFC 5802 and RFC 7677). Given
//! this instead of the password, neither the server nor its log ever has that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// As many as PostgreSQL's own `scram_iterations`.
const ITERATIONS: u32 = 4096;

type Result<T> = std::result::Result<T, String>;

/// A verifier of this password, with a salt of its own.
///
/// # Errors
/// For a password that is empty or not printable ASCII: others would first have to be normalised
/// (SASLprep). Or when the system has no random numbers.
pub fn verifier(password: &str) -> Result<String> {
    if password.is_empty() || !password.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("prop creates a role only with a password of printable ASCII characters. \
            Create the role yourself, or choose another password"
            .into());
    }
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
    with_salt(password, &salt)
}

fn with_salt(password: &str, salt: &[u8]) -> Result<String> {
    let salted = salted(password, salt)?;
    let stored = Sha256::digest(hmac(&salted, b"Client Key")?);
    let server = hmac(&salted, b"Server Key")?;
    let [salt, stored, server] = [salt, &stored, &server].map(|bytes| STANDARD.encode(bytes));
    Ok(format!("SCRAM-SHA-256${ITERATIONS}:{salt}${stored}:{server}"))
}

/// `Hi(password, salt, i)` of RFC 5802: PBKDF2 with one block.
fn salted(password: &str, salt: &[u8]) -> Result<[u8; 32]> {
    let mut block = hmac(password.as_bytes(), &[salt, &1_u32.to_be_bytes()].concat())?;
    let mut result = block;
    for _ in 1..ITERATIONS {
        block = hmac(password.as_bytes(), &block)?;
        result.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    Ok(result)
}

fn hmac(key: &[u8], message: &[u8]) -> Result<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| error.to_string())?;
    mac.update(message);
    Ok(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3: its salt and password, and the server's signature.
    #[test]
    fn the_keys_are_those_of_the_standard() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = with_salt("pencil", &salt).unwrap();
        let server = STANDARD.decode(verifier.rsplit(':').next().unwrap()).unwrap();
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = STANDARD.encode(hmac(&server, message.as_bytes()).unwrap());
        assert_eq!(signature, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(verifier.starts_with("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"));
    }

    #[test]
    fn no_two_are_the_same_and_other_passwords_are_refused() {
        assert_ne!(verifier("a password"), verifier("a password"));
        for refused in ["", "pässword", "a\npassword"] {
            assert!(verifier(refused).is_err(), "{refused:?}");
        }
    }
}
