//! Second factor: TOTP codes (RFC 6238), and recovery codes for a lost authenticator.
//!
//! Codes have six digits by HMAC-SHA-1 and a time step of 30 s, the parameters that all apps
//! support. The steps before and after the current one are accepted, for clock differences, but
//! only after the step of the last accepted code: a code is valid once (section 5.2). Recovery
//! codes are random and valid once; the store holds their SHA-256. After [`MAX_FAILURES`] wrong
//! codes in a row only a recovery code is accepted (NIST SP 800-63B-4, 3.2.2): at one guess per
//! minute, which the throttle allows, six digits would be found within months.
//!
//! Pure: state and rate limits belong to the [service](crate::service).

use chrono::{DateTime, Utc};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use totp_rs::{Builder, Secret, Totp};
use zeroize::Zeroizing;

use crate::{Error, OpaqueToken, random::random};

pub use crate::secret::FactorSecret;

/// Time step, in seconds.
const STEP_S: u64 = 30;

/// Wrong codes in a row after which only a recovery code is accepted.
pub const MAX_FAILURES: u32 = 100;

/// Steps (one hour) by which a last step may be in the future; a later one was written by a clock
/// that was ahead, and blocks no code.
const MAX_STEPS_AHEAD: u64 = 120;

/// Digits of a code.
const DIGITS: usize = 6;

/// Number of recovery codes.
const RECOVERY_CODES: usize = 10;

/// Characters of a recovery code: 50 random bits.
const RECOVERY_CHARS: usize = 10;

/// Crockford's Base32: no letter that is taken for another, or for a digit.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl FactorSecret {
    /// Returns a new random secret.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if the system has no randomness.
    pub fn generate() -> Result<Self, Error> {
        random().map(Self::new)
    }

    /// Creates a secret from its bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let bytes = bytes
            .try_into()
            .map_err(|_| Error::internal("stored TOTP secret has a wrong length"))?;
        Ok(Self::new(Zeroizing::new(bytes)))
    }

    /// Returns the secret in Base32 (RFC 4648), for manual entry.
    pub fn base32(&self) -> String {
        Secret::new_stack(*self.expose()).to_base32()
    }

    /// Returns the `otpauth` URL of `account` at `issuer`, for a QR code.
    pub fn url(&self, issuer: &str, account: &str) -> String {
        let [issuer, account] =
            [issuer, account].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string());
        let secret = self.base32();
        format!("otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}")
    }

    /// Returns the time step of `code` if it is within one step of `now` and after `last_step`.
    /// Spaces in the code are ignored.
    pub fn check(&self, code: &str, now: DateTime<Utc>, last_step: u64) -> Option<u64> {
        let code: String = code.chars().filter(|char| *char != ' ').collect();
        if code.len() != DIGITS || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let now = u64::try_from(now.timestamp()).ok()?;
        let totp = self.totp()?;
        let step = now / STEP_S;
        let last_step = if last_step > step + MAX_STEPS_AHEAD { 0 } else { last_step };
        // Compares all three, for constant time.
        let mut found = None;
        for step in step.saturating_sub(1)..=step + 1 {
            let expected = totp.generate(step * STEP_S).to_string();
            if bool::from(expected.as_bytes().ct_eq(code.as_bytes())) && step > last_step {
                found = Some(step);
            }
        }
        found
    }

    fn totp(&self) -> Option<Totp> {
        let secret = Secret::new_stack(*self.expose());
        Builder::new().with_secret(secret).with_step_duration(STEP_S).build().ok()
    }
}

/// New recovery codes.
#[derive(Debug)]
pub struct RecoveryCodes(Vec<OpaqueToken>);

impl RecoveryCodes {
    /// Returns ten new codes.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if the system has no randomness.
    pub fn generate() -> Result<Self, Error> {
        let one = |_| {
            let bytes = random::<RECOVERY_CHARS>()?;
            let mut text = Zeroizing::new(String::with_capacity(RECOVERY_CHARS + 1));
            for (at, byte) in bytes.iter().enumerate() {
                if at == RECOVERY_CHARS / 2 {
                    text.push('-');
                }
                text.push(char::from(ALPHABET[usize::from(byte % 32)]));
            }
            Ok(OpaqueToken::new(text))
        };
        (0..RECOVERY_CODES).map(one).collect::<Result<_, Error>>().map(Self)
    }

    /// Returns the codes for their owner, as `ABCDE-FGHJK`.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(OpaqueToken::expose)
    }

    /// Returns the hashes to store.
    pub fn hashes(&self) -> Vec<[u8; 32]> {
        self.texts().filter_map(hash_of).collect()
    }
}

/// Returns the index of the hash of `code`. Case, hyphens and the confusable letters O, I and L do
/// not matter.
pub fn find_recovery_code(hashes: &[[u8; 32]], code: &str) -> Option<usize> {
    let hash = hash_of(code)?;
    let mut found = None;
    for (at, known) in hashes.iter().enumerate() {
        if bool::from(known.ct_eq(&hash)) {
            found = Some(at);
        }
    }
    found
}

fn hash_of(code: &str) -> Option<[u8; 32]> {
    let mut canonical = Zeroizing::new(String::with_capacity(RECOVERY_CHARS));
    for char in code.chars().filter(|char| !matches!(char, '-' | ' ')) {
        let char = match char.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            char => char,
        };
        let is_known = u8::try_from(char).is_ok_and(|byte| ALPHABET.contains(&byte));
        if !is_known || canonical.len() == RECOVERY_CHARS {
            return None;
        }
        canonical.push(char);
    }
    (canonical.len() == RECOVERY_CHARS).then(|| Sha256::digest(canonical.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret() -> FactorSecret {
        // Of RFC 6238, appendix B.
        FactorSecret::new(Zeroizing::new(*b"12345678901234567890"))
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn codes_match_the_rfc() {
        // Its codes have eight digits, of which these are the last six.
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            let step = u64::try_from(seconds).unwrap() / STEP_S;
            assert_eq!(secret().check(code, at(seconds), 0), Some(step), "{seconds}");
        }
    }

    #[test]
    fn adjacent_steps_are_accepted_and_no_others() {
        let step = 1_111_111_111 / 30;
        for (seconds, taken) in [(-61, false), (-30, true), (0, true), (30, true), (61, false)] {
            let found = secret().check("050471", at(1_111_111_111 + seconds), 0);
            assert_eq!(found, taken.then_some(step), "{seconds}");
        }
    }

    #[test]
    fn used_and_earlier_codes_are_rejected() {
        let (now, step) = (at(1_111_111_111), 1_111_111_111 / 30);
        assert_eq!(secret().check("050 471", now, step - 1), Some(step));
        assert_eq!(secret().check("050471", now, step), None);
        assert_eq!(secret().check("081804", now, step), None, "that of the step before");
    }

    #[test]
    fn malformed_codes_are_rejected() {
        for wrong in ["", "05047", "0504711", "05047a", "-50471", "٠٥٠٤٧١", "050471\n"] {
            assert_eq!(secret().check(wrong, at(1_111_111_111), 0), None, "{wrong:?}");
        }
    }

    #[test]
    fn otpauth_url_has_secret_and_account() {
        let url = secret().url("Coditect", "ada+x@example.org");
        assert_eq!(
            url,
            "otpauth://totp/Coditect:ada%2Bx%40example%2Eorg\
             ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Coditect"
        );
    }

    #[test]
    fn recovery_code_is_found_in_any_spelling() {
        let codes = RecoveryCodes::generate().unwrap();
        let hashes = codes.hashes();
        assert_eq!(hashes.len(), 10);
        for (at, code) in codes.texts().enumerate() {
            let spelt = code.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
            for text in [code, &spelt, &code.replace('-', "")] {
                assert_eq!(find_recovery_code(&hashes, text), Some(at), "{text}");
            }
            assert_eq!(find_recovery_code(&hashes, &code[1..]), None);
            assert_eq!(find_recovery_code(&hashes, &format!("{code}0")), None);
        }
        assert_eq!(find_recovery_code(&hashes, "00000-00000"), None);
    }

    proptest! {
        #[test]
        fn garbage_is_no_code(text in any::<String>(), seconds in 0..4_000_000_000_i64) {
            prop_assume!(text.chars().filter(char::is_ascii_digit).count() != DIGITS);
            prop_assert_eq!(secret().check(&text, at(seconds), 0), None);
            prop_assert_eq!(find_recovery_code(&[[0; 32]], &text), None);
        }
    }
}
